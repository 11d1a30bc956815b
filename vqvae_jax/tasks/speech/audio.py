"""From any recording to int16 [t]: one channel, 16 bits, the wanted rate."""

import contextlib
import importlib
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, Int16, Shaped

from vqvae_jax.runtime.errors import UserError, require

# Shorter than any word: such a file is a mistake.
MIN_SECONDS = 0.2

# A gigabyte of them: a longer file is a mistake, or says what is not true.
_MAX_SAMPLES = 2**28

_FULL_SCALE = 2**15
# Some tools overshoot a little; what goes further has another scale.
_MAX_PEAK = 2.0
_FLOATS = ("FLOAT", "DOUBLE")


def read(path: str, *, rate: int) -> Int16[np.ndarray, " t"]:
    """Read a WAV or FLAC file of any rate and depth, at `rate` Hz.

    16-bit samples of the wanted rate come back as they are; 24-bit and float ones are
    rounded, 8-bit ones scaled.

    Raises:
      UserError: the file cannot be read to its end, is shorter than `MIN_SECONDS`, has
        more than one channel, or holds NaN or samples far outside [-1, 1].
    """
    soundfile = imported("soundfile", purpose="to read recordings")
    with _named(path), soundfile.SoundFile(path) as file:
        _check_header(path, file)
        samples = _read_all(path, file)
        return to_int16(resample(samples, from_rate=file.samplerate, to_rate=rate))


def inspect(path: str, *, rate: int, decode: bool = False) -> int:
    """Return how many samples `read` will give.

    Most of the file is not decoded, unless `decode` says so.

    Raises:
      UserError: as `read`. What only decoding shows, damage in the middle of a file, is
        otherwise left to it.
    """
    soundfile = imported("soundfile", purpose="to read recordings")
    with _named(path), soundfile.SoundFile(path) as file:
        _check_header(path, file)
        if file.subtype not in _FLOATS and not decode:
            # A file that was cut off fails at its end.
            file.seek(max(0, file.frames - file.samplerate))
        _read_all(path, file)
        return resampled_length(file.frames, file.samplerate, rate)


def resample(
    samples: Shaped[np.ndarray, " t"], *, from_rate: int, to_rate: int
) -> Float[np.ndarray, " u"]:
    """Return float32 samples in [-1, 1] at another rate; a time in seconds stays one.

    Args:
      samples: int16, or floating point in [-1, 1].
      from_rate: theirs, in Hz.
      to_rate: the wanted one.
    """
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / _FULL_SCALE
    if from_rate == to_rate:
        return samples.astype(np.float32)
    soxr = imported("soxr", purpose="to change the rate of recordings")
    return soxr.resample(samples.astype(np.float32), from_rate, to_rate)


def resampled_length(length: int, from_rate: int, to_rate: int) -> int:
    """Return how many samples `resample` makes of `length`: the nearest number."""
    return (2 * length * to_rate + from_rate) // (2 * from_rate)


def to_int16(samples: Float[np.ndarray, " t"]) -> Int16[np.ndarray, " t"]:
    """Round samples in [-1, 1] to 16 bits; those outside are clipped."""
    scaled = np.round(samples * np.float32(_FULL_SCALE))
    return np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def imported(package: str, *, purpose: str) -> ModuleType:
    """Return a package of the extra `speech`.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.replace("_", "-")
        raise UserError(
            f"{name} is needed {purpose} and is not installed: "
            f"pip install -e '.[speech]', or pip install {name}"
        ) from error


def _check_header(path: str, file: Any) -> None:
    require(
        file.channels == 1,
        f"{path} has {file.channels} channels; expected mono. Keep one of them, or mix "
        "them",
    )
    require(
        file.frames <= _MAX_SAMPLES,
        f"{path} claims {file.frames} samples, more than {_MAX_SAMPLES}; cut it up or "
        "remove it",
    )
    seconds = file.frames / file.samplerate
    require(
        seconds >= MIN_SECONDS,
        f"{path} holds {seconds:.2f} s of sound; expected at least {MIN_SECONDS} s. "
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
        f"{path} has {bad} samples that are NaN or infinite; write it again",
    )
    peak = float(np.abs(samples).max())
    require(
        peak <= _MAX_PEAK,
        f"{path} has samples up to {peak:.4g}; expected -1 to 1. Scale them",
    )
    return samples


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn what the library raises into a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        is_empty = os.path.exists(path) and os.path.getsize(path) == 0
        reason = "it is empty" if is_empty else " ".join(str(error).split())
        raise UserError(f"{path} cannot be read: {reason}; remove it") from error
