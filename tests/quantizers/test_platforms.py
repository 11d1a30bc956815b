"""The form of a computation that its platform runs fast, and sums over devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vqvae_jax.networks.convolution import conv2d
from vqvae_jax.quantizers.platforms import for_platform

FORMS = {"cpu": lambda x: x + 1, "tpu": lambda x: x + 2, "default": lambda x: x + 3}


@pytest.fixture
def several_processes(monkeypatch):
    """What JAX says where this process is one of two."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.parametrize(
    ("platform", "added"), [("cpu", 1), ("tpu", 2), ("cuda", 3), ("rocm", 3)]
)
def test_the_form_is_that_of_the_platform_of_the_program(platform, added):
    function = jax.jit(lambda x: for_platform(x, **FORMS))
    text = str(jax.export.export(function, platforms=[platform])(1.0).mlir_module())
    assert re.findall(r"constant dense<(\d)\.0+e\+00>", text) == [str(added)]


def test_here_it_is_the_cpus():
    assert for_platform(1.0, **FORMS) == 2.0


@pytest.mark.parametrize(("backend", "added"), [("cpu", 1), ("tpu", 2), ("gpu", 3)])
def test_in_several_processes_it_is_the_backends(
    backend, added, several_processes, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert for_platform(1.0, **FORMS) == 1.0 + added


def test_in_several_processes_no_sum_over_devices_is_within_a_conditional(
    several_processes,
):
    """XLA would keep it there, out of order with the others: Gloo mixes them up."""
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())

    def loss(kernels, images):
        for kernel in kernels:
            images = jnp.tanh(conv2d(images, kernel))
        return jnp.square(images).mean()

    gradient = jax.jit(jax.grad(loss), in_shardings=(whole, split), out_shardings=whole)
    kernels = [jnp.ones((3, 3, 2, 4)), jnp.ones((1, 1, 4, 2))]
    images = np.ones((8, 6, 6, 2), np.float32)
    text = gradient.lower(kernels, images).compile().as_text()
    assert "all-reduce(" in text
    assert "conditional(" not in text
