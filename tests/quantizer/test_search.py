"""The nearest rows, against NumPy: chunks, dtypes, precision, memory.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizer
from vqvae_jax.quantizer import search


@pytest.fixture(params=["cpu", "elsewhere"])
def form(request, monkeypatch):
    """A CPU's search, and that of other platforms in its place."""
    if request.param == "elsewhere":
        monkeypatch.setattr(search, "_nearest_on_cpu", search._nearest_elsewhere)


def test_chunks_change_nothing(monkeypatch, oracle_codes, form):
    rng = np.random.default_rng(0)
    e = jnp.asarray(rng.normal(size=(2, 16, 3)), "float32")
    vectors = jnp.asarray(rng.normal(size=(5, 23, 2, 3)), "float32")
    whole = quantizer.nearest(e, vectors)
    for codes, chunk in ((16, 1), (16, 7), (16, 114), (5, 50), (1, 3)):
        tile = search._Tile(codes, bytes=4 * codes * chunk)
        for platform in ("_CPU_TILE", "_TILE"):
            monkeypatch.setattr(search, platform, tile)
        np.testing.assert_array_equal(quantizer.nearest(e, vectors), whole)
    np.testing.assert_array_equal(whole, oracle_codes(e, vectors.reshape(5, 23, 6)))


@pytest.mark.parametrize("codes", [2, 9])
def test_of_equal_rows_the_first_is_found(monkeypatch, form, codes):
    """In a tile, and in different ones."""
    for platform in ("_CPU_TILE", "_TILE"):
        monkeypatch.setattr(search, platform, search._Tile(codes, bytes=1 << 20))
    rng = np.random.default_rng(0)
    e = rng.normal(size=(1, 9, 4)).astype("float32")
    e[0, [5, 7]] = e[0, 3]
    e[0, 8] = e[0, 0]
    codes = quantizer.nearest(jnp.asarray(e), jnp.asarray(e[0, :, None]))
    np.testing.assert_array_equal(codes[:, 0], [0, 1, 2, 3, 4, 3, 6, 3, 0])


def test_nan_has_a_code(form):
    """What cannot be compared still gets the number of a row."""
    z = jnp.array([[[jnp.nan, 0.0]], [[1.0, 0.0]]])
    codes = quantizer.nearest(jnp.array([[[0.0, 0.0], [1.0, 0.0], [9.0, 0.0]]]), z)
    assert 0 <= codes[0, 0] < 3
    assert codes[1, 0] == 1


def test_bfloat16_inputs_find_float32s_codes(oracle_codes, form):
    """[8] A crowded codebook: bfloat16 distances would not tell its codes apart."""
    rng = np.random.default_rng(0)
    e = jnp.asarray(10 + rng.normal(size=(1, 512, 64)), "float32")
    z = jnp.asarray(10 + rng.normal(size=(300, 1, 64)), jnp.bfloat16)
    codes = np.asarray(quantizer.nearest(e, z))
    expected = oracle_codes(e, np.asarray(z, np.float32)[:, 0])
    np.testing.assert_array_equal(codes, expected)


def test_distances_ask_for_the_highest_precision():
    """[8] TPUs multiply float32 in fewer bits unless told not to."""
    jaxpr = str(
        jax.make_jaxpr(quantizer.nearest)(
            jnp.zeros((1, 8, 4)), jnp.zeros((5, 1, 4), jnp.bfloat16)
        )
    )
    assert "HIGHEST" in jaxpr
    assert "bf16[8" not in jaxpr


def test_memory_stays_bounded():
    """[9] N = 65 536, K = 8192, D = 64 under 1 GiB, gradient and EMA included."""
    script = textwrap.dedent(
        """
        import re, jax, jax.numpy as jnp
        from vqvae_jax import quantizer

        # getrusage would count what the parent had when it started this process.
        def peak():
            status = open("/proc/self/status").read()
            return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1])

        codebook = quantizer.init(jax.random.key(0), num_codes=8192, dim=64)
        z_e = jax.random.normal(jax.random.key(1), (65536, 64)) / 8192
        jax.block_until_ready(z_e)
        before = peak()

        @jax.jit
        def step(codebook, z_e):
            def f(e, z):
                out = quantizer.quantize(codebook._replace(embeddings=e), z)
                loss = out.commitment_loss.sum() + out.codebook_loss.sum()
                return loss + (out.z_q ** 2).sum(), out.codes
            g, codes = jax.grad(f, (0, 1), has_aux=True)(codebook.embeddings, z_e)
            return g, quantizer.ema_update(codebook, z_e, codes)

        jax.block_until_ready(step(codebook, z_e))
        print((peak() - before) / 1024)
        """
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    # The gradient alone has 16 MiB: nothing at all would be a wrong measurement.
    assert 16 < float(out.stdout) < 1024
