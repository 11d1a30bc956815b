"""Codebook usage over a whole set of codes."""

import math

import numpy as np
from jaxtyping import Float

from vqvae_jax import metrics
from vqvae_jax.data.codes import CodesSource
from vqvae_jax.data.pipeline import eval_batches


def count_codes(source: CodesSource, *, num_codes: int) -> Float[np.ndarray, "G K"]:
    """Count how often each code of each codebook occurs in a whole set."""
    counts = np.zeros((source.metadata.grid[-1], num_codes))
    for batch in eval_batches(source, batch_size=256):
        codes = batch["codes"][batch["mask"]]
        for group, row in zip(
            codes.reshape(-1, codes.shape[-1]).T, counts, strict=True
        ):
            row += np.bincount(group, minlength=num_codes)
    return counts


def marginal_bits_per_code(counts: Float[np.ndarray, "G K"]) -> float:
    """Return the entropy of the code histogram: what a prior without context reaches.

    Averaged over the codebooks, each with a histogram of its own.
    """
    return float(metrics.entropy(counts).mean()) / math.log(2)
