"""The decoder of a cell, all at once and code by code, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import random_arrays

from vqvae_jax.networks.cell_decoder import CellDecoder, CodeEmbedding, projected

B, C, K, F = 4, 3, 5, 6


@pytest.fixture(scope="module", params=[0, 2], ids=["0 layers", "2 layers"])
def case(request):
    rng = np.random.default_rng(0)
    decoder = CellDecoder(K, C, F, request.param, 0.0, jnp.float32)
    context = rng.normal(size=(B, F)).astype("float32")
    codes = rng.integers(K, size=(B, C)).astype("int32")
    shapes = jax.eval_shape(decoder.init, jax.random.key(0), context, codes)
    return decoder, random_arrays(shapes, scale=0.7, seed=rng), context, codes


def expected_logits(decoder, params, context, codes):
    p = jax.tree.map(np.float64, params["params"])
    logits = np.zeros((B, C, K))
    for b, c in np.ndindex(B, C):
        x = context[b] + p["place"][c]
        for earlier in range(c):
            x = x + p["embedding"]["tables"][earlier, codes[b, earlier]]
        for layer in range(decoder.layers):
            gates, out = p[f"gates_{layer}"], p[f"residuals_{layer}"]
            y = np.maximum(x, 0) @ gates["kernel"] + gates["bias"]
            y = np.tanh(y[:F]) / (1 + np.exp(-y[F:]))
            x = x + y @ out["kernel"] + out["bias"]
        logits[b, c] = np.maximum(x, 0) @ p["kernel"][c] + p["bias"][c]
    return logits


def test_all_logits_equal_numpy(case):
    decoder, params, context, codes = case
    logits = jax.jit(decoder.apply)(params, context, codes)
    np.testing.assert_allclose(logits, expected_logits(*case), rtol=1e-4, atol=1e-4)


def test_logits_code_by_code_equal_numpy(case):
    decoder, params, context, codes = case

    @jax.jit
    def one(earlier, c):
        return decoder.apply(
            params, jnp.asarray(context), earlier, c, method="next_code"
        )

    tables = params["params"]["embedding"]["tables"]
    earlier = np.zeros((B, F), np.float32)
    expected = expected_logits(*case)
    for c in range(C):
        logits = one(earlier, jnp.asarray(c))
        np.testing.assert_allclose(logits, expected[:, c], rtol=1e-4, atol=1e-4)
        earlier = earlier + tables[c, codes[:, c]]


def test_each_position_has_its_embedding_table():
    tables = np.random.default_rng(0).normal(size=(C, K, F)).astype("float32")
    params = {"params": {"tables": jnp.asarray(tables)}}
    codes = jnp.asarray(np.random.default_rng(1).integers(K, size=(2, 2, C)))
    embedding = CodeEmbedding(K, C, F)
    embedded = embedding.apply(params, codes)
    for i, j, c in np.ndindex(2, 2, C):
        np.testing.assert_array_equal(embedded[i, j, c], tables[c, codes[i, j, c]])
    at = embedding.apply(params, codes[0, :, 1], jnp.asarray(1), method="at")
    np.testing.assert_array_equal(at, embedded[0, :, 1])


def test_projection_keeps_distances():
    """At each position, with the tables' standard deviation and a mean of 0."""
    rng = np.random.default_rng(0)
    vectors = 3 + 5 * rng.normal(size=(2, 40, 8)).astype("float32")
    vectors[:, 1] = vectors[:, 0] + 0.1
    tables = jnp.asarray(0.7 * rng.normal(size=(2, 40, 256)), "float32")
    found = np.asarray(jax.jit(projected)(jax.random.key(0), vectors, tables))
    assert found.shape == tables.shape
    assert found.std() == pytest.approx(float(tables.std()), rel=1e-3)
    np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-5)

    def distances(x):
        return np.linalg.norm(x[:, None] - x[None], axis=-1)[np.triu_indices(40, 1)]

    for position in range(2):
        ours, theirs = distances(found[position]), distances(vectors[position])
        assert np.argmin(ours) == np.argmin(theirs)
        # A random projection keeps distances to about 1 / sqrt(256).
        assert np.corrcoef(ours, theirs)[0, 1] > 0.9
    assert abs(np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1]) < 0.1
