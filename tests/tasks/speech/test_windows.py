"""Windows stay within one utterance, with each code once or at all starts."""

import numpy as np
import pytest

from vqvae_jax.data.codes import CodesSource, write_codes
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.windows import WindowsSource

# The code of utterance u at position n is 10 u + n, which identifies windows.
LENGTHS = (7, 2, 5)
LONGEST = 7


@pytest.fixture
def codes(tmp_path) -> CodesSource:
    positions = np.arange(LONGEST)
    padded = np.stack([10 * u + positions for u in range(3)])
    # Fill the padding with another code, which windows must not contain.
    padded[positions >= np.array(LENGTHS)[:, None]] = 99
    columns = {"length": np.array(LENGTHS), "speaker": np.array([4, 5, 6])}
    write_codes(
        tmp_path / "codes",
        batches=[(padded[..., None], columns)],
        num_codes=100,
        class_names=[],
        fingerprint="0",
    )
    return CodesSource(tmp_path / "codes")


def all_of(source: WindowsSource) -> list[dict]:
    return [source[i] for i in range(len(source))]


def test_each_code_is_in_one_window_if_stride_equals_length(codes):
    windows = all_of(WindowsSource(codes, length=3, stride=3))
    kept = [w["codes"][w["mask"]].tolist() for w in windows]
    assert kept == [[0, 1, 2], [3, 4, 5], [6], [10, 11], [20, 21, 22], [23, 24]]
    assert [int(w["speaker"]) for w in windows] == [4, 4, 4, 5, 6, 6]
    assert all(w["codes"].shape == w["mask"].shape == (3,) for w in windows)
    assert not any((w["codes"] == 99).any() for w in windows)


def test_windows_of_stride_one_start_everywhere_and_are_full(codes):
    windows = all_of(WindowsSource(codes, length=3))
    kept = [w["codes"][w["mask"]].tolist() for w in windows]
    assert kept == [
        *([n, n + 1, n + 2] for n in range(5)),
        [10, 11],
        *([20 + n, 21 + n, 22 + n] for n in range(3)),
    ]


def test_short_utterances_give_one_padded_window(codes):
    windows = all_of(WindowsSource(codes, length=20))
    assert [int(w["mask"].sum()) for w in windows] == list(LENGTHS)


def test_batched_access_matches_single_access(codes):
    source = WindowsSource(codes, length=3)
    for batched, single in zip(
        source.__getitems__([4, 0, 4]), [source[4], source[0], source[4]], strict=True
    ):
        for name, value in single.items():
            np.testing.assert_array_equal(batched[name], value)


def test_invalid_sizes_and_codes_of_images_raise(codes, tmp_path):
    with pytest.raises(UserError, match=r"stride must be in 1 \.\.\. 3, got 4"):
        WindowsSource(codes, length=3, stride=4)
    with pytest.raises(UserError, match="length must be at least 1"):
        WindowsSource(codes, length=0)
    write_codes(
        tmp_path / "images",
        batches=[(np.zeros((1, 2, 2, 1), int), {"label": np.zeros(1, int)})],
        num_codes=2,
        class_names=[],
        fingerprint="0",
    )
    with pytest.raises(
        UserError, match="no column length and no column speaker; windows need"
    ):
        WindowsSource(CodesSource(tmp_path / "images"), length=2)
