"""Codebook usage over a whole set of codes, and the detection of collapse."""

import math

import numpy as np
from jaxtyping import Float

from vqvae_jax import metrics
from vqvae_jax.data.batches import eval_batches
from vqvae_jax.data.codes import CodesSource
from vqvae_jax.runtime.errors import CollapsedError

# A smaller fraction of codes in use suggests a failed run.
_FEW = 0.05


def count_codes(source: CodesSource, *, num_codes: int) -> Float[np.ndarray, "G K"]:
    """Count the uses of each code of each codebook in a whole set."""
    counts = np.zeros((source.metadata.grid[-1], num_codes))
    for batch in eval_batches(source, batch_size=256):
        kept = batch["mask"]
        if "length" in batch:
            # Codes after an utterance's end are padding.
            places = np.arange(batch["codes"].shape[1])
            kept = kept[:, None] & (places < batch["length"][:, None])
        codes = batch["codes"][kept]
        for group, row in zip(
            codes.reshape(-1, codes.shape[-1]).T, counts, strict=True
        ):
            row += np.bincount(group, minlength=num_codes)
    return counts


def marginal_bits_per_code(counts: Float[np.ndarray, "G K"]) -> float:
    """Return the entropy of the codes, the bits of a prior without context.

    Averaged over the codebooks.
    """
    return float(metrics.entropy(counts).mean()) / math.log(2)


def collapse(counts: Float[np.ndarray, "G K"]) -> str:
    """Return a warning if under 5 % of all codes are in use, otherwise "".

    Raises:
      CollapsedError: no codebook has two codes in use, so that codes carry no bits.
    """
    active = np.count_nonzero(counts, axis=-1)
    fraction = active.sum() / counts.size
    message = (
        f"the codebook has collapsed: {active.sum()} of {counts.size} codes "
        f"({100 * fraction:.1f} %) are in use in the training set; train the VQ-VAE in "
        "another workdir with model.quantizer.codebook_init=kmeans, "
        "model.quantizer.dead_code_threshold above 0 or "
        "model.quantizer.codebook_update=ema"
    )
    if active.max() < 2:
        raise CollapsedError(message)
    return message if fraction < _FEW else ""
