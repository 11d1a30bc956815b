"""Code histograms over a whole set, against NumPy and closed forms."""

import numpy as np
import pytest

from vqvae_jax.data.codes import CodesSource, write_codes
from vqvae_jax.evaluation.usage import count_codes, marginal_bits_per_code

K = 11


def test_each_code_of_each_codebook_counts_once(tmp_path):
    """600 examples are three batches, the last of them filled up."""
    rng = np.random.default_rng(0)
    codes = rng.integers(3, K, size=(600, 3, 2, 2))
    codes[..., 1] //= 2
    write_codes(
        tmp_path / "codes",
        batches=[(codes, np.zeros(600, int))],
        num_codes=K,
        class_names=[],
        fingerprint="",
    )
    counts = count_codes(CodesSource(tmp_path / "codes"), num_codes=K)
    expected = [np.bincount(codes[..., g].ravel(), minlength=K) for g in range(2)]
    np.testing.assert_array_equal(counts, expected)
    # Filling up with code 0 would show here.
    assert counts[0, 0] == counts[1, 0] == 0


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
