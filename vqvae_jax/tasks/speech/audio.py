"""Read and write recordings as int16 [t]: one channel, 16 bits, at a given rate."""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int16, Shaped

from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.runtime.extras import imported

# Of the files that `read` accepts.
SUFFIXES = (".wav", ".flac")

# Divides int16 samples to [-1, 1).
FULL_SCALE = 2**15

# Shorter than any word, so such a file is a mistake.
MIN_SECONDS = 0.2

# 1 GiB as float32. A longer file is a mistake, or its header is wrong.
_MAX_SAMPLES = 2**28

# No recording of speech has fewer, and resampling multiplies the size of a file.
_MIN_RATE = 1_000

# Of libsndfile, which reads dozens of formats whatever the suffix.
_FORMATS = ("WAV", "WAVEX", "FLAC")

# Lengths of samples that a program writes to a pipe before it knows them: of ffmpeg and
# sox. libsndfile reads such a file to its end.
_UNKNOWN_LENGTHS = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000)

# The byte order of a WAV file.
_BYTE_ORDERS = {b"RIFF": "little", b"RIFX": "big"}
# A WAV file has a handful, of which only one contains samples.
_MAX_CHUNKS = 1_000

# Some tools overshoot slightly; larger samples are on another scale.
_MAX_PEAK = 2.0
_FLOATS = ("FLOAT", "DOUBLE")


def read(path: str, *, rate: int) -> Int16[np.ndarray, " t"]:
    """Read a WAV or FLAC file of any rate and bit depth at `rate` Hz.

    16-bit samples at the requested rate are returned unchanged; 24-bit and float
    samples are rounded, and 8-bit samples are scaled.

    Raises:
      UserError: if the file has another format, cannot be read to its end, is shorter
        than `MIN_SECONDS`, would have more than 2^28 samples, has fewer than 1000 a
        second or more than one channel, or contains NaN or samples far outside [-1, 1].
    """
    with _opened(path, rate=rate) as file:
        samples = _read_all(path, file)
        return to_int16(resample(samples, from_rate=file.samplerate, to_rate=rate))


def inspect(path: str, *, rate: int, decode: bool = False) -> int:
    """Check a file and return the number of samples that `read` will return.

    Decode the whole file only if `decode` is set.

    Raises:
      UserError: as `read`, except that without `decode`, damage in the middle of a
        file is only detected by `read`.
    """
    with _opened(path, rate=rate) as file:
        if file.subtype not in _FLOATS and not decode:
            # Reading the end of a truncated file fails.
            file.seek(max(0, file.frames - file.samplerate))
        _read_all(path, file)
        return resampled_length(file.frames, file.samplerate, rate)


def wav(audio: Int16[np.ndarray, " T"], *, rate: int) -> bytes:
    """Return 16-bit samples as the bytes of a WAV file, unchanged.

    Raises:
      UserError: if soundfile is not installed.
    """
    soundfile = imported("soundfile", purpose="to write recordings")
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def resample(
    samples: Shaped[np.ndarray, " t"], *, from_rate: int, to_rate: int
) -> Float[np.ndarray, " u"]:
    """Resample to float32 samples in [-1, 1], preserving times in seconds.

    Args:
      samples: int16, or floating point in [-1, 1].
      from_rate: the rate of `samples`, in Hz.
      to_rate: the requested rate, in Hz.
    """
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / FULL_SCALE
    if from_rate == to_rate:
        return samples.astype(np.float32)
    soxr = imported("soxr", purpose="to change the rate of recordings")
    return soxr.resample(samples.astype(np.float32), from_rate, to_rate)


def resampled_length(length: int, from_rate: int, to_rate: int) -> int:
    """Return the number of samples `resample` returns: the exact length, rounded."""
    return (2 * length * to_rate + from_rate) // (2 * from_rate)


def to_int16(samples: Float[np.ndarray, " t"]) -> Int16[np.ndarray, " t"]:
    """Round samples in [-1, 1] to 16 bits, clipping samples outside that range."""
    scaled = np.round(samples * np.float32(FULL_SCALE))
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


@contextlib.contextmanager
def _opened(path: str, *, rate: int) -> Iterator[Any]:
    """Open a recording that is to be resampled to `rate`, and check its header."""
    soundfile = imported("soundfile", purpose="to read recordings")
    with _user_errors(path), soundfile.SoundFile(path) as file:
        require(
            file.format in _FORMATS,
            f"{path} has the format {file.format}; expected WAV or FLAC. Convert it",
        )
        if file.format != "FLAC":
            _require_all_samples(path)
        _check_header(path, file, rate)
        yield file


def _require_all_samples(path: str) -> None:
    """Raise UserError if a WAV file ends before its samples do.

    libsndfile reads such a file without an error, as a shorter one. The end of a file
    that was written to a pipe is unknown.
    """
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        order = _BYTE_ORDERS.get(stream.read(4))
        require(
            order is not None,
            f"{path} does not start with RIFF; convert it to WAV or FLAC",
        )
        # The file's own size and type come before the chunks.
        start, name = 12, b""
        for _ in range(_MAX_CHUNKS):
            stream.seek(start)
            name, length = stream.read(4), int.from_bytes(stream.read(4), order)
            if name == b"data" or start > size:
                break
            start += 8 + length + length % 2
    require(name == b"data", f"{path} has no samples; copy it again or remove it")
    require(
        length in _UNKNOWN_LENGTHS or start + 8 + length <= size,
        f"{path} claims {length} bytes of samples and has {size - start - 8}; copy it "
        "again or remove it",
    )


def _check_header(path: str, file: Any, rate: int) -> None:
    require(
        file.channels == 1,
        f"{path} has {file.channels} channels; expected mono. Keep or mix down to one "
        "channel",
    )
    require(
        file.samplerate >= _MIN_RATE,
        f"{path} claims a rate of {file.samplerate} Hz; expected at least {_MIN_RATE}. "
        "Write it again or remove it",
    )
    samples = max(file.frames, resampled_length(file.frames, file.samplerate, rate))
    require(
        samples <= _MAX_SAMPLES,
        f"{path} claims {file.frames} samples, which are {samples} at {rate} Hz, more "
        f"than {_MAX_SAMPLES}; split or remove it",
    )
    seconds = file.frames / file.samplerate
    require(
        seconds >= MIN_SECONDS,
        f"{path} contains {seconds:.2f} s of audio; expected at least {MIN_SECONDS} s. "
        "Remove it",
    )


def _read_all(path: str, file: Any) -> Float[np.ndarray, " t"]:
    expected = file.frames - file.tell()
    samples = file.read(dtype="float32")
    require(
        len(samples) == expected,
        f"{path} ends after {file.frames - expected + len(samples)} of "
        f"{file.frames} samples; copy it again or remove it",
    )
    bad = int(np.count_nonzero(~np.isfinite(samples)))
    require(
        bad == 0,
        f"{path} contains {bad} NaN or infinite samples; write it again",
    )
    peak = float(np.abs(samples).max())
    require(
        peak <= _MAX_PEAK,
        f"{path} has samples up to {peak:.4g}; expected -1 to 1. Scale them",
    )
    return samples


@contextlib.contextmanager
def _user_errors(path: str) -> Iterator[None]:
    """Convert the library's exceptions to a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        is_empty = os.path.exists(path) and os.path.getsize(path) == 0
        reason = "the file is empty" if is_empty else " ".join(str(error).split())
        raise UserError(f"{path} cannot be read: {reason}; remove it") from error
