"""Nearest-row search against NumPy: chunks, dtypes, precision, memory.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import math
import re
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from launch_checks import python

from vqvae_jax import quantizers
from vqvae_jax.quantizers import VQ


def test_chunks_change_nothing(oracle_codes, set_tile):
    rng = np.random.default_rng(0)
    e = jnp.asarray(rng.normal(size=(2, 16, 3)), "float32")
    vectors = jnp.asarray(rng.normal(size=(5, 23, 2, 3)), "float32")
    expected = oracle_codes(e, vectors.reshape(5, 23, 6))
    for codes, chunk in ((16, 200), (16, 1), (16, 7), (16, 114), (5, 50), (1, 3)):
        set_tile(codes, chunk)
        np.testing.assert_array_equal(quantizers.nearest(e, vectors), expected)


@pytest.mark.parametrize("codes", [1, 2, 4, 9])
def test_of_equal_rows_the_first_is_found(set_tile, codes):
    """Within a tile and across tiles."""
    set_tile(codes, 5)
    rng = np.random.default_rng(0)
    e = rng.normal(size=(1, 9, 4)).astype("float32")
    e[0, [5, 7]] = e[0, 3]
    e[0, 8] = e[0, 0]
    codes = quantizers.nearest(jnp.asarray(e), jnp.asarray(e[0, :, None]))
    np.testing.assert_array_equal(codes[:, 0], [0, 1, 2, 3, 4, 3, 6, 3, 0])


@pytest.mark.parametrize("codes", [2, 3])
def test_nan_gets_a_valid_code(set_tile, codes):
    """Comparisons with NaN are false."""
    set_tile(codes, 5)
    z = jnp.array([[[jnp.nan, 0.0]], [[1.0, 0.0]]])
    codes = quantizers.nearest(jnp.array([[[0.0, 0.0], [1.0, 0.0], [9.0, 0.0]]]), z)
    assert 0 <= codes[0, 0] < 3
    assert codes[1, 0] == 1


def test_distances_exist_a_tile_at_a_time(set_tile):
    """Of 13 of 50 codes and 8 of 40 vectors."""
    set_tile(16, 8)
    e, vectors = jnp.zeros((1, 50, 3)), jnp.zeros((40, 1, 3))
    jaxpr = str(jax.make_jaxpr(quantizers.nearest)(e, vectors))
    sizes = {
        math.prod(map(int, shape.split(",")))
        for shape in re.findall(r"[fib]\w+\[([\d,]+)\]", jaxpr)
    }
    assert 13 * 8 in sizes
    # Only the padded rows and the vectors are larger than a tile.
    assert max(sizes) == 4 * 13 * 3


def test_bfloat16_inputs_get_the_codes_of_float32(oracle_codes, platform):
    """[8] Distances in bfloat16 could not distinguish the codes of this codebook."""
    rng = np.random.default_rng(0)
    e = jnp.asarray(10 + rng.normal(size=(1, 512, 64)), "float32")
    z = jnp.asarray(10 + rng.normal(size=(300, 1, 64)), jnp.bfloat16)
    codes = np.asarray(quantizers.nearest(e, z))
    expected = oracle_codes(e, np.asarray(z, np.float32)[:, 0])
    np.testing.assert_array_equal(codes, expected)


@pytest.mark.parametrize("offset", [0, 30, 100, 1000])
def test_a_common_offset_costs_no_precision(offset, oracle_codes, platform):
    rng = np.random.default_rng(0)
    e = jnp.asarray(offset + rng.normal(size=(2, 512, 16)), "float32")
    z = jnp.asarray(offset + rng.normal(size=(300, 2, 16)), "float32")
    expected = oracle_codes(e, np.asarray(z).reshape(300, 32))
    np.testing.assert_array_equal(quantizers.nearest(e, z), expected)


@pytest.mark.parametrize("far", [1e6, 1e18, -np.inf])
def test_a_distant_row_costs_no_precision(far, oracle_codes, platform):
    """An outlier moves the mean of the rows."""
    rng = np.random.default_rng(0)
    e = rng.normal(size=(1, 16, 16))
    z = jnp.asarray(abs(rng.normal(size=(300, 1, 16))), "float32")
    e[0, 3, 5] = 1e6
    expected = oracle_codes(np.float32(e), np.asarray(z)[:, 0])
    e[0, 3, 5] = far
    np.testing.assert_array_equal(
        quantizers.nearest(jnp.asarray(e, "float32"), z), expected
    )


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e25])
def test_rows_without_a_norm_are_not_returned(wrong, oracle_codes, platform):
    """One feature of each of three rows: the others keep their codes."""
    rng = np.random.default_rng(0)
    e = rng.normal(size=(2, 16, 8)).astype("float32")
    z = jnp.asarray(rng.normal(size=(300, 2, 8)), "float32")
    others = [0, *range(3, 15)]
    expected = oracle_codes(e[:, others], np.asarray(z).reshape(300, 16))
    e[:, [1, 2, 15], [0, 3, 7]] = wrong
    codes = quantizers.nearest(jnp.asarray(e), z)
    np.testing.assert_array_equal(codes, np.array(others)[expected])
    codes = quantizers.nearest(jnp.full_like(jnp.asarray(e), wrong), z)
    assert codes.min() >= 0
    assert codes.max() < 16


@pytest.mark.parametrize("distance", [1.0, 1e3, 1e4])
def test_clusters_far_apart_cost_the_stated_precision(distance, platform):
    """The bound of the docstring, with rows 1 apart in each feature."""
    rng = np.random.default_rng(0)
    centres = distance * np.array([[-1.0], [1.0]])
    e = centres[rng.integers(2, size=512)] + rng.normal(size=(512, 64))
    z = centres[rng.integers(2, size=200)] + rng.normal(size=(200, 64))
    e, z = e.astype("float32"), z.astype("float32")
    codes = quantizers.nearest(jnp.asarray(e[None]), jnp.asarray(z[:, None]))[:, 0]
    e, z = e.astype("float64"), z.astype("float64")
    distances = ((z[:, None] - e) ** 2).sum(-1)
    found = distances[np.arange(200), codes]
    bound = 1e-6 * ((z**2).sum(-1) + (e[codes] ** 2).sum(-1))
    assert (found - distances.min(axis=1) <= bound).all()


def test_distances_request_the_highest_precision():
    """[8] TPUs multiply float32 in fewer bits by default."""
    jaxpr = str(
        jax.make_jaxpr(quantizers.nearest)(
            jnp.zeros((1, 8, 4)), jnp.zeros((5, 1, 4), jnp.bfloat16)
        )
    )
    assert "HIGHEST" in jaxpr
    assert "bf16[8" not in jaxpr


def test_memory_stays_bounded():
    """[9] N = 65 536, K = 8192, D = 64 under 1 GiB, gradient and EMA included."""
    script = textwrap.dedent(
        """
        import jax, jax.numpy as jnp
        from benchmarks.peak_memory import high_water
        from vqvae_jax import quantizers

        vq = quantizers.VQ(
            num_codes=8192, dim=64, codebook_update="ema", codebook_init="uniform"
        )
        codebook = vq.init(jax.random.key(0))
        z_e = jax.random.normal(jax.random.key(1), (65536, 64)) / 8192
        jax.block_until_ready(z_e)
        before = high_water()

        @jax.jit
        def step(codebook, z_e):
            def f(e, z):
                out = vq.quantize(codebook._replace(embeddings=e), z)
                loss = sum(term.sum() for term in out.losses.values())
                return loss + (out.z_q ** 2).sum(), out.codes
            g, codes = jax.grad(f, (0, 1), has_aux=True)(codebook.embeddings, z_e)
            return g, vq.update(codebook, z_e, codes, key=jax.random.key(2))

        jax.block_until_ready(step(codebook, z_e))
        print((high_water() - before) / 2**20)
        """
    )
    out = python("-c", script)
    assert out.returncode == 0, out.stderr
    # The gradient alone takes 16 MiB: less would be a wrong measurement.
    assert 16 < float(out.stdout) < 1024


def test_large_codebooks_are_exact():
    """K = 65 536 in chunks of 64 vectors, each row twice: the lower index wins."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(1 << 15, 64)).astype("f4")
    vectors = rng.normal(size=(150, 64)).astype("f4")
    e = jnp.asarray(np.concatenate([half, half])[None])
    codes = quantizers.nearest(e, jnp.asarray(vectors[:, None]))
    z, rows = vectors.astype("f8"), half.astype("f8")
    distances = (rows**2).sum(axis=1) - 2 * z @ rows.T
    np.testing.assert_array_equal(codes[:, 0], distances.argmin(axis=1))


def quantize_and_gradient(codebook, z_e):
    def loss(embeddings, z_e):
        out = LARGE_VQ.quantize(codebook._replace(embeddings=embeddings), z_e)
        losses = sum(term.sum() for term in out.losses.values())
        return losses + (out.z_q**2).sum(), out.codes

    return jax.grad(loss, (0, 1), has_aux=True)(codebook.embeddings, z_e)


KEY = jax.random.key(0)
LARGE_VQ = VQ(num_codes=1 << 16, dim=64, codebook_update="ema")
AT_SIZE = {
    "quantize and gradient": lambda c, z, codes: quantize_and_gradient(c, z),
    "lookup": lambda c, z, codes: LARGE_VQ.lookup(c, codes),
    "update": lambda c, z, codes: LARGE_VQ.update(c, z, codes, key=KEY),
    "usage": lambda c, z, codes: quantizers.usage(codes, num_codes=1 << 16),
    "kmeans": lambda c, z, codes: quantizers.kmeans(KEY, c, z),
    "restart": lambda c, z, codes: quantizers.restart(KEY, c, z),
}


@pytest.mark.parametrize("name", AT_SIZE)
def test_a_million_vectors_and_65_536_codes_take_less_than_2_gib(name):
    """Arguments, results and temporaries, as compiled; D = 64."""
    N, K, D = 1 << 20, 1 << 16, 64
    e = jax.ShapeDtypeStruct((1, K, D), "float32")
    codebook = quantizers.Codebook(e, jax.ShapeDtypeStruct((1, K), "float32"), e)
    z_e = jax.ShapeDtypeStruct((N, D), "float32")
    codes = jax.ShapeDtypeStruct((N, 1), "int32")
    compiled = jax.jit(AT_SIZE[name]).lower(codebook, z_e, codes).compile()
    memory = compiled.memory_analysis()
    total = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
    )
    assert total < 2 << 30
