"""Terms that spread the use of the codes: entropy, and orthogonal rows."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from vqvae_jax.quantizers.codebook import normalize
from vqvae_jax.quantizers.primitives import vary_like
from vqvae_jax.quantizers.search import centre_of, every_nth

# Of the probabilities that exist at a time, which limits the vectors of a chunk.
_CHUNK_BYTES = 1 << 24


def entropy_deficit(
    embeddings: Float[Array, "G K D"],
    vectors: Float[Array, "*batch G D"],
    *,
    temperature: float,
    mask: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch G"]:
    """Return H(p_n) - H(mean of p) + log K in nats, of soft codes p_n of each vector n.

    p_n = softmax(-|z_n - e|^2 / temperature) over the K rows, and the mean is that of
    the vectors of the mask, on this device. The first entropy is low where codes are
    certain, the second is high where all are used (MAGVIT-v2, Yu et al. 2024); log K
    makes each entry at least 0, and their mean at most log K. Each entry has the second
    entropy whole, so that a mean over entries has it once.

    The gradient reaches the vectors only. At most 16 MiB of probabilities exist at a
    time, in the gradient too, which computes them again. Values at padding have no
    meaning.
    """
    *batch, num_codebooks, _ = vectors.shape
    num_codes = embeddings.shape[1]
    embeddings = lax.stop_gradient(embeddings)
    offsets = jax.vmap(centre_of)(embeddings)
    embeddings = embeddings - offsets
    half_norms = 0.5 * jnp.sum(jnp.square(embeddings), axis=-1)
    flat = vectors.reshape(-1, *vectors.shape[-2:])
    weights = (
        jnp.ones(len(flat), jnp.float32)
        if mask is None
        else mask.reshape(-1).astype(jnp.float32)
    )

    @jax.checkpoint
    def add_chunk(total, chunk):
        z, weights = chunk
        z = z - offsets[:, 0][None]
        products = jnp.einsum("ngd,gkd->ngk", z, embeddings, precision="highest")
        # |z|^2 changes no softmax.
        logits = (products - half_norms[None]) * (2 / temperature)
        log_p = jax.nn.log_softmax(logits)
        p = jnp.exp(log_p)
        total += jnp.sum(weights[:, None, None] * p, axis=0)
        return total, -jnp.sum(p * log_p, axis=-1)

    chunk_size = max(1, _CHUNK_BYTES // (4 * num_codebooks * num_codes))
    num_chunks = max(1, -(-len(flat) // chunk_size))
    chunks = every_nth(flat, num_chunks), every_nth(weights, num_chunks)
    total = jnp.zeros((num_codebooks, num_codes), jnp.float32)
    total = vary_like(vary_like(total, flat), embeddings)
    total, entropies = lax.scan(add_chunk, total, chunks)
    entropies = jnp.moveaxis(entropies, 0, 1).reshape(-1, num_codebooks)[: len(flat)]
    mean = total / jnp.maximum(weights.sum(), 1.0)
    # The logarithm of a mean that underflows would have an infinite gradient.
    logarithms = jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny))
    of_batch = -jnp.sum(mean * logarithms, axis=-1)
    deficit = entropies - of_batch[None] + math.log(num_codes)
    return deficit.reshape(*batch, num_codebooks)


def squared_cosines(embeddings: Float[Array, "G K D"]) -> Float[Array, " G"]:
    """Return the mean squared cosine of the angles between different rows.

    Orthogonal regularisation (Shin et al. 2021, equation 2), as a mean over the
    K (K - 1) pairs, so that it lies between 0 and 1 for any K; 0 for K = 1.
    """
    num_codes = embeddings.shape[1]
    rows = normalize(embeddings)
    # |E E'|^2 = |E' E|^2, with D x D products instead of K x K.
    products = jnp.einsum("gkd,gkc->gdc", rows, rows, precision="highest")
    squares = jnp.sum(jnp.square(rows), axis=-1)
    of_pairs = jnp.sum(jnp.square(products), axis=(-2, -1))
    of_pairs -= jnp.sum(jnp.square(squares), axis=-1)
    # As a float: K = 65 536 has more pairs than an int32 counts.
    return of_pairs / max(1.0, num_codes * (num_codes - 1.0))
