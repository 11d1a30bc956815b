"""FSQ against NumPy: levels, mixed-radix codes, gradients, options.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from vqvae_jax.quantizers import FSQ

LEVELS = [(2,), (3,), (2, 2, 2), (8, 6, 5), (7, 5, 3), (2, 5, 8, 3)]


@pytest.fixture(params=LEVELS, ids=str)
def levels(request):
    return request.param


@pytest.fixture(params=["joint", "digits"])
def fsq(request, levels):
    """An FSQ of as many features as numbers."""
    return FSQ(levels=levels, dim=len(levels), codes=request.param)


@pytest.fixture
def state(fsq, identity):
    return identity(fsq.dim)


@pytest.fixture
def combinations(levels):
    """All combinations of digits in the order of joint codes, `[K, d]`."""
    codes = np.arange(np.prod(levels))
    return np.stack(np.unravel_index(codes, levels, order="F"), axis=-1)


def level_values(digits, levels):
    """Return the values of digits: L_i evenly spaced ones from -1 to 1."""
    spaced = [np.linspace(-1, 1, n) for n in levels]
    return np.stack([s[d] for s, d in zip(spaced, digits.T, strict=True)], axis=-1)


class TestLevels:
    @pytest.mark.parametrize("num_levels", [2, 3, 4, 5, 6, 7, 8, 9, 64, 1001])
    def test_a_number_gets_the_nearest_level(self, num_levels, identity):
        """[28] Every level is reachable, and so is its negative."""
        fsq = FSQ(levels=(num_levels,), dim=1)
        # Between the midpoints of levels, at which rounding may go either way.
        bounded = (np.arange(20_000) + 0.5) / 10_000 - 1
        midpoints = np.linspace(-1, 1, 2 * num_levels - 1)[1::2]
        gap = np.abs(bounded[:, None] - midpoints).min(axis=1)
        z_e = jnp.asarray(np.arctanh(bounded[gap > 1e-5])[:, None], "float32")
        codes = np.asarray(fsq.quantize(identity(1), z_e).codes)[:, 0]
        distances = np.abs(np.tanh(z_e) - np.linspace(-1, 1, num_levels))
        np.testing.assert_array_equal(codes, distances.argmin(axis=1))
        assert set(codes) == set(range(num_levels))
        negative = np.asarray(fsq.quantize(identity(1), -z_e).codes)[:, 0]
        np.testing.assert_array_equal(negative, num_levels - 1 - codes)

    def test_extreme_numbers(self, fsq, state, levels):
        """[27] The outermost levels, and one in the middle."""
        # The largest numbers: an identity matrix would multiply infinity by 0.
        z_e = jnp.array([[3e38] * fsq.dim, [-3e38] * fsq.dim, [np.nan] * fsq.dim])
        out = fsq.quantize(state, z_e)
        np.testing.assert_allclose(out.z_q[0], 1.0)
        np.testing.assert_allclose(out.z_q[1], -1.0)
        spacing = 2 / (np.array(levels) - 1)
        assert (np.abs(out.z_q[2]) <= spacing / 2 + 1e-6).all()


class TestCodes:
    def test_lookup_of_all_combinations(self, fsq, state, levels, combinations):
        codes = combinations
        if fsq.codes == "joint":
            codes = np.arange(len(combinations))[:, None]
        rows = fsq.lookup(state, jnp.asarray(codes))
        expected = level_values(combinations, levels)
        np.testing.assert_allclose(rows, expected, atol=1e-6)

    def test_round_trip_of_all_combinations(self, fsq, state, levels, combinations):
        """[26, 28] Their own vectors, and vectors near them, get their codes."""
        values = level_values(combinations, levels)
        for scale in (0.9999, 0.98):
            z_e = jnp.asarray(np.arctanh(scale * values), "float32")
            out = fsq.quantize(state, z_e)
            expected = combinations
            if fsq.codes == "joint":
                expected = np.arange(len(combinations))[:, None]
            np.testing.assert_array_equal(out.codes, expected)
            np.testing.assert_array_equal(fsq.lookup(state, out.codes), out.z_q)

    def test_codes_out_of_range_are_clipped(self, identity):
        """A prior over digits has K values for each, the largest L_i."""
        digits = FSQ(levels=(2, 5), dim=2, codes="digits")
        found = digits.lookup(identity(2), jnp.array([[4, 4], [-1, -1]]))
        np.testing.assert_array_equal(found, [[1, 1], [-1, -1]])
        joint = FSQ(levels=(2, 5), dim=2)
        found = joint.lookup(identity(2), jnp.array([[10], [-1]]))
        np.testing.assert_array_equal(found, [[1, 1], [-1, -1]])

    def test_sizes(self):
        joint = FSQ(levels=(8, 6, 5))
        assert (joint.num_codes, joint.codes_per_vector) == (240, 1)
        digits = FSQ(levels=(8, 6, 5), codes="digits")
        assert (digits.num_codes, digits.codes_per_vector) == (8, 3)
        assert digits.bits == joint.bits == pytest.approx(np.log2(240))

    def test_a_table_exists_up_to_65_536_codes(self, identity):
        for levels, exists in (((2,) * 16, True), ((2,) * 17, False)):
            fsq = FSQ(levels=levels, dim=len(levels))
            table = jax.eval_shape(fsq.codebooks, identity(fsq.dim))
            assert (table is not None) == exists
        assert FSQ(levels=(3,), dim=1, codes="digits").codebooks(identity(1)).any()
        digits = FSQ(levels=(3, 3), dim=2, codes="digits")
        assert digits.codebooks(identity(2)) is None


def test_gradient_is_that_of_tanh(fsq, state):
    """Rounding is straight-through."""
    rng = np.random.default_rng(0)
    z_e, weights = jnp.asarray(rng.normal(size=(2, 9, fsq.dim)), "float32")
    gradient = jax.grad(lambda z: jnp.sum(weights * fsq.quantize(state, z).z_q))(z_e)
    expected = weights * (1 - np.tanh(z_e) ** 2)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ()}, "levels must be numbers from 2"),
        ({"levels": (8, 1)}, "levels must be numbers from 2"),
        ({"levels": (2**17,)}, "levels must be numbers from 2"),
        ({"levels": (2,) * 31}, 'at most 2147483647 combinations.*codes="digits"'),
        ({"dim": 0}, "dim must be >= 1"),
        ({"codes": "all"}, "codes must be one of joint, digits"),
    ],
    ids=str,
)
def test_wrong_options_are_rejected(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        FSQ(**options)
