"""Estimators of the gradient of z_q, against explicit matrices in float64 NumPy.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tree_checks import assert_close

from vqvae_jax.quantizers import estimators

KEY = jax.random.key(0)
N, D = 40, 6
ALL = {
    "straight_through": estimators.straight_through,
    "rotation": estimators.rotation,
    "diveq": estimators.diveq,
}


def unit(x):
    return x / np.linalg.norm(x)


def rotation_matrix(z, e):
    """Return the rotation, in the plane of both, of z to the direction of e."""
    u, v = unit(z), unit(e)
    w = unit(v - (u @ v) * u)
    cosine, sine = u @ v, w @ v
    in_plane = np.array([[cosine, -sine], [sine, cosine]])
    basis = np.stack([u, w], axis=1)
    return np.eye(len(z)) + basis @ (in_plane - np.eye(2)) @ basis.T


def gradients(estimator, z, e, g):
    """Return the gradients with respect to z and e if that of the result is g."""
    _, vjp = jax.vjp(estimator, jnp.asarray(z, "float32"), jnp.asarray(e, "float32"))
    return vjp(jnp.asarray(g, "float32"))


@pytest.fixture
def zeg():
    """Vectors z, rows e and gradients g, `[N, D]`, of different lengths."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(size=(3, N, 1)))
    return lengths * rng.normal(size=(3, N, D))


@pytest.fixture(params=ALL)
def estimator(request):
    """Each estimator in turn, without a key."""
    return ALL[request.param]


class TestAll:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_the_value_is_the_row_to_the_last_bit(self, estimator, zeg, dtype):
        """[26] R z |e| / |z| and z + |e - z| d are e up to rounding only."""
        z, e = (jnp.asarray(x, dtype) for x in zeg[:2])
        for call in (estimator, jax.jit(estimator)):
            np.testing.assert_array_equal(call(z, e), e)

    def test_gradients_are_finite_everywhere(self, estimator):
        """[30] At z = 0, e = 0, z = e, z = -e, and at lengths with no square."""
        a, b = np.eye(D)[:2]
        pairs = [(0 * a, b), (a, 0 * a), (0 * a, 0 * a), (a, a), (a, -a)]
        pairs += [(1e-30 * a, 1e-25 * b), (1e30 * a, 1e25 * b), (1e30 * a, a)]
        z, e = (np.stack(each) for each in zip(*pairs, strict=True))
        for gradient in gradients(estimator, z, e, np.ones_like(z)):
            assert np.isfinite(gradient).all()

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_gradient_of_zero_stays_zero_where_z_is_not_finite(
        self, estimator, value
    ):
        """[10] Padding has no gradient, whatever its values."""
        z = np.full((3, D), value)
        for gradient in gradients(estimator, z, np.ones((3, D)), np.zeros((3, D))):
            np.testing.assert_array_equal(gradient, 0.0)

    def test_one_feature(self, estimator):
        z, e = np.array([[2.0], [-2.0]]), np.array([[3.0], [3.0]])
        for gradient in gradients(estimator, z, e, np.ones((2, 1))):
            assert np.isfinite(gradient).all()


class TestRotation:
    def test_the_oracle_rotates_z_to_e(self, zeg):
        for z, e in zip(*zeg[:2], strict=True):
            R = rotation_matrix(z, e)
            np.testing.assert_allclose(R @ R.T, np.eye(D), atol=1e-12)
            assert np.linalg.det(R) == pytest.approx(1.0)
            scale = np.linalg.norm(e) / np.linalg.norm(z)
            np.testing.assert_allclose(scale * R @ z, e, atol=1e-12)

    def test_gradient_is_the_transposed_rotation_scaled(self, zeg):
        """[30] And nothing through the rotation or the scale (Fifty et al. 2024)."""
        for_z, for_e = gradients(estimators.rotation, *zeg)
        scales = np.linalg.norm(zeg[1], axis=-1) / np.linalg.norm(zeg[0], axis=-1)
        matrices = [rotation_matrix(z, e) for z, e in zip(*zeg[:2], strict=True)]
        factors = zip(scales, matrices, zeg[2], strict=True)
        expected = [scale * R.T @ g for scale, R, g in factors]
        np.testing.assert_allclose(for_z, expected, rtol=1e-4, atol=1e-5)
        # A caller that keeps rows out of the gradient stops it.
        np.testing.assert_allclose(for_e, zeg[2], rtol=1e-6)

    def test_gradient_where_there_is_no_plane_of_rotation(self, zeg):
        """[30] z = 0 and z = e pass it, e = 0 stops it, z = -e reflects it."""
        z, _, g = zeg
        rotation = functools.partial(gradients, estimators.rotation)
        np.testing.assert_allclose(rotation(0 * z, z, g)[0], g, rtol=1e-6)
        np.testing.assert_allclose(rotation(z, z, g)[0], g, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(rotation(z, 0 * z, g)[0], 0 * z)
        u = z / np.linalg.norm(z, axis=-1, keepdims=True)
        reflected = g - 2 * u * (u * g).sum(-1, keepdims=True)
        found = rotation(z, -z, g)[0]
        np.testing.assert_allclose(found, reflected, rtol=1e-4, atol=1e-5)

    def test_lengths_may_have_no_square(self, zeg):
        """Squares of 1e25 are infinite in float32, those of 1e-25 zero."""
        z, e, g = zeg
        expected = gradients(estimators.rotation, z, e, g)[0]
        for scale in (1e25, 1e-25):
            found = gradients(estimators.rotation, scale * z, scale * e, g)[0]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def test_quantizer_rotates_each_group(self, vq, codebook, z_e, oracle_rows):
        """By the rows of three codebooks, and the codebooks follow no gradient."""
        rotating = dataclasses.replace(vq, estimator="rotation")
        g = np.random.default_rng(3).normal(size=z_e.shape)

        def f(codebook, z_e):
            out = rotating.quantize(codebook, z_e)
            return jnp.sum(jnp.asarray(g, "float32") * out.z_q), out

        (for_codebook, for_z_e), out = jax.grad(f, (0, 1), has_aux=True)(codebook, z_e)
        rows = oracle_rows(codebook.embeddings, np.asarray(out.codes))
        z, g = (np.asarray(x, np.float64).reshape(rows.shape) for x in (z_e, g))
        expected = np.zeros_like(z)
        for i in np.ndindex(rows.shape[:-1]):
            scale = np.linalg.norm(rows[i]) / np.linalg.norm(z[i])
            expected[i] = scale * rotation_matrix(z[i], rows[i]).T @ g[i]
        np.testing.assert_allclose(
            for_z_e, expected.reshape(z_e.shape), rtol=1e-4, atol=1e-4
        )
        assert not any(leaf.any() for leaf in for_codebook)


class TestDiveq:
    """z + |e - z| sg[u]: its gradient is g - d (u.g) for z and d (u.g) for e."""

    @staticmethod
    def expected(zeg, u):
        z, e, g = zeg
        d = (e - z) / np.linalg.norm(e - z, axis=-1, keepdims=True)
        for_e = d * (u * g).sum(-1, keepdims=True)
        return g - for_e, for_e

    def test_without_a_key_the_direction_is_that_of_the_error(self, zeg):
        error = zeg[1] - zeg[0]
        u = error / np.linalg.norm(error, axis=-1, keepdims=True)
        found = gradients(estimators.diveq, *zeg)
        assert_close(list(found), list(self.expected(zeg, u)), rtol=1e-4)

    @pytest.mark.parametrize("variance", [0.0, 0.1, 4.0])
    def test_a_key_adds_noise_of_the_variance_to_the_direction(self, zeg, variance):
        z, e, g = zeg
        diveq = functools.partial(estimators.diveq, noise_variance=variance, key=KEY)
        noise = np.asarray(jax.random.normal(KEY, (N, D)), np.float64)
        direction = e - z + np.sqrt(variance) * noise
        u = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        length = np.linalg.norm(e - z, axis=-1, keepdims=True)
        value = diveq(jnp.asarray(z, "float32"), jnp.asarray(e, "float32"))
        np.testing.assert_allclose(value, z + length * u, rtol=1e-4, atol=1e-5)
        found = gradients(diveq, z, e, g)
        assert_close(list(found), list(self.expected(zeg, u)), rtol=1e-4)

    def test_quantizer_draws_with_a_key_only(self, vq, codebook, z_e):
        quantizer = dataclasses.replace(vq, estimator="diveq", noise_variance=0.1)
        out = quantizer.quantize(codebook, z_e)
        rows = quantizer.lookup(codebook, out.codes)
        np.testing.assert_array_equal(out.z_q, rows)
        noisy = quantizer.quantize(codebook, z_e, key=KEY)
        np.testing.assert_array_equal(noisy.codes, out.codes)
        assert_close(noisy.losses, out.losses)
        grouped = (*z_e.shape[:-1], 3, 4)
        errors = [(x - z_e).reshape(grouped) for x in (noisy.z_q, rows)]
        assert np.abs(errors[0] - errors[1]).max() > 0.1
        lengths = [np.linalg.norm(error, axis=-1) for error in errors]
        np.testing.assert_allclose(*lengths, rtol=1e-4)


class TestCodebookGradient:
    """codebook_update="gradient": z_q carries the gradient to its rows."""

    @pytest.mark.parametrize("estimator", ["straight_through", "rotation", "diveq"])
    def test_gradient_of_z_q_reaches_rows_and_z_e(
        self, vq, codebook, z_e, oracle_rows, estimator
    ):
        by_gradient = dataclasses.replace(
            vq, estimator=estimator, codebook_update="gradient"
        )
        by_loss = dataclasses.replace(by_gradient, codebook_update="loss")
        g = np.random.default_rng(3).normal(size=z_e.shape).astype("float32")

        def f(codebook, z_e, quantizer):
            out = quantizer.quantize(codebook, z_e)
            return jnp.sum(g * out.z_q), out.codes

        gradient = jax.grad(f, (0, 1), has_aux=True)
        (for_codebook, for_z_e), codes = gradient(codebook, z_e, by_gradient)
        (_, same_for_z_e), _ = gradient(codebook, z_e, by_loss)
        np.testing.assert_array_equal(for_z_e, same_for_z_e)
        rows = oracle_rows(codebook.embeddings, np.asarray(codes))
        z, of_z_q = (np.asarray(x, np.float64).reshape(rows.shape) for x in (z_e, g))
        for_rows = of_z_q
        if estimator == "diveq":
            d = (rows - z) / np.linalg.norm(rows - z, axis=-1, keepdims=True)
            for_rows = d * (d * of_z_q).sum(-1, keepdims=True)
        expected = np.zeros(codebook.embeddings.shape)
        for i in np.ndindex(codes.shape):
            expected[i[-1], codes[i]] += for_rows[i]
        found = for_codebook.embeddings
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    def test_total_loss_has_no_codebook_term_and_the_rows_are_trained(self, vq):
        by_gradient = dataclasses.replace(vq, beta=0.5, codebook_update="gradient")
        terms = {"codebook": 3.0, "commitment": 5.0}
        assert by_gradient.total_loss(terms) == pytest.approx(0.5 * 5.0)
        assert by_gradient.trainable(by_gradient.init(KEY)) == (True, False, False)

    def test_update_counts_and_restarts(self, vq, codebook, z_e):
        """The optimiser moves the rows; counts follow usage as with the loss."""
        by_loss = dataclasses.replace(vq, dead_code_threshold=0.995)
        by_gradient = dataclasses.replace(by_loss, codebook_update="gradient")
        codes = jnp.zeros((*z_e.shape[:-1], 3), jnp.int32)
        found, expected = (
            quantizer.update(codebook, z_e, codes, key=KEY)
            for quantizer in (by_gradient, by_loss)
        )
        assert_close(found, expected)
