"""Implementations by platform, and sums over devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vqvae_jax.networks.convolution import conv2d
from vqvae_jax.quantizers.platforms import for_platform

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
