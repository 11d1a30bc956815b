"""Sums by code in each implementation, and as the gradient of a lookup."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizers
from vqvae_jax.quantizers import VQ, segment_sum

KEY = jax.random.key(0)
N, G, K, D = 50, 3, 7, 4


@pytest.fixture
def data():
    """Vectors [N, G, D], codes [N, G], and their sums, computed in a loop."""
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
    "implementation",
    [
        segment_sum.sum_by_code,
        segment_sum._scatter_add,
        segment_sum._one_hot_matmul,
    ],
)
def test_every_implementation_equals_a_loop(implementation, data):
    vectors, codes, expected = data
    actual = implementation(vectors, codes, num_codes=K)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert not actual[:, K - 1].any()


def _cuda_program(num_codes):
    vq = VQ(num_codes=num_codes, dim=D, codebook_update="ema", codebook_init="uniform")
    codebook = vq.init(KEY)

    def loss(embeddings, z_e):
        out = vq.quantize(codebook._replace(embeddings=embeddings), z_e)
        moved = vq.update(codebook, z_e, out.codes, key=KEY)
        return out.losses["codebook"].sum(), moved

    step = jax.jit(jax.grad(loss, has_aux=True))
    export = jax.export.export(step, platforms=["cuda"])
    return export(codebook.embeddings, jnp.ones((8, D))).mlir_module()


def test_gpu_programs_scatter_only_with_many_codes():
    """The gradient of the codebook loss and the EMA use one-hot products otherwise."""
    assert "stablehlo.scatter" not in _cuda_program(16)
    assert "stablehlo.scatter" in _cuda_program(segment_sum._MAX_ONE_HOT + 1)


def test_gpu_programs_have_no_large_one_hot_matrix(monkeypatch):
    """For 8 vectors and 16 codes, with a limit of half their one-hot matrix."""
    monkeypatch.setattr(segment_sum, "_MAX_ONE_HOT_BYTES", 4 * 8 * 16 // 2)
    # Programs traced before the patch would be reused.
    jax.clear_caches()
    assert "stablehlo.scatter" in _cuda_program(16)
    jax.clear_caches()


def test_gradient_of_the_codebook_loss_equals_a_loop(data):
    z_e, _, _ = data
    z_e = z_e.reshape(5, 10, G * D)
    vq = VQ(num_codes=K, dim=D, num_codebooks=G)
    codebook = quantizers.from_embeddings(
        jax.random.normal(jax.random.key(1), (G, K, D))
    )

    def loss(embeddings):
        out = vq.quantize(codebook._replace(embeddings=embeddings), z_e)
        return out.losses["codebook"].sum(), out.codes

    gradient, codes = jax.grad(loss, has_aux=True)(codebook.embeddings)
    expected = np.zeros((G, K, D))
    vectors, codes = z_e.reshape(-1, G, D), codes.reshape(-1, G)
    for n in range(N):
        for g in range(G):
            row = codebook.embeddings[g, codes[n, g]]
            expected[g, codes[n, g]] += 2 * (row - vectors[n, g])
    np.testing.assert_allclose(gradient, expected, atol=1e-4)
