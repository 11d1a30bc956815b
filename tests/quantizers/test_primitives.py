"""Implementations by platform, sums over devices, and sums by code.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vqvae_jax import quantizers
from vqvae_jax.networks.convolution import conv2d
from vqvae_jax.quantizers import VQ, primitives
from vqvae_jax.quantizers.primitives import for_platform

IMPLEMENTATIONS = {
    "cpu": lambda x: x + 1,
    "tpu": lambda x: x + 2,
    "default": lambda x: x + 3,
}


@pytest.fixture
def several_processes(monkeypatch):
    """Make this process look like one of two."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.parametrize(
    ("platform", "added"), [("cpu", 1), ("tpu", 2), ("cuda", 3), ("rocm", 3)]
)
def test_exports_use_the_implementation_of_their_platform(platform, added):
    function = jax.jit(lambda x: for_platform(x, **IMPLEMENTATIONS))
    text = str(jax.export.export(function, platforms=[platform])(1.0).mlir_module())
    assert re.findall(r"constant dense<(\d)\.0+e\+00>", text) == [str(added)]


def test_eager_calls_use_the_implementation_of_the_cpu():
    assert for_platform(1.0, **IMPLEMENTATIONS) == 2.0


@pytest.mark.parametrize(("backend", "added"), [("cpu", 1), ("tpu", 2), ("gpu", 3)])
def test_several_processes_use_the_implementation_of_the_backend(
    backend, added, several_processes, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert for_platform(1.0, **IMPLEMENTATIONS) == 1.0 + added


def test_several_processes_have_no_collective_inside_a_conditional(
    several_processes,
):
    """XLA does not order those with the others, and Gloo confuses them."""
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
    split = NamedSharding(mesh, PartitionSpec("data"))
    replicated = NamedSharding(mesh, PartitionSpec())

    def loss(kernels, images):
        for kernel in kernels:
            images = jnp.tanh(conv2d(images, kernel))
        return jnp.square(images).mean()

    gradient = jax.jit(
        jax.grad(loss), in_shardings=(replicated, split), out_shardings=replicated
    )
    kernels = [jnp.ones((3, 3, 2, 4)), jnp.ones((1, 1, 4, 2))]
    images = np.ones((8, 6, 6, 2), np.float32)
    text = gradient.lower(kernels, images).compile().as_text()
    assert "all-reduce(" in text
    assert "conditional(" not in text


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


@pytest.fixture(
    params=["sum_by_code", "_scatter_add", "_one_hot_matmul"],
)
def implementation(request):
    return getattr(primitives, request.param)


def test_every_implementation_equals_a_loop(implementation, data):
    vectors, codes, expected = data
    actual = implementation(vectors, codes, num_codes=K)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert not actual[:, K - 1].any()


def test_every_implementation_ignores_the_code_of_a_dropped_level(implementation, data):
    """[32] The code -1 is no row, and not the last one."""
    vectors, codes, _ = data
    is_dropped = np.arange(N) % 3 == 0
    dropped = jnp.where(is_dropped[:, None], -1, codes)
    actual = implementation(vectors, dropped, num_codes=K)
    expected = implementation(vectors[~is_dropped], codes[~is_dropped], num_codes=K)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert expected.any()


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
    assert "stablehlo.scatter" in _cuda_program(primitives._MAX_ONE_HOT + 1)


def test_gpu_programs_have_no_large_one_hot_matrix(monkeypatch):
    """For 8 vectors and 16 codes, with a limit of half their one-hot matrix."""
    monkeypatch.setattr(primitives, "_MAX_ONE_HOT_BYTES", 4 * 8 * 16 // 2)
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
            # The loss of a vector is a mean over the dimensions of its codebook.
            expected[g, codes[n, g]] += 2 * (row - vectors[n, g]) / D
    np.testing.assert_allclose(gradient, expected, atol=1e-4)
