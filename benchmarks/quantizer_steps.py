"""A quantizer's training step (forward, backward, EMA), in this project and two peers.

Each function takes the number of vectors N, the number of codes K and the dimension D,
and returns a function that quantizes N random vectors, computes the gradient of
mean(z_q^2) plus the commitment loss with respect to them, and updates the codebook by
EMA.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from vqvae_jax import quantizers

BETA, DECAY = 0.25, 0.99


def vectors(num_vectors: int, dim: int) -> np.ndarray:
    """Draw the vectors to quantize."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((num_vectors, dim), np.float32)


def ours(num_vectors: int, num_codes: int, dim: int) -> timing.Run:
    """Return this project's step."""
    vq = quantizers.VQ(
        num_codes=num_codes, dim=dim, codebook_update="ema", ema_decay=DECAY
    )
    key, shape = jax.random.key(0), (1, num_codes, dim)
    codebook = quantizers.from_embeddings(jax.random.normal(key, shape))

    def step(codebook, z_e):
        def loss(z_e):
            out = vq.quantize(codebook, z_e)
            commitment = BETA * out.losses["commitment"].mean()
            return jnp.square(out.z_q).mean() + commitment, out.codes

        gradient, codes = jax.grad(loss, has_aux=True)(z_e)
        return gradient, vq.update(codebook, z_e, codes, key=key)

    return _compiled(step, codebook, vectors(num_vectors, dim))


def of_haiku(num_vectors: int, num_codes: int, dim: int) -> timing.Run:
    """Return dm-haiku's step."""
    import haiku as hk

    def apply(z_e):
        layer = hk.nets.VectorQuantizerEMA(dim, num_codes, BETA, DECAY)
        return layer(z_e, is_training=True)

    network = hk.transform_with_state(apply)
    z_e = vectors(num_vectors, dim)
    # One vector suffices: the size of the state does not depend on the batch.
    _, state = jax.jit(network.init)(jax.random.key(0), z_e[:1])

    def step(state, z_e):
        def loss(z_e):
            out, new = network.apply({}, state, None, z_e)
            return jnp.square(out["quantize"]).mean() + out["loss"], new

        return jax.grad(loss, has_aux=True)(z_e)

    return _compiled(step, state, z_e)


def of_torch(num_vectors: int, num_codes: int, dim: int) -> timing.Run:
    """Return vector-quantize-pytorch's step, on a GPU if available."""
    import torch
    from vector_quantize_pytorch import VectorQuantize

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = VectorQuantize(
        dim=dim, codebook_size=num_codes, decay=DECAY, commitment_weight=BETA
    ).to(device)
    z_e = torch.from_numpy(vectors(num_vectors, dim)).to(device)[None]
    z_e.requires_grad_()

    def step():
        z_e.grad = None
        quantized, _, commitment = layer(z_e)
        (quantized.square().mean() + commitment.sum()).backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def _compiled(step: Any, *inputs: Any) -> timing.Run:
    inputs = jax.device_put(inputs)
    compiled = jax.jit(step).lower(*inputs).compile()
    return timing.waits(compiled, *inputs)
