"""Recordings are read, resampled and written; any file is read or raises an error."""

import io
import struct
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech import audio

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
pytest.importorskip("soxr", reason="soxr is not installed")


def read(path, rate=16_000):
    """Read a file, and check that `inspect` returns the same length."""
    samples = audio.read(str(path), rate=rate)
    assert samples.dtype == np.int16
    assert audio.inspect(str(path), rate=rate) == len(samples)
    return samples


def assert_refused(path, match):
    for call in (audio.inspect, audio.read):
        with pytest.raises(UserError, match=match) as caught:
            call(str(path), rate=16_000)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_16_bit_samples_are_unchanged(tmp_path, write, name):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 5_000, np.int16)
    samples[:2] = [-(2**15), 2**15 - 1]
    np.testing.assert_array_equal(read(write(tmp_path / name, samples)), samples)


@pytest.mark.parametrize(
    ("subtype", "step"),
    [("PCM_U8", 2**-7), ("PCM_24", 0), ("PCM_32", 0), ("FLOAT", 0), ("DOUBLE", 0)],
)
def test_other_depths_are_converted_to_16_bits(tmp_path, write, tone, subtype, step):
    samples = tone(0.3)
    got = read(write(tmp_path / "a.wav", samples, subtype=subtype))
    # Half a step at 16 bits, and one step of the file's format.
    assert np.abs(got / 2**15 - samples).max() <= 0.501 * 2**-15 + step


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(tmp_path, write, tone, rate):
    """A tone keeps its duration, amplitude and phase."""
    got = read(write(tmp_path / "a.wav", tone(1.0, rate), rate))
    assert len(got) == 16_000
    inside = slice(1_000, -1_000)
    np.testing.assert_allclose(got[inside] / 2**15, tone(1.0)[inside], atol=2e-4)


def test_resampling_filters_frequencies_above_nyquist(tmp_path, write, tone):
    high = tone(1.0, 48_000, hertz=10_000)
    got = read(write(tmp_path / "a.wav", high, 48_000))
    assert np.abs(got[1_000:-1_000]).max() / 2**15 < 1e-3


def test_resampling_preserves_times():
    pulse = np.zeros(44_100, np.float32)
    pulse[[11_025, 33_075]] = 1.0
    moved = audio.resample(pulse, from_rate=44_100, to_rate=16_000)
    assert sorted(np.argsort(moved)[-2:]) == [4_000, 12_000]


@pytest.mark.parametrize("length", [*range(3_200, 3_220), 55_723])
@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_resampled_length_is_the_length_after_resampling(length, rate):
    got = audio.resample(np.zeros(length, np.int16), from_rate=rate, to_rate=16_000)
    assert len(got) == audio.resampled_length(length, rate, 16_000)
    assert abs(len(got) - length * 16_000 / rate) <= 0.5


def test_rounding_to_16_bits():
    samples = np.array([0.0, 1.0, -1.0, 1.5, -1.5, 0.4 / 2**15, -0.6 / 2**15])
    expected = [0, 2**15 - 1, -(2**15), 2**15 - 1, -(2**15), 0, -1]
    assert audio.to_int16(samples.astype(np.float32)).tolist() == expected


class TestRefused:
    def test_empty_file(self, tmp_path):
        (tmp_path / "a.wav").touch()
        assert_refused(tmp_path / "a.wav", "the file is empty")

    @pytest.mark.parametrize("seconds", [0.0, 0.1])
    def test_too_short_audio(self, tmp_path, write, tone, seconds):
        path = write(tmp_path / "a.wav", tone(seconds))
        assert_refused(
            path, f"contains {seconds:.2f} s of audio; expected at least 0.2 s"
        )

    def test_stereo(self, tmp_path, write, tone):
        path = write(tmp_path / "a.wav", np.stack([tone(1.0)] * 2, axis=1))
        assert_refused(path, "has 2 channels; expected mono")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_nan_and_infinity(self, tmp_path, write, tone, value):
        samples = tone(3.0)
        samples[[7, 40_000]] = value
        path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
        assert_refused(path, "contains 2 NaN or infinite samples")

    def test_floats_out_of_range(self, tmp_path, write, tone):
        path = write(tmp_path / "a.wav", tone(1.0) * 2**15, subtype="FLOAT")
        assert_refused(path, r"samples up to 1\.638e\+04; expected -1 to 1")

    @pytest.mark.parametrize("name", ["a.wav", "a.flac"])
    def test_file_of_another_format(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"this is no sound file" * 100)
        assert_refused(tmp_path / name, "cannot be read")

    @pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "PCM_24", "FLOAT", "ULAW"])
    @pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
    @pytest.mark.parametrize("kept", [0.5, 0.9999, -1])
    def test_truncated_wav_file(self, tmp_path, tone, subtype, endian, kept):
        """libsndfile adapts the number of samples to the length of the file."""
        path = tmp_path / "a.wav"
        soundfile.write(path, tone(1.0), 16_000, subtype=subtype, endian=endian)
        content = path.read_bytes()
        assert len(read(path)) == 16_000
        path.write_bytes(content[: int(len(content) * kept) if kept > 0 else -1])
        assert_refused(path, r"claims \d+ bytes of samples and has \d+; copy it again")

    def test_chunks_around_the_samples(self, tmp_path, write, tone):
        """Other chunks, of even and odd lengths, are skipped."""
        content = write(tmp_path / "a.wav", tone(1.0)).read_bytes()
        extra = b"LIST\x03\0\0\0abc\0" + b"junk\x02\0\0\0ab"
        content = content[:36] + extra + content[36:] + extra
        path = tmp_path / "b.wav"
        path.write_bytes(
            content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
        )
        assert len(read(path)) == 16_000
        path.write_bytes(path.read_bytes()[: -len(extra) - 1])
        assert_refused(path, "claims 32000 bytes of samples and has 31999")

    @pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
    def test_unknown_lengths_of_files_written_to_a_pipe(
        self, tmp_path, write, tone, length
    ):
        """As ffmpeg and sox write; other lengths are still compared with the file."""
        content = write(tmp_path / "a.wav", tone(1.0)).read_bytes()
        path, expected = tmp_path / "b.wav", read(tmp_path / "a.wav")
        path.write_bytes(content[:40] + struct.pack("<I", length) + content[44:])
        np.testing.assert_array_equal(read(path), expected)
        path.write_bytes(content[:40] + struct.pack("<I", length - 2) + content[44:])
        assert_refused(path, f"claims {length - 2} bytes of samples and has 32000")

    def test_a_tag_before_the_header(self, tmp_path, write, tone):
        """libsndfile skips it."""
        content = write(tmp_path / "a.wav", tone(1.0)).read_bytes()
        tag = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)
        (tmp_path / "b.wav").write_bytes(tag + content)
        assert len(soundfile.read(tmp_path / "b.wav")[0]) == 16_000
        assert_refused(tmp_path / "b.wav", r"b\.wav does not start with RIFF; convert")

    @pytest.mark.parametrize("form", ["AIFF", "AU", "W64", "OGG"])
    def test_formats_that_are_not_promised(self, tmp_path, tone, form):
        soundfile.write(tmp_path / "a.wav", tone(1.0), 16_000, format=form)
        assert_refused(tmp_path / "a.wav", f"has the format {form}; expected WAV or")

    @pytest.mark.parametrize("rate", [1, 10, 999])
    def test_rates_that_multiply_the_size(self, tmp_path, write, tone, rate):
        """32 kB at 1 Hz would become 256 million samples."""
        path = write(tmp_path / "a.wav", tone(1.0), rate)
        tracemalloc.start()
        assert_refused(path, f"claims a rate of {rate} Hz; expected at least 1000")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20

    def test_samples_are_limited_after_resampling(
        self, tmp_path, write, tone, monkeypatch
    ):
        monkeypatch.setattr(audio, "_MAX_SAMPLES", 16_000)
        read(write(tmp_path / "a.wav", tone(1.0, 8_000), 8_000))
        path = write(tmp_path / "b.wav", tone(1.1, 8_000), 8_000)
        assert_refused(path, "claims 8800 samples, which are 17600 at 16000 Hz")

    def test_truncated_flac_file(self, tmp_path, write):
        noise = np.random.default_rng(0).integers(-9_000, 9_000, 80_000, np.int16)
        path = write(tmp_path / "a.flac", noise)
        path.write_bytes(path.read_bytes()[:100_000])
        assert_refused(path, "cannot be read|ends after")

    def test_missing_file(self, tmp_path):
        assert_refused(tmp_path / "nowhere.wav", "cannot be read")


def test_missing_package_raises(monkeypatch):
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(
        UserError, match=r"soxr is needed to .*pip install 'vqvae_jax\[speech\]'"
    ):
        audio.resample(np.zeros(99), from_rate=8_000, to_rate=16_000)
    # Without resampling the package is not needed.
    assert len(audio.resample(np.zeros(99), from_rate=8_000, to_rate=8_000)) == 99


RATE = 8_000


def encoded(form: str, subtype: str, channels: int = 1) -> bytes:
    """A quarter of a second of noise."""
    noise = np.random.default_rng(0).normal(size=(RATE // 4, channels)) * 0.1
    stream = io.BytesIO()
    soundfile.write(stream, noise, RATE, format=form, subtype=subtype)
    return stream.getvalue()


RECORDINGS = [
    ("wav", encoded("WAV", "PCM_16")),
    ("wav", encoded("WAV", "FLOAT")),
    ("wav", encoded("WAV", "ULAW")),
    ("wav", encoded("WAV", "PCM_24", 2)),
    ("flac", encoded("FLAC", "PCM_16")),
    ("flac", encoded("FLAC", "PCM_24")),
]


def outcome(folder, suffix: str, content: bytes) -> str:
    """Inspect and read a recording; return the error message, or ""."""
    path = str(folder / f"x.{suffix}")
    with open(path, "wb") as file:
        file.write(content)
    try:
        length = audio.inspect(path, rate=16_000)
        samples = audio.read(path, rate=16_000)
    except UserError as error:
        message = str(error)
    else:
        assert samples.dtype == np.int16
        assert samples.shape == (length,)
        return ""
    assert path in message
    return message


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for one recording at a time."""
    return tmp_path_factory.mktemp("recordings")


def test_only_stereo_is_refused(folder):
    messages = [outcome(folder, *recording) for recording in RECORDINGS]
    assert "has 2 channels" in messages.pop(3)
    assert messages == [""] * 5


@given(
    st.sampled_from(range(len(RECORDINGS))),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=8),
    st.integers(0, 3_000),
)
@example(0, [], 10_000)
def test_corrupted_and_truncated_files_are_read_or_raise(
    folder, number, flips, missing
):
    suffix, content = RECORDINGS[number]
    content = bytearray(content)
    for position, bits in flips:
        content[position % (60 if position % 2 else len(content))] ^= bits
    message = outcome(folder, suffix, bytes(content[: max(0, len(content) - missing)]))
    assert len(message.splitlines()) <= 1


@given(st.sampled_from(["wav", "flac"]), st.binary(max_size=200))
@example("wav", b"")
@example("wav", b"RIFF\xff\xff\xff\xffWAVEfmt ")
def test_other_bytes_raise(folder, suffix, content):
    message = outcome(folder, suffix, content)
    assert message
    assert len(message.splitlines()) == 1


def test_huge_claimed_length_raises_before_allocating(folder):
    content = bytearray(RECORDINGS[4][1])
    # The last 36 bits before the checksum of STREAMINFO are the number of samples.
    assert content[:4] == b"fLaC"
    content[8 + 13] |= 0x0F
    content[8 + 14 : 8 + 18] = b"\xff\xff\xff\xff"
    message = outcome(folder, "flac", bytes(content))
    assert "claims 68719476735 samples" in message


class TestWav:
    @pytest.mark.parametrize("rate", [8000, 16_000, 22_050])
    def test_round_trip_is_lossless(self, rate):
        """Including extreme values and odd lengths, as mono 16-bit PCM."""
        rng = np.random.default_rng(0)
        samples = rng.integers(-(2**15), 2**15, size=1001).astype(np.int16)
        samples[:2] = -(2**15), 2**15 - 1
        content = audio.wav(samples, rate=rate)
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            assert (file.format, file.subtype) == ("WAV", "PCM_16")
            assert (file.samplerate, file.channels) == (rate, 1)
            np.testing.assert_array_equal(file.read(dtype="int16"), samples)

    def test_empty_clip(self):
        content = audio.wav(np.zeros(0, np.int16), rate=16_000)
        assert len(soundfile.read(io.BytesIO(content))[0]) == 0

    def test_missing_package_raises(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "soundfile", None)
        with pytest.raises(UserError, match="soundfile is needed to write recordings"):
            audio.wav(np.zeros(8, np.int16), rate=16_000)
