"""Phonemes, times and voices of eSpeak, measured in the audio."""

import dataclasses
import itertools
import sys

import numpy as np
import pytest

from vqvae_jax.contrib.synthetic_speech import espeak
from vqvae_jax.contrib.synthetic_speech.espeak import Phoneme, Synthesizer, Voice
from vqvae_jax.runtime.errors import UserError

needs_espeak = pytest.mark.skipif(
    not espeak.is_available(),
    reason="eSpeak NG is not installed: pip install espeakng-loader",
)
TEXT = "The seven small birds sang near the old church."
MALE, FEMALE = Voice(variant="m3"), Voice(variant="f4")


@needs_espeak
class TestSynthesizer:
    def test_phonemes_match_the_words(self):
        spoken = Synthesizer().say("Peter saw a fish.", MALE)
        names = [p.name.strip("',") for p in spoken.phonemes]
        assert names[:9] == ["p", "i:", "t#", "3", "s", "O:", "a#", "f", "I"]
        assert names[9] == "S"
        assert all(name.startswith("_") for name in names[10:])
        starts = [p.start for p in spoken.phonemes]
        assert starts == sorted(starts)
        assert 0 <= starts[0] < starts[-1] <= len(spoken.audio)
        assert spoken.audio.dtype == np.int16

    def test_copies_have_separate_state(self):
        """The same texts in the same order give the same samples in every copy."""
        spoken = []
        for _ in range(2):
            synthesizer = Synthesizer()
            spoken.append([synthesizer.say(TEXT, voice) for voice in (MALE, FEMALE)])
        for one, other in zip(*spoken, strict=True):
            np.testing.assert_array_equal(one.audio, other.audio)
            assert one.phonemes == other.phonemes

    def test_phone_times_match_the_audio(self):
        """An s has most of its power above 3 kHz, a vowel below."""
        spoken = Synthesizer().say("See the sea, saw the sauce, so sue Sam.", MALE)
        phonemes = [*spoken.phonemes, Phoneme("_", len(spoken.audio))]
        low = {"s": [], "vowel": []}
        for phoneme, after in itertools.pairwise(phonemes):
            symbol = phoneme.name.strip("',")
            kind = "s" if symbol == "s" else "vowel" if symbol[0] in "iOaou" else ""
            if kind:
                power = np.abs(np.fft.rfft(spoken.audio[phoneme.start : after.start]))
                edge = round(len(power) * 3_000 / (espeak.RATE / 2))
                low[kind].append((power[:edge] ** 2).sum() / (power**2).sum())
        assert len(low["s"]) >= 7
        assert len(low["vowel"]) >= 7
        assert max(low["s"]) < 0.5 < min(low["vowel"])

    def test_voice_options_change_the_audio(self):
        synthesizer = Synthesizer()

        def seconds(**options):
            voice = dataclasses.replace(MALE, **options)
            return len(synthesizer.say(TEXT, voice).audio) / espeak.RATE

        def hertz(**options):
            """The pitch: the strongest period in the middle of a long vowel."""
            voice = dataclasses.replace(MALE, pitch_range=0, **options)
            spoken = synthesizer.say("Aah.", voice)
            middle = spoken.audio[len(spoken.audio) // 3 :][:2_048].astype(float)
            power = np.abs(np.fft.rfft(middle, 2**14)) ** 2
            correlation = np.fft.irfft(power)[40:400]
            return espeak.RATE / (40 + correlation.argmax())

        assert seconds(rate=250) < 0.8 * seconds(rate=150)
        assert hertz(pitch=20) < hertz(pitch=50) < hertz(pitch=80)
        loud, quiet = (
            np.abs(synthesizer.say(TEXT, dataclasses.replace(MALE, volume=v)).audio)
            for v in (80, 20)
        )
        assert 3 < loud.max() / quiet.max() < 5

    @pytest.mark.parametrize(
        "voice", [Voice(variant="m3", language="xx"), Voice(variant="nobody")]
    )
    def test_unknown_voice_raises(self, voice):
        name = f"{voice.language}+{voice.variant}"
        with pytest.raises(UserError, match=f"no voice '{name}'".replace("+", r"\+")):
            Synthesizer().say(TEXT, voice)

    def test_empty_text_raises(self):
        with pytest.raises(UserError, match="returned no sound for ''"):
            Synthesizer().say("", MALE)


def test_without_espeak_the_error_suggests_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(
        UserError,
        match=r"espeakng-loader is needed .* pip install 'vqvae_jax\[speech\]'",
    ):
        Synthesizer()


@needs_espeak
def test_library_of_another_platform_raises(monkeypatch, tmp_path):
    import espeakng_loader

    (tmp_path / "libespeak.so").write_bytes(b"no library")
    monkeypatch.setattr(
        espeakng_loader, "get_library_path", lambda: str(tmp_path / "libespeak.so")
    )
    with pytest.raises(UserError, match=r"libespeak\.so cannot be loaded"):
        Synthesizer()
