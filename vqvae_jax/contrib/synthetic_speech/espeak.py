"""Synthesise speech and phone times with eSpeak NG, called through ctypes.

`espeakng-loader` provides the library and its voices. The times are exact: at the start
of each phone, eSpeak reports the number of samples written so far.
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
from vqvae_jax.runtime.extras import imported

RATE = 22_050

# Constants of speak_lib.h.
_SYNCHRONOUS = 2
_PHONEME_EVENTS = 0x0001
_DO_NOT_EXIT = 0x8000
_UTF8 = 1
_BY_CHARACTER = 1
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "pitch_range": 4}
_LIST_TERMINATED = 0
_PHONEME = 7


class Phoneme(NamedTuple):
    """A phone in eSpeak's symbols, including stress, and its start sample."""

    name: str
    start: int


class Speech(NamedTuple):
    """Synthesised samples at 22 050 Hz and their phones, in order."""

    audio: Int16[np.ndarray, " t"]
    phonemes: tuple[Phoneme, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voice:
    """A voice of eSpeak.

    Attributes:
      variant: a file in eSpeak's `voices/!v`, such as "f2", which sets formants, pitch
        and roughness.
      language: the language of phones and pronunciation rules.
      pitch: 0 to 99; 50 is the variant's default.
      pitch_range: 0 to 99; 50 is the variant's default, 0 is monotonous.
      rate: words per minute, 80 to 450.
      volume: 0 to 200; at eSpeak's default of 100, some variants are clipped.
    """

    variant: str
    language: str = "en-us"
    pitch: int = 50
    pitch_range: int = 50
    rate: int = 175
    volume: int = 25


class Synthesizer:
    """A private copy of the library, with separate state.

    eSpeak carries phases and noise over from one text to the next, so its output
    depends on all previous texts. A copy starts from the initial state: the same texts
    in the same order give the same samples.
    """

    def __init__(self):
        """Load a new copy of the library.

        Raises:
          UserError: if eSpeak NG is not installed or cannot be loaded.
        """
        loader = imported("espeakng_loader", purpose="to speak data.name='speech'")
        original = Path(loader.get_library_path())
        # The system loads each file only once, so load a copy of it.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            copy = shutil.copy(original, folder)
            try:
                self._library = ctypes.CDLL(copy)
            except OSError as error:
                raise UserError(
                    f"eSpeak NG is installed, but {original} cannot be loaded "
                    f"({error}); install espeakng-loader for this platform"
                ) from error
        rate = self._library.espeak_Initialize(
            _SYNCHRONOUS,
            0,
            str(Path(loader.get_data_path()).parent).encode(),
            _PHONEME_EVENTS | _DO_NOT_EXIT,
        )
        require(
            rate == RATE,
            f"eSpeak NG has a sample rate of {rate} Hz; expected {RATE} Hz. Reinstall "
            "espeakng-loader",
        )
        self._variants = Path(loader.get_data_path()) / "voices" / "!v"
        self._chunks: list[Int16[np.ndarray, " n"]] = []
        self._phonemes: list[Phoneme] = []
        # Keep a reference as long as the library can call it.
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: Voice) -> Speech:
        """Synthesise a text.

        Raises:
          UserError: if the voice does not exist, or eSpeak fails.
        """
        self._chunks, self._phonemes = [], []
        name = f"{voice.language}+{voice.variant}"
        failed = self._library.espeak_SetVoiceByName(name.encode())
        # eSpeak silently ignores a missing variant.
        exists = (self._variants / voice.variant).is_file()
        require(exists and not failed, f"eSpeak NG has no voice {name!r}")
        for option, number in _PARAMETERS.items():
            self._library.espeak_SetParameter(number, getattr(voice, option), 0)
        encoded = text.encode()
        failed = self._library.espeak_Synth(
            encoded, len(encoded) + 1, 0, _BY_CHARACTER, 0, _UTF8, None, None
        )
        require(
            not failed and any(chunk.any() for chunk in self._chunks),
            f"eSpeak NG returned no sound for {text!r} in the voice {name!r}",
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
                symbol = bytes(event.name).split(b"\0")[0]
                self._phonemes.append(Phoneme(symbol.decode(), event.sample))
        return 0


def is_available() -> bool:
    """Return whether eSpeak NG is installed."""
    return importlib.util.find_spec("espeakng_loader") is not None


class _Event(ctypes.Structure):
    """`espeak_EVENT`, with the union at its end read as a phoneme name."""

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
