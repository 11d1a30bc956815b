"""A quantizer's training step: forward, backward and EMA, here and in two peers.

Each function takes the number of vectors N and of codes K and the dimension D, and
returns a function that quantizes N random vectors, takes the gradient of
mean(z_q^2) and the commitment loss to them, and moves the codebook to their means.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from vqvae_jax import quantizers

BETA, DECAY = 0.25, 0.99


def vectors(num_vectors: int, dim: int) -> np.ndarray:
    """Draw what is quantized."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((num_vectors, dim), np.float32)


def ours(num_vectors: int, num_codes: int, dim: int) -> timing.Run:
    """Return this project's step."""
    key, shape = jax.random.key(0), (1, num_codes, dim)
    codebook = quantizers.from_embeddings(jax.random.normal(key, shape))

    def step(codebook, z_e):
        def loss(z_e):
            out = quantizers.quantize(codebook, z_e)
            commitment = BETA * out.commitment_loss.mean() / dim
            return jnp.square(out.z_q).mean() + commitment, out.codes

        gradient, codes = jax.grad(loss, has_aux=True)(z_e)
        return gradient, quantizers.ema_update(codebook, z_e, codes, decay=DECAY)

    return _compiled(step, codebook, vectors(num_vectors, dim))


def of_haiku(num_vectors: int, num_codes: int, dim: int) -> timing.Run:
    """Return dm-haiku's step."""
    import haiku as hk

    def apply(z_e):
        layer = hk.nets.VectorQuantizerEMA(dim, num_codes, BETA, DECAY)
        return layer(z_e, is_training=True)

    network = hk.transform_with_state(apply)
    z_e = vectors(num_vectors, dim)
    # The state is as large as the codebook, whatever it is initialised with.
    _, state = jax.jit(network.init)(jax.random.key(0), z_e[:1])

    def step(state, z_e):
        def loss(z_e):
            out, new = network.apply({}, state, None, z_e)
            return jnp.square(out["quantize"]).mean() + out["loss"], new

        return jax.grad(loss, has_aux=True)(z_e)

    return _compiled(step, state, z_e)


def of_torch(num_vectors: int, num_codes: int, dim: int) -> timing.Run:
    """Return vector-quantize-pytorch's step, on a GPU if there is one."""
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
