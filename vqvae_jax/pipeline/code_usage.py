"""Codebook usage over a whole set of codes, and what is too little of it."""

import math

import numpy as np
from jaxtyping import Float

from vqvae_jax import metrics
from vqvae_jax.data.batches import eval_batches
from vqvae_jax.data.codes import CodesSource
from vqvae_jax.runtime.errors import CollapsedError

# Below this part of all codes a run is more likely to have failed than to be done.
_FEW = 0.05


def count_codes(source: CodesSource, *, num_codes: int) -> Float[np.ndarray, "G K"]:
    """Count how often each code of each codebook occurs in a whole set."""
    counts = np.zeros((source.metadata.grid[-1], num_codes))
    for batch in eval_batches(source, batch_size=256):
        kept = batch["mask"]
        if "length" in batch:
            # Codes of utterances are followed by others that mean nothing.
            places = np.arange(batch["codes"].shape[1])
            kept = kept[:, None] & (places < batch["length"][:, None])
        codes = batch["codes"][kept]
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


def collapse(counts: Float[np.ndarray, "G K"]) -> str:
    """Return a warning if under 5 % of all codes are in use, "" if there is no need.

    Raises:
      CollapsedError: no codebook has two codes in use, so that codes say nothing.
    """
    active = np.count_nonzero(counts, axis=-1)
    part = active.sum() / counts.size
    told = (
        f"the codebook has collapsed: {active.sum()} of {counts.size} codes "
        f"({100 * part:.1f} %) are in use in the training set; train the VQ-VAE in "
        "another workdir with model.codebook_init=kmeans, model.restart_below above 0 "
        "or model.codebook_update=ema"
    )
    if active.max() < 2:
        raise CollapsedError(told)
    return told if part < _FEW else ""
