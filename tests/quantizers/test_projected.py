"""Projections against NumPy, and any quantizer inside of one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tree_checks import assert_close

from vqvae_jax import options
from vqvae_jax.quantizers import BSQ, FSQ, VQ, Projected, ProjectedState, Projection
from vqvae_jax.quantizers.projection import init_projection, project_in, project_out

KEY = jax.random.key(0)
F, WIDTH = 6, 3


@pytest.fixture
def projected():
    vq = VQ(num_codes=7, dim=WIDTH, codebook_init="uniform", codebook_update="ema")
    return Projected(quantizer=vq, dim=F)


@pytest.fixture
def state(projected):
    """A state whose biases are not 0."""
    leaves, structure = jax.tree.flatten(projected.init(KEY))
    rng = np.random.default_rng(0)
    drawn = [jnp.asarray(rng.normal(size=x.shape), "float32") for x in leaves]
    state = jax.tree.unflatten(structure, drawn)
    counts = jnp.abs(state.quantizer.counts) + 1
    return state._replace(quantizer=state.quantizer._replace(counts=counts))


@pytest.fixture
def z_e():
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(4, 5, F)), "float32")


def affine(x, weights, bias):
    """Return x W + b in float64."""
    x, weights, bias = (np.asarray(each, np.float64) for each in (x, weights, bias))
    return x @ weights + bias


class TestProjection:
    def test_maps_are_affine(self, state, z_e):
        projection = state.projection
        expected = affine(z_e, projection.into, projection.into_bias)
        z = project_in(projection, z_e)
        np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-5)
        expected = affine(z, projection.out, projection.out_bias)
        np.testing.assert_allclose(
            project_out(projection, z), expected, rtol=1e-4, atol=1e-5
        )

    def test_padding_passes_no_gradient(self):
        """Decoders see z_q at padding, of a constant input."""
        projection = init_projection(KEY, 6, 4)
        z_e = jax.random.normal(jax.random.key(1), (5, 6))
        mask = jnp.arange(5) < 3

        def f(projection, at_padding):
            z = project_in(projection, z_e, mask)
            return jnp.sum(jnp.where(mask[:, None], 0.0 if at_padding else z, z))

        for_padding = jax.grad(f)(projection, True)
        assert not any(leaf.any() for leaf in jax.tree.leaves(for_padding))
        np.testing.assert_allclose(jax.grad(f)(projection, False).into_bias, 3.0)

    @pytest.mark.parametrize(("features", "width"), [(64, 512), (512, 64)])
    def test_keeps_unit_variance_at_first(self, features, width):
        projection = init_projection(KEY, features, width)
        z_e = jax.random.normal(jax.random.key(1), (200, features))
        z = project_in(projection, z_e)
        assert float(z.var()) == pytest.approx(1, rel=0.1)
        assert float(project_out(projection, z).var()) == pytest.approx(1, rel=0.2)

    def test_results_are_float32(self, state, z_e):
        low = z_e.astype(jnp.bfloat16)
        z = project_in(state.projection, low)
        assert z.dtype == jnp.float32
        assert_close(z, project_in(state.projection, low.astype(jnp.float32)))

    def test_padding_is_read_as_zeros(self, state, z_e):
        mask = jnp.asarray(np.arange(5) < np.arange(1, 5)[:, None])
        padded = jnp.where(mask[..., None], z_e, jnp.nan)
        z = project_in(state.projection, padded, mask)
        expected = jnp.where(
            mask[..., None],
            project_in(state.projection, z_e),
            state.projection.into_bias.reshape(1, 1, -1),
        )
        assert_close(z, expected)


class TestProjected:
    def test_quantizes_in_the_inner_width(
        self, projected, state, z_e, oracle_codes, oracle_rows
    ):
        out = projected.quantize(state, z_e)
        projection, embeddings = state.projection, state.quantizer.embeddings
        z = affine(z_e, projection.into, projection.into_bias)
        codes = oracle_codes(embeddings, z)
        np.testing.assert_array_equal(out.codes, codes)
        rows = oracle_rows(embeddings, codes)[..., 0, :]
        expected = affine(rows, projection.out, projection.out_bias)
        np.testing.assert_allclose(out.z_q, expected, rtol=1e-4, atol=1e-5)
        commitment = ((z - rows) ** 2).mean(-1)
        np.testing.assert_allclose(
            out.losses["commitment"][..., 0], commitment, rtol=1e-4
        )
        np.testing.assert_allclose(
            out.loss, projected.quantizer.beta * commitment, rtol=1e-4
        )

    def test_gradients_equal_those_of_two_linear_layers(self, projected, state, z_e):
        """The quantizer between them is straight-through."""
        weights = jnp.asarray(np.random.default_rng(3).normal(size=z_e.shape), "f4")

        def f(projection, z_e):
            out = projected.quantize(state._replace(projection=projection), z_e)
            return jnp.sum(weights * out.z_q)

        found, for_z_e = jax.grad(f, (0, 1))(state.projection, z_e)
        codes = projected.quantize(state, z_e).codes[..., 0]
        rows = np.asarray(state.quantizer.embeddings)[0, codes].reshape(-1, WIDTH)
        into, out = (np.asarray(state.projection[i]) for i in (0, 2))
        w, z = (np.asarray(x).reshape(-1, F) for x in (weights, z_e))
        expected = Projection(
            into=z.T @ w @ out.T,
            into_bias=(w @ out.T).sum(0),
            out=rows.T @ w,
            out_bias=w.sum(0),
        )
        assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert_close(for_z_e, (w @ out.T @ into.T).reshape(z_e.shape), rtol=1e-4)

    def test_the_inner_codebook_follows_projected_vectors(
        self, projected, state, z_e, oracle_ema, assert_codebooks_close
    ):
        codes = projected.quantize(state, z_e).codes
        after = projected.update(state, z_e, codes, key=KEY)
        projection = state.projection
        z = affine(z_e, projection.into, projection.into_bias)
        expected = oracle_ema(state.quantizer, z, np.asarray(codes), 0.99)
        assert_codebooks_close(after.quantizer, expected, 1e-4)
        assert after.projection is projection

    def test_kmeans_starts_from_projected_vectors(self, z_e):
        """With a code for each vector, the rows are the projected vectors."""
        vq = VQ(num_codes=20, dim=WIDTH, codebook_init="kmeans")
        projected = Projected(quantizer=vq, dim=F)
        state = projected.init(KEY, z_e)
        projection = state.projection
        z = affine(z_e, projection.into, projection.into_bias).reshape(-1, 1, WIDTH)
        rows = np.asarray(state.quantizer.embeddings)[0]
        nearest = np.abs(z - rows).max(-1).min(-1)
        assert np.median(nearest) < 1e-5

    def test_several_codes_have_no_table(self):
        for inner in (
            VQ(num_codes=3, dim=2, num_codebooks=2, codebook_init="uniform"),
            FSQ(levels=(3, 3), dim=4, codes="digits"),
            BSQ(bits=17, dim=4),
        ):
            projected = Projected(quantizer=inner, dim=F)
            assert projected.codebooks(projected.init(KEY)) is None

    def test_nests(self, z_e):
        inner = Projected(quantizer=FSQ(levels=(3, 4), dim=2), dim=4)
        outer = Projected(quantizer=inner, dim=F)
        state = outer.init(KEY)
        assert isinstance(state.quantizer, ProjectedState)
        out = outer.quantize(state, z_e)
        np.testing.assert_array_equal(outer.lookup(state, out.codes), out.z_q)
        assert outer.codebooks(state).shape == (1, 12, F)


class TestConfig:
    def test_names_any_member(self):
        section = {"dim": F, "quantizer": {"kind": "fsq", "levels": [3, 4]}}
        built = options.build(Projected, section, name="model.quantizer")
        expected = Projected(quantizer=FSQ(levels=(3, 4)), dim=F)
        assert built == expected
        assert options.build(Projected, options.to_config(built), name="q") == built

    def test_an_error_names_the_inner_key(self):
        section = {"quantizer": {"kind": "fsq", "levels": [1, 4]}}
        match = "model.quantizer.quantizer.levels must be numbers from 2"
        with pytest.raises(ValueError, match=match):
            options.build(Projected, section, name="model.quantizer")
