"""eSpeak NG, called through ctypes: a voice says a text, and when it says each phone.

`espeakng-loader` carries the library and its voices. The times are exact: eSpeak counts
the samples it has written when it begins a phone.
"""

import ctypes
import dataclasses
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int16

from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.tasks.speech.audio import imported

RATE = 22_050

# Of speak_lib.h.
_SYNCHRONOUS = 2
_PHONEME_EVENTS = 0x0001
_DO_NOT_EXIT = 0x8000
_UTF8 = 1
_BY_CHARACTER = 1
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "pitch_range": 4}
_LIST_TERMINATED = 0
_PHONEME = 7


class Phoneme(NamedTuple):
    """A phone in eSpeak's own letters, stress included, and its first sample."""

    name: str
    start: int


class Speech(NamedTuple):
    """What a voice said: samples at 22 050 Hz, and the phones in them in order."""

    audio: Int16[np.ndarray, " t"]
    phonemes: tuple[Phoneme, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voice:
    """Who speaks.

    Attributes:
      variant: a file of eSpeak's `voices/!v`, such as "f2": formants, pitch, roughness.
      language: whose phones and rules are used.
      pitch: 0 to 99; 50 is the variant's own.
      pitch_range: 0 to 99; 50 is the variant's own, 0 monotonous.
      rate: words a minute, 80 to 450.
      volume: 0 to 200; at 100, eSpeak's own, some variants are clipped.
    """

    variant: str
    language: str = "en-us"
    pitch: int = 50
    pitch_range: int = 50
    rate: int = 175
    volume: int = 25


class Synthesizer:
    """One copy of the library, with a state of its own.

    eSpeak keeps phases and noise from one text to the next, so that what is said
    depends on all that was said before. A copy begins anew: the same texts in the same
    order give the same samples.
    """

    def __init__(self):
        """Load a fresh copy.

        Raises:
          UserError: eSpeak NG is not installed, or cannot be loaded here.
        """
        loader = imported("espeakng_loader", purpose="to speak data.name='speech'")
        original = Path(loader.get_library_path())
        # The system loads a file once, and a copy of it once more.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            copy = shutil.copy(original, folder)
            try:
                self._library = ctypes.CDLL(copy)
            except OSError as error:
                raise UserError(
                    f"eSpeak NG is installed, but {original} cannot be loaded "
                    f"({error}); install espeakng-loader for this machine"
                ) from error
        rate = self._library.espeak_Initialize(
            _SYNCHRONOUS,
            0,
            str(Path(loader.get_data_path()).parent).encode(),
            _PHONEME_EVENTS | _DO_NOT_EXIT,
        )
        require(
            rate == RATE,
            f"eSpeak NG starts with the rate {rate}; expected {RATE} Hz. Install "
            "espeakng-loader again",
        )
        self._variants = Path(loader.get_data_path()) / "voices" / "!v"
        self._chunks: list[Int16[np.ndarray, " n"]] = []
        self._phonemes: list[Phoneme] = []
        # As long as the library may call it, it must be kept.
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: Voice) -> Speech:
        """Return a text as the voice says it.

        Raises:
          UserError: there is no such voice, or eSpeak fails.
        """
        self._chunks, self._phonemes = [], []
        name = f"{voice.language}+{voice.variant}"
        failed = self._library.espeak_SetVoiceByName(name.encode())
        # A variant that is missing eSpeak leaves out.
        is_there = (self._variants / voice.variant).is_file()
        require(is_there and not failed, f"eSpeak NG has no voice {name!r}")
        for option, number in _PARAMETERS.items():
            self._library.espeak_SetParameter(number, getattr(voice, option), 0)
        encoded = text.encode()
        failed = self._library.espeak_Synth(
            encoded, len(encoded) + 1, 0, _BY_CHARACTER, 0, _UTF8, None, None
        )
        require(
            not failed and any(chunk.any() for chunk in self._chunks),
            f"eSpeak NG says nothing to {text!r} in the voice {name!r}",
        )
        return Speech(np.concatenate(self._chunks), tuple(self._phonemes))

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            array = np.ctypeslib.as_array(samples, (count,))
            self._chunks.append(array.copy())
        for event in events:
            if event.type == _LIST_TERMINATED:
                break
            if event.type == _PHONEME:
                letters = bytes(event.name).split(b"\0")[0]
                self._phonemes.append(Phoneme(letters.decode(), event.sample))
        return 0


def is_available() -> bool:
    """Say whether eSpeak NG is installed."""
    return importlib.util.find_spec("espeakng_loader") is not None


class _Event(ctypes.Structure):
    """`espeak_EVENT`; the union at its end is read as the name of a phoneme."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_ubyte * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
