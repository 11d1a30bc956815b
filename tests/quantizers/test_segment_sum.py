"""Sums by code, in the form of each platform, and as the gradient of a lookup."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizers
from vqvae_jax.quantizers import segment_sum

N, G, K, D = 50, 3, 7, 4


@pytest.fixture
def drawn():
    """Vectors [N, G, D], codes [N, G], and the sums by a loop."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N, G, D)).astype(np.float32)
    # The last code has no vector.
    codes = rng.integers(0, K - 1, (N, G)).astype(np.int32)
    expected = np.zeros((G, K, D))
    for n in range(N):
        for g in range(G):
            expected[g, codes[n, g]] += vectors[n, g]
    return jnp.asarray(vectors), jnp.asarray(codes), expected


@pytest.mark.parametrize(
    "form", [segment_sum.sum_by_code, segment_sum._added, segment_sum._multiplied]
)
def test_every_form_equals_a_loop(form, drawn):
    vectors, codes, expected = drawn
    actual = form(vectors, codes, num_codes=K)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert not actual[:, K - 1].any()


def _cuda_program(num_codes):
    codebook = quantizers.init(jax.random.key(0), num_codes=num_codes, dim=D)

    def loss(embeddings, z_e):
        out = quantizers.quantize(codebook._replace(embeddings=embeddings), z_e)
        moved = quantizers.ema_update(codebook, z_e, out.codes)
        return out.codebook_loss.sum(), moved

    step = jax.jit(jax.grad(loss, has_aux=True))
    export = jax.export.export(step, platforms=["cuda"])
    return export(codebook.embeddings, jnp.ones((8, D))).mlir_module()


def test_a_gpu_adds_without_atomics_unless_codes_are_many():
    """Neither the gradient of the codebook loss nor the EMA scatters."""
    assert "scatter" not in _cuda_program(16)
    assert "scatter" in _cuda_program(segment_sum._MAX_ONE_HOT + 1)


def test_a_gpu_makes_no_large_one_hot_matrix(monkeypatch):
    """Of 8 vectors and 16 codes, where half of it may be made."""
    monkeypatch.setattr(segment_sum, "_MAX_ONE_HOT_BYTES", 4 * 8 * 16 // 2)
    # What was traced before would be used again.
    jax.clear_caches()
    assert "scatter" in _cuda_program(16)
    jax.clear_caches()


def test_the_gradient_of_the_codebook_loss_equals_a_loop(drawn):
    z_e, _, _ = drawn
    z_e = z_e.reshape(5, 10, G * D)
    codebook = quantizers.from_embeddings(
        jax.random.normal(jax.random.key(1), (G, K, D))
    )

    def loss(embeddings):
        out = quantizers.quantize(codebook._replace(embeddings=embeddings), z_e)
        return out.codebook_loss.sum(), out.codes

    gradient, codes = jax.grad(loss, has_aux=True)(codebook.embeddings)
    expected = np.zeros((G, K, D))
    vectors, codes = z_e.reshape(-1, G, D), codes.reshape(-1, G)
    for n in range(N):
        for g in range(G):
            row = codebook.embeddings[g, codes[n, g]]
            expected[g, codes[n, g]] += 2 * (row - vectors[n, g])
    np.testing.assert_allclose(gradient, expected, atol=1e-4)
