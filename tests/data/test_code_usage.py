"""Code histograms over a whole set, compared with NumPy and closed forms."""

import re

import numpy as np
import pytest

from vqvae_jax.data.codes import (
    CodesSource,
    collapse,
    count_codes,
    marginal_bits_per_code,
    write_codes,
)
from vqvae_jax.runtime.errors import UserError

K = 11


def counted(directory, codes, columns, *, num_codes):
    """Write codes and count them."""
    write_codes(
        directory,
        batches=[(codes, columns)],
        num_codes=num_codes,
        class_names=[],
        fingerprint="",
    )
    return count_codes(CodesSource(directory), num_codes=num_codes)


def test_each_code_of_each_codebook_counts_once(tmp_path):
    """600 examples make three batches, the last of which is padded."""
    rng = np.random.default_rng(0)
    codes = rng.integers(3, K, size=(600, 3, 2, 2))
    codes[..., 1] //= 2
    columns = {"label": np.zeros(600, int)}
    counts = counted(tmp_path / "codes", codes, columns, num_codes=K)
    expected = [np.bincount(codes[..., g].ravel(), minlength=K) for g in range(2)]
    np.testing.assert_array_equal(counts, expected)
    # Padding is code 0.
    assert counts[0, 0] == counts[1, 0] == 0


def test_padding_after_an_utterance_does_not_count(tmp_path):
    codes = np.full((3, 4, 1), 5)
    codes[0, :2, 0], codes[1, :4, 0], codes[2, :1, 0] = (1, 2), (2, 2, 2, 3), 1
    columns = {"length": np.array([2, 4, 1])}
    counts = counted(tmp_path / "codes", codes, columns, num_codes=6)
    np.testing.assert_array_equal(counts, [[0, 2, 4, 1, 0, 0]])


@pytest.mark.parametrize(
    ("counts", "bits"),
    [
        ([[5, 5, 5, 5, 5, 5, 5, 5]], 3),
        ([[0, 7, 0, 0]], 0),
        ([[4, 2, 1, 1]], 1.75),
        ([[1, 1, 1, 1], [0, 0, 9, 9]], 1.5),
        ([[2, 1]], np.log2(3) - 2 / 3),
        ([[0, 0, 0]], 0),
    ],
)
def test_entropy_of_a_histogram(counts, bits):
    assert marginal_bits_per_code(np.array(counts, float)) == pytest.approx(bits)


def counts_of(*active, num_codes):
    """Return counts of codebooks whose last `active` codes are in use."""
    used = np.arange(num_codes) >= num_codes - np.array(active)[:, None]
    return used * 7.0


@pytest.mark.parametrize("active", [(0,), (1,), (1, 1, 0)])
def test_codes_without_information_raise(active):
    counts = counts_of(*active, num_codes=8)
    with pytest.raises(UserError, match=r"collapsed: (0 of 8|1 of 8|2 of 24) codes"):
        collapse(counts)


def test_two_codes_in_use_in_one_codebook_suffice():
    assert not collapse(counts_of(1, 2, 1, num_codes=8))


@pytest.mark.parametrize(
    ("active", "expected"),
    [
        # 5 % of 3 * 40 codes are 6.
        ((2, 1, 2), "5 of 120 codes (4.2 %)"),
        ((6, 0, 0), None),
        ((2, 2, 2), None),
        ((2, 2, 3), None),
        ((40, 40, 40), None),
    ],
)
def test_few_codes_in_use_return_a_warning_with_remedies(active, expected):
    found = collapse(counts_of(*active, num_codes=40))
    if expected is None:
        assert found == ""
    else:
        remedies = (
            r"model\.quantizer\.codebook_init=kmeans"
            r".*model\.quantizer\.dead_code_threshold"
            r".*model\.quantizer\.codebook_update=ema"
        )
        assert re.search(f"collapsed: {re.escape(expected)}.*{remedies}", found)


def test_the_threshold_is_exact_for_any_number_of_codes():
    """0.05 is inexact in binary; 20 times the number of active codes is exact."""
    for num_codes in (40, 60, 100, 140, 512, 1000, 8192):
        for active in (num_codes // 20 - 1, num_codes // 20, num_codes // 20 + 1):
            is_few = 20 * active < num_codes
            if active >= 2:
                found = collapse(counts_of(active, num_codes=num_codes))
                assert bool(found) == is_few
