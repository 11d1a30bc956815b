"""Sound that tests write themselves."""

import numpy as np
import pytest


@pytest.fixture
def tone():
    """(seconds, rate, hertz) -> float64 samples of a sine of amplitude 0.5."""

    def samples(seconds, rate=16_000, hertz=440.0):
        times = np.arange(round(seconds * rate)) / rate
        return 0.5 * np.sin(2 * np.pi * hertz * times)

    return samples


@pytest.fixture
def write():
    """(path, samples, rate, subtype) -> the path, with a sound file there."""
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")

    def written(path, samples, rate=16_000, subtype=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype=subtype)
        return path

    return written
