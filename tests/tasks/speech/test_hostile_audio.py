"""Any file is read or raises a one-line error naming it, in memory of its size."""

import io

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech import audio

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
pytest.importorskip("soxr", reason="soxr is not installed")

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


def read(folder, suffix: str, content: bytes) -> str:
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
    messages = [read(folder, *recording) for recording in RECORDINGS]
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
    message = read(folder, suffix, bytes(content[: max(0, len(content) - missing)]))
    assert len(message.splitlines()) <= 1


@given(st.sampled_from(["wav", "flac"]), st.binary(max_size=200))
@example("wav", b"")
@example("wav", b"RIFF\xff\xff\xff\xffWAVEfmt ")
def test_other_bytes_raise(folder, suffix, content):
    message = read(folder, suffix, content)
    assert message
    assert len(message.splitlines()) == 1


def test_huge_claimed_length_raises_before_allocating(folder):
    content = bytearray(RECORDINGS[4][1])
    # The last 36 bits before the checksum of STREAMINFO are the number of samples.
    assert content[:4] == b"fLaC"
    content[8 + 13] |= 0x0F
    content[8 + 14 : 8 + 18] = b"\xff\xff\xff\xff"
    message = read(folder, "flac", bytes(content))
    assert "claims 68719476735 samples" in message
