"""The quantizer against NumPy: values, gradients, statistics, transforms, memory."""

import jax

from vqvae_jax import quantizer


def test_smoke():
    cb = quantizer.init(jax.random.key(0), num_codes=5, dim=3, num_codebooks=2)
    z = jax.random.normal(jax.random.key(1), (4, 7, 6))
    out = quantizer.quantize(cb, z)
    assert out.codes.shape == (4, 7, 2)
    cb = quantizer.kmeans(jax.random.key(1), cb, z)
    cb = quantizer.restart(jax.random.key(1), cb, z)
    cb = quantizer.ema_update(cb, z, out.codes)
