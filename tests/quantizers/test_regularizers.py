"""The entropy of soft codes and the cosines of rows, against enumeration in NumPy.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizers
from vqvae_jax.quantizers import VQ, regularizers
from vqvae_jax.runtime.errors import UserError

KEY = jax.random.key(0)


def soft_codes(e, z, temperature):
    """Return each probability, `[..., G, K]`, in float64."""
    e, z = np.asarray(e, np.float64), np.asarray(z, np.float64)
    logits = -((z[..., None, :] - e) ** 2).sum(-1) / temperature
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def entropy(p):
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)


def oracle(e, z, temperature, mask):
    """Return the terms of the valid vectors, `[N, G]`."""
    p = soft_codes(e, z, temperature)[mask]
    return entropy(p) - entropy(p.mean(axis=0)) + math.log(e.shape[1])


@pytest.fixture
def vectors(codebook, z_e):
    return z_e.reshape(*z_e.shape[:-1], 3, 4)


@pytest.fixture(params=[200, 7, 1])
def chunk(request, monkeypatch):
    """The vectors of a chunk, of three codebooks of seven rows."""
    monkeypatch.setattr(regularizers, "_CHUNK_BYTES", request.param * 4 * 3 * 7)
    return request.param


class TestEntropy:
    @pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
    def test_equals_enumeration(self, codebook, vectors, mask, chunk, temperature):
        """[29, 10, 11] With a mask, three codebooks, and several chunks."""
        e = codebook.embeddings
        for valid in (mask, None):
            found = regularizers.entropy_deficit(
                e, vectors, temperature=temperature, mask=valid
            )
            valid = np.asarray(jnp.ones_like(mask) if valid is None else valid)
            expected = oracle(e, np.asarray(vectors), temperature, valid)
            np.testing.assert_allclose(found[valid], expected, rtol=1e-4, atol=1e-5)

    def test_gradient_equals_that_of_enumeration(self, codebook, vectors, mask, chunk):
        """Of the mean, by central differences; none reaches the rows."""
        e, valid = codebook.embeddings, np.asarray(mask)

        def mean(e, vectors):
            term = regularizers.entropy_deficit(e, vectors, temperature=1.0, mask=mask)
            return jnp.where(mask[..., None], term, 0.0).sum() / mask.sum()

        for_rows, for_vectors = jax.jit(jax.grad(mean, (0, 1)))(e, vectors)
        assert not for_rows.any()
        assert not for_vectors[~valid].any()
        z = np.asarray(vectors, np.float64)
        for i in [*np.ndindex(z.shape)][::17]:
            step = np.zeros(z.shape)
            step[i] = 1e-5
            above, below = (
                oracle(e, z + s, 1.0, valid).sum() / valid.sum() for s in (step, -step)
            )
            expected = (above - below) / 2e-5
            assert for_vectors[i] == pytest.approx(expected, rel=1e-3, abs=1e-5)

    def test_lies_between_zero_and_log_k(self):
        """[29] Never negative: 0 if all codes are used and certain."""
        e = 10 * jnp.eye(4)[None]
        rows = jnp.repeat(jnp.moveaxis(e, 0, 1), 5, axis=0)
        term = regularizers.entropy_deficit(e, rows, temperature=1.0)
        np.testing.assert_allclose(term, 0.0, atol=1e-5)
        for collapsed in (jnp.broadcast_to(rows[:1], rows.shape), 0 * rows):
            term = regularizers.entropy_deficit(e, collapsed, temperature=1.0)
            np.testing.assert_allclose(term, math.log(4), rtol=1e-5)

    def test_codes_that_no_vector_is_near_have_finite_gradients(self):
        """The logarithm of a mean of 0 is infinite."""
        e = jnp.array([[[0.0], [1.0], [1e4]]])
        z = jnp.array([[[0.1]], [[0.7]]])
        gradient = jax.grad(
            lambda z: regularizers.entropy_deficit(e, z, temperature=0.01).sum()
        )(z)
        assert np.isfinite(gradient).all()

    def test_a_common_offset_costs_no_precision(self, codebook, vectors):
        e, z = codebook.embeddings + 1000, vectors + 1000
        found = regularizers.entropy_deficit(e, z, temperature=1.0)
        e, z = np.asarray(e), np.asarray(z)
        expected = oracle(e, z, 1.0, np.ones(z.shape[:-2], bool))
        found = found.reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)

    def test_probabilities_exist_a_chunk_at_a_time(self, monkeypatch):
        """[35, 9] Of 8 of 40 vectors and 50 codes, in the gradient too."""
        monkeypatch.setattr(regularizers, "_CHUNK_BYTES", 4 * 8 * 50)
        e, vectors = jnp.zeros((1, 50, 3)), jnp.zeros((40, 1, 3))

        def total(vectors):
            return regularizers.entropy_deficit(e, vectors, temperature=1.0).sum()

        jaxpr = str(jax.make_jaxpr(jax.grad(total))(vectors))
        sizes = {
            math.prod(map(int, shape.split(",")))
            for shape in re.findall(r"[fib]\w+\[([\d,]+)\]", jaxpr)
        }
        assert max(sizes) == 8 * 50

    def test_memory_is_bounded_for_many_vectors_and_codes(self):
        """[35, 9] N = 65 536, K = 8192: all probabilities would take 2 GiB."""
        N, K, D = 1 << 16, 1 << 13, 64

        def total(e, vectors):
            return regularizers.entropy_deficit(e, vectors, temperature=1.0).sum()

        shapes = [jax.ShapeDtypeStruct(s, "float32") for s in ((1, K, D), (N, 1, D))]
        memory = jax.jit(jax.grad(total, 1)).lower(*shapes).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 256 << 20


class TestSquaredCosines:
    def test_equals_enumeration(self, codebook):
        e = np.asarray(codebook.embeddings, np.float64)
        e /= np.linalg.norm(e, axis=-1, keepdims=True)
        pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
        expected = [np.mean([(rows[i] @ rows[j]) ** 2 for i, j in pairs]) for rows in e]
        found = regularizers.squared_cosines(codebook.embeddings)
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    @pytest.mark.parametrize("K", [1, 2, 6])
    def test_orthogonal_rows_have_0_and_equal_rows_1(self, K):
        lengths = jnp.arange(1.0, K + 1)[:, None]
        orthogonal, equal = lengths * jnp.eye(K, 6), lengths * jnp.eye(1, 6)
        found = regularizers.squared_cosines(jnp.stack([orthogonal, equal]))
        np.testing.assert_allclose(found, [0.0, float(K > 1)], atol=1e-6)

    def test_gradient_equals_that_of_enumeration(self, codebook):
        """By central differences."""
        e = np.asarray(codebook.embeddings[:1], np.float64)

        def mean(e):
            rows = e[0] / np.linalg.norm(e[0], axis=-1, keepdims=True)
            return (np.sum((rows @ rows.T) ** 2) - 7) / 42

        gradient = jax.grad(lambda e: regularizers.squared_cosines(e).sum())(
            codebook.embeddings[:1]
        )
        for i in np.ndindex(e.shape):
            step = np.zeros(e.shape)
            step[i] = 1e-5
            expected = (mean(e + step) - mean(e - step)) / 2e-5
            assert gradient[i] == pytest.approx(expected, rel=1e-3, abs=1e-5)

    def test_scale_is_independent_of_the_number_of_codes(self):
        """[29] Random rows have squared cosines of 1 / D on average."""
        for K in (64, 256, 1024):
            e = jax.random.normal(KEY, (1, K, 8))
            found = float(regularizers.squared_cosines(e)[0])
            assert found == pytest.approx(1 / 8, rel=0.05)

    def test_products_are_of_features_not_of_rows(self):
        """[35] K = 65 536: products of rows would take 16 GiB."""
        e = jax.ShapeDtypeStruct((1, 1 << 16, 64), "float32")
        gradient = jax.jit(jax.grad(lambda e: regularizers.squared_cosines(e).sum()))
        memory = gradient.lower(e).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 256 << 20


class TestQuantizer:
    """The terms of `VQ`, their units, weights and entries."""

    @pytest.mark.parametrize("distance", ["euclidean", "cosine"])
    def test_entropy_has_the_temperature_in_units_of_the_losses(
        self, vq, codebook, z_e, mask, distance
    ):
        vq = dataclasses.replace(
            vq, distance=distance, entropy_weight=1.0, entropy_temperature=0.5
        )
        valid = np.asarray(mask)
        term = vq.quantize(codebook, z_e, mask).losses["entropy"]
        e, z = np.asarray(codebook.embeddings), np.asarray(z_e).reshape(2, 5, 3, 3, 4)
        unit = 4
        if distance == "cosine":
            e, z = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (e, z))
            unit = 1
        expected = oracle(e, z, 0.5 * unit, valid)
        np.testing.assert_allclose(term[valid], expected, rtol=1e-4, atol=1e-5)
        assert not term[~valid].any()

    def test_orthogonality_is_in_each_valid_entry(self, vq, codebook, z_e, mask):
        vq = dataclasses.replace(vq, orthogonality_weight=1.0)
        term = vq.quantize(codebook, z_e, mask).losses["orthogonality"]
        expected = regularizers.squared_cosines(codebook.embeddings)
        np.testing.assert_array_equal(
            term[np.asarray(mask)], np.broadcast_to(expected, (int(mask.sum()), 3))
        )
        assert not term[~mask].any()

    def test_terms_exist_with_a_weight_only(self, vq, codebook, z_e):
        default = {"codebook", "commitment"}
        assert vq.quantize(codebook, z_e).losses.keys() == default
        for name in ("entropy", "orthogonality"):
            weighted = dataclasses.replace(vq, **{f"{name}_weight": 0.5})
            out = weighted.quantize(codebook, z_e)
            assert out.losses.keys() == default | {name}
            rest = {key: value for key, value in out.losses.items() if key != name}
            expected = vq.total_loss(rest) + 0.5 * out.losses[name]
            np.testing.assert_allclose(out.loss, expected.mean(-1), rtol=1e-5)

    def test_orthogonality_is_refused_where_no_gradient_moves_the_rows(self):
        with pytest.raises(
            UserError, match=r"orthogonality_weight must be 0 with .*ema"
        ):
            VQ(codebook_update="ema", orthogonality_weight=0.1)

    @pytest.mark.parametrize("distance", ["euclidean", "cosine"])
    def test_terms_are_independent_of_dim_and_of_the_number_of_codebooks(
        self, codebook, z_e, distance
    ):
        """[29] Features repeated 1, 4 and 16 times, and codebooks likewise."""
        e, z = codebook.embeddings[:1], z_e[..., :4].reshape(-1, 4)
        expected = None
        for dims, groups in ((1, 1), (4, 1), (16, 1), (1, 4), (1, 16)):
            vq = VQ(
                num_codes=7,
                dim=4 * dims,
                num_codebooks=groups,
                distance=distance,
                entropy_weight=1.0,
                entropy_temperature=0.3,
                orthogonality_weight=1.0,
            )
            book = quantizers.from_embeddings(jnp.tile(e, (groups, 1, dims)))
            out = vq.quantize(book, jnp.tile(z, (1, groups * dims)))
            if expected is None:
                expected = out
            np.testing.assert_allclose(out.loss, expected.loss, rtol=1e-4)
            for name, term in out.losses.items():
                first = np.broadcast_to(expected.losses[name], term.shape)
                np.testing.assert_allclose(term, first, rtol=1e-3, atol=1e-5)
