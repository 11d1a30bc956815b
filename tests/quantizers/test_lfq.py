"""LFQ and BSQ against an enumeration of all codes in NumPy.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vqvae_jax.quantizers import BSQ, LFQ, BinaryState

KEY = jax.random.key(0)
KINDS = {"lfq": LFQ, "bsq": BSQ}
TERMS = ("commitment", "entropy", "diversity")


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def state_of(identity):
    """(quantizer) -> a state without projection, before any update."""

    def state(quantizer):
        ones = jnp.full(quantizer.bits, 0.5)
        return BinaryState(identity(quantizer.bits), ones)

    return state


@pytest.fixture
def z_e_of():
    """(bits) -> vectors `[6, bits]` of different lengths; bits are not balanced."""

    def z_e(bits):
        rng = np.random.default_rng(bits)
        vectors = (rng.normal(size=(6, bits)) + 0.3) * np.arange(1, 7)[:, None] / 3
        return jnp.asarray(vectors, "float32")

    return z_e


def numbers(quantizer, z_e):
    """Return y, in units of the quantized numbers, in float64."""
    y = np.asarray(z_e, np.float64)
    if isinstance(quantizer, BSQ):
        y = y / np.linalg.norm(y, axis=-1, keepdims=True) * quantizer.bits**0.5
    return y


def all_codes(bits):
    """Return the 2^bits sign patterns, `[K, bits]`; bit 0 counts ones."""
    return 2.0 * ((np.arange(2**bits)[:, None] >> np.arange(bits)) & 1) - 1


def enumerate_q(quantizer, y):
    """Return q(c|y) of all codes by their distances, `[N, K]`."""
    distances = ((y[:, None] - all_codes(quantizer.bits)) ** 2).sum(-1)
    q = np.exp(-(distances - distances.min(-1, keepdims=True)) / quantizer.temperature)
    return q / q.sum(-1, keepdims=True)


def entropy(p):
    return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)


def diversity(quantizer, q):
    """Return 1 - H[E q] / log K of q `[N, K]`, from the bits of all codes."""
    is_one = all_codes(quantizer.bits) > 0
    p = q.mean(0) @ is_one
    bits = entropy(np.stack([p, 1 - p], axis=-1)).sum()
    return 1 - bits / np.log(quantizer.num_codes)


class TestCodes:
    @pytest.mark.parametrize("bits", [1, 3, 8])
    def test_nearest_of_all_codes(self, bits, kind, state_of, z_e_of):
        quantizer, z_e = kind(bits=bits, dim=bits), z_e_of(bits)
        state = state_of(quantizer)
        out = quantizer.quantize(state, z_e)
        table = all_codes(bits)
        y = numbers(quantizer, z_e)
        expected = ((y[:, None] - table) ** 2).sum(-1).argmin(-1)
        np.testing.assert_array_equal(out.codes[:, 0], expected)
        scale = bits**-0.5 if kind is BSQ else 1.0
        np.testing.assert_allclose(out.z_q, scale * table[expected], rtol=1e-6)
        rows = quantizer.lookup(state, jnp.arange(2**bits)[:, None])
        np.testing.assert_allclose(rows, scale * table, rtol=1e-6)
        again = quantizer.quantize(state, rows).codes
        np.testing.assert_array_equal(again[:, 0], np.arange(2**bits))

    def test_zeros_of_both_signs_are_ones(self, kind, state_of):
        """[27] A sign of 0 would be neither code."""
        quantizer = kind(bits=4, dim=4)
        z_e = jnp.array([[0.0] * 4, [-0.0] * 4])
        out = quantizer.quantize(state_of(quantizer), z_e)
        np.testing.assert_array_equal(out.codes, 15)
        assert (out.z_q > 0).all()

    def test_most_bits(self, kind, identity):
        """Codes of 30 bits are int32 and decode to their bits."""
        quantizer = kind(bits=30, dim=30)
        state = BinaryState(identity(30), jnp.full(30, 0.5))
        z_e = jnp.asarray(np.random.default_rng(0).normal(size=(50, 30)), "float32")
        out = quantizer.quantize(state, z_e)
        bits = (np.asarray(out.codes) >> np.arange(30)) & 1
        np.testing.assert_array_equal(bits, z_e >= 0)
        np.testing.assert_array_equal(quantizer.lookup(state, out.codes) > 0, z_e >= 0)
        assert quantizer.codebooks(state) is None

    def test_vectors_start_with_unit_variance(self, kind):
        quantizer = kind(bits=16, dim=256)
        z_e = jax.random.normal(KEY, (100, 256))
        z_q = quantizer.quantize(quantizer.init(KEY), z_e).z_q
        assert float(z_q.var()) == pytest.approx(1, rel=0.1)


class TestLosses:
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    @pytest.mark.parametrize("bits", [1, 3, 8])
    def test_equal_an_enumeration(self, bits, temperature, kind, state_of, z_e_of):
        """[29] Entropies over all 2^bits codes, the mean over the batch."""
        z_e = z_e_of(bits)
        quantizer = kind(bits=bits, dim=bits, temperature=temperature, ema_decay=0.0)
        state = state_of(quantizer)
        codes = jnp.zeros((len(z_e), 1), jnp.int32)
        state = quantizer.update(state, z_e, codes, key=KEY)
        losses = quantizer.quantize(state, z_e).losses
        y = numbers(quantizer, z_e)
        q = enumerate_q(quantizer, y)
        expected = {
            "commitment": ((y - np.where(y >= 0, 1, -1)) ** 2).mean(-1),
            "entropy": entropy(q) / np.log(2**bits),
            "diversity": np.full(len(y), diversity(quantizer, q)),
        }
        assert losses.keys() == expected.keys()
        for name, value in expected.items():
            found = losses[name][:, 0]
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)

    def test_diversity_has_the_gradient_of_the_entropy_of_the_mean(
        self, kind, state_of, z_e_of
    ):
        """Where the running mean is that of the batch, against finite differences."""
        z_e = z_e_of(3)
        quantizer = kind(bits=3, dim=3, ema_decay=0.0)
        codes = jnp.zeros((len(z_e), 1), jnp.int32)
        state = quantizer.update(state_of(quantizer), z_e, codes, key=KEY)

        def term(z_e):
            return quantizer.quantize(state, z_e).losses["diversity"].mean()

        def oracle(z_e):
            return diversity(quantizer, enumerate_q(quantizer, numbers(quantizer, z_e)))

        expected = np.zeros(z_e.shape)
        for index in np.ndindex(z_e.shape):
            step = np.zeros(z_e.shape)
            step[index] = 1e-5
            z = np.asarray(z_e, np.float64)
            above, below = (oracle(z + each) for each in (step, -step))
            expected[index] = (above - below) / 2e-5
        np.testing.assert_allclose(jax.grad(term)(z_e), expected, rtol=1e-3, atol=1e-5)

    def test_do_not_depend_on_the_number_of_bits(self, kind, state_of, z_e_of):
        """[29] The same 2 numbers once, 4 times and, for the most bits, 15 times."""
        found = []
        for times in (1, 4, 15):
            quantizer = kind(bits=2 * times, dim=2 * times, ema_decay=0.0)
            z_e = jnp.tile(z_e_of(2), times)
            codes = jnp.zeros((len(z_e), 1), jnp.int32)
            state = quantizer.update(state_of(quantizer), z_e, codes, key=KEY)
            found.append(quantizer.quantize(state, z_e).losses)
        for name in TERMS:
            for larger in found[1:]:
                np.testing.assert_allclose(larger[name], found[0][name], rtol=1e-4)

    @pytest.mark.parametrize("mean", [0.0, 1e-9, 0.5, 1.0])
    def test_are_between_0_and_1(self, mean, kind, state_of):
        """[29] Entropies at extreme inputs and means, with finite gradients."""
        quantizer = kind(bits=2, dim=2)
        state = state_of(quantizer)._replace(ones=jnp.full(2, mean))
        extremes = np.array([0.0, 1e-30, *np.linspace(0.01, 9, 50), 88.0, 1e4, 1e15])
        z_e = jnp.asarray(np.stack(np.meshgrid(extremes, -extremes), -1), "float32")
        losses = quantizer.quantize(state, z_e).losses
        for name in ("entropy", "diversity"):
            assert losses[name].min() >= 0
            assert losses[name].max() <= 1 + 1e-6
        assert losses["commitment"].min() >= 0

        def total(z_e):
            return quantizer.quantize(state, z_e).loss.sum()

        assert np.isfinite(jax.grad(total)(z_e)).all()

    def test_weights(self, kind, z_e_of):
        weights = {"beta": 2.0, "entropy_weight": 3.0, "diversity_weight": 5.0}
        quantizer = kind(bits=3, dim=3, **weights)
        out = quantizer.quantize(quantizer.init(KEY), z_e_of(3))
        terms = zip(weights.values(), TERMS, strict=True)
        expected = sum(w * out.losses[name][:, 0] for w, name in terms)
        np.testing.assert_allclose(out.loss, expected, rtol=1e-5)


class TestUpdate:
    def test_running_mean(self, kind, state_of, z_e_of):
        quantizer, z_e = kind(bits=3, dim=3, ema_decay=0.9), z_e_of(3)
        mask = np.array([True, True, False, True, False, True])
        codes = jnp.zeros((len(z_e), 1), jnp.int32)
        state = state_of(quantizer)
        found = quantizer.update(state, z_e, codes, key=KEY, mask=jnp.asarray(mask))
        q = enumerate_q(quantizer, numbers(quantizer, z_e[mask]))
        p = q.mean(0) @ (all_codes(3) > 0)
        np.testing.assert_allclose(found.ones, 0.9 * 0.5 + 0.1 * p, rtol=1e-5)

    def test_padding_alone_changes_nothing(self, kind, z_e_of):
        quantizer = kind(bits=3, dim=3)
        state = quantizer.init(KEY)._replace(ones=jnp.array([0.1, 0.2, 0.3]))
        codes, mask = jnp.zeros((6, 1), jnp.int32), jnp.zeros(6, bool)
        after = quantizer.update(state, z_e_of(3), codes, key=KEY, mask=mask)
        np.testing.assert_array_equal(after.ones, state.ones)

    def test_the_diversity_term_balances_bits(self, kind, state_of):
        """Gradient descent on a shift that makes most bits 1 at first."""
        quantizer = kind(bits=4, dim=4, beta=0.0, entropy_weight=0.0)
        noise = jnp.asarray(np.random.default_rng(0).normal(size=(256, 4)), "float32")

        @jax.jit
        def train(shift, state):
            def step(carry, _):
                shift, state = carry

                def loss(shift):
                    out = quantizer.quantize(state, noise + shift)
                    return out.loss.mean(), out.codes

                gradient, codes = jax.grad(loss, has_aux=True)(shift)
                shift = shift - 5 * gradient
                z_e = noise + shift
                return (shift, quantizer.update(state, z_e, codes, key=KEY)), None

            (shift, _), _ = lax.scan(step, (shift, state), length=1000)
            return shift

        shift = train(jnp.ones((1, 4)), state_of(quantizer))
        fractions = np.mean(noise + shift > 0, axis=0)
        assert (np.abs(fractions - 0.5) < 0.1).all()


@pytest.mark.parametrize("method", ["quantize and gradient", "update", "lookup"])
def test_memory_does_not_grow_with_the_number_of_codes(method, kind):
    """[35] As compiled. N x K numbers would be 524 MB, a number per code 1 MB.

    The compiler's own count wraps at 4 GB, so that more vectors could hide them.
    """
    N, D = 500, 64
    quantizer = kind(bits=18, dim=D)

    def loss(state, z_e):
        out = quantizer.quantize(state, z_e)
        return out.loss.mean() + jnp.sum(out.z_q**2), out.codes

    function = {
        "quantize and gradient": lambda s, z, c: jax.grad(loss, (0, 1), has_aux=True)(
            s, z
        ),
        "update": lambda s, z, c: quantizer.update(s, z, c, key=KEY),
        "lookup": lambda s, z, c: quantizer.lookup(s, c),
    }[method]
    z_e = jax.ShapeDtypeStruct((N, D), "float32")
    codes = jax.ShapeDtypeStruct((N, 1), "int32")
    state = jax.eval_shape(quantizer.init, KEY)
    memory = jax.jit(function).lower(state, z_e, codes).compile().memory_analysis()
    total = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
    )
    assert total < 900_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 0}, "bits must be >= 1"),
        ({"bits": 31}, "bits must be .*<= 30"),
        ({"temperature": 0.0}, "temperature must be > 0"),
        ({"ema_decay": 1.0}, "ema_decay must be .*< 1"),
    ],
    ids=str,
)
def test_wrong_options_are_rejected(options, message, kind):
    with pytest.raises(ValueError, match=message):
        kind(**options)
