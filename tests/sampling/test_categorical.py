"""Temperature, truncation and guidance against probabilities computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.sampling.categorical import (
    FREE,
    guided,
    require_drawable,
    sample_categorical,
    truncated,
)

P = np.array([0.1, 0.4, 0.05, 0.25, 0.2])
LOGITS = jnp.asarray(np.log(P) + 3.0, "float32")


def assert_probabilities(logits, weights):
    """Compare with probabilities that are proportional to weights."""
    found = jax.nn.softmax(logits)
    np.testing.assert_allclose(found, weights / weights.sum(), rtol=1e-5)


def only(kept):
    """Return P, and 0 for all categories but these."""
    return np.where(np.isin(np.arange(5), list(kept)), P, 0)


class TestTruncated:
    def test_defaults_keep_the_logits(self):
        np.testing.assert_array_equal(truncated(LOGITS), LOGITS)

    @pytest.mark.parametrize("temperature", [0.5, 2.0])
    def test_temperature_raises_probabilities_to_a_power(self, temperature):
        found = truncated(LOGITS, temperature=temperature)
        assert_probabilities(found, P ** (1 / temperature))

    @pytest.mark.parametrize(
        ("k", "kept"), [(1, [1]), (3, [1, 3, 4]), (5, range(5)), (9, range(5))]
    )
    def test_top_k(self, k, kept):
        assert_probabilities(truncated(LOGITS, top_k=k), only(kept))

    @pytest.mark.parametrize(
        ("p", "kept"),
        [
            (0.01, [1]),  # At least one category is kept.
            (0.39, [1]),
            (0.41, [1, 3]),
            (0.66, [1, 3, 4]),
            (0.94, [0, 1, 3, 4]),
            (1.0, range(5)),
        ],
    )
    def test_top_p(self, p, kept):
        assert_probabilities(truncated(LOGITS, top_p=p), only(kept))

    @pytest.mark.parametrize("top_k", [None, 100])
    def test_top_p_of_one_keeps_all_categories(self, top_k):
        """The rounded sum of 512 probabilities reaches 1 before the last one."""
        logits = 3 * jax.random.normal(jax.random.key(0), (50, 512))
        for top_p in (1.0, jnp.float32(1.0)):
            np.testing.assert_array_equal(
                truncated(logits, top_p=top_p, top_k=top_k),
                truncated(logits, top_k=top_k),
            )

    def test_top_p_applies_after_temperature_and_top_k(self):
        # The three likeliest with temperature 2 have sqrt of .4, .25 and .2, which is
        # .40, .32 and .28 of their sum: the first two reach .7 but not .8.
        three = np.where(P >= 0.2, np.sqrt(P), 0)
        options = {"temperature": 2.0, "top_k": 3}
        for p, kept in ((0.8, three), (0.7, np.where(P >= 0.25, three, 0))):
            assert_probabilities(truncated(LOGITS, top_p=p, **options), kept)

    def test_batch_elements_are_independent(self):
        both = jnp.stack([LOGITS, LOGITS[::-1]])
        alone = truncated(LOGITS, top_k=2, top_p=0.5)
        np.testing.assert_array_equal(
            truncated(both, top_k=2, top_p=0.5), jnp.stack([alone, alone[::-1]])
        )


@pytest.mark.parametrize(
    ("name", "good", "bad"), [("temperature", 0.5, 0.0), ("top_p", 1.0, 1.5)]
)
@pytest.mark.parametrize("kind", [float, np.float32, jnp.float32])
def test_options_that_jit_closes_over_are_checked(name, good, bad, kind):
    others = {"temperature": 1.0, "top_k": None, "top_p": None}

    def checked(value):
        def function(x):
            require_drawable(**others | {name: value})
            return x

        return jax.jit(function)(1)

    assert checked(kind(good)) == 1
    with pytest.raises(UserError, match=f"^{name} must be .*, got {bad}"):
        checked(kind(bad))


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guidance_weights_the_two_distributions(scale):
    """p is proportional to p(label)^scale * p()^(1 - scale)."""
    other = np.array([0.3, 0.1, 0.2, 0.2, 0.2])
    logits = jnp.stack([LOGITS, jnp.asarray(np.log(other), "float32")])
    expected = special.softmax(scale * np.log(P) + (1 - scale) * np.log(other))
    assert_probabilities(guided(logits, scale=scale)[0], expected)


def test_given_codes_are_kept_and_copies_agree():
    logits = jnp.tile(LOGITS[None], (6, 1))
    given = jnp.array([FREE, 2, FREE])
    codes = sample_categorical(
        lambda logits: logits[:3], logits, jax.random.key(0), given
    )
    assert codes.dtype == jnp.int32
    np.testing.assert_array_equal(codes[:3], codes[3:])
    assert codes[1] == 2
    drawn = jax.random.categorical(jax.random.key(0), logits[:3])
    np.testing.assert_array_equal(codes[:3:2], drawn[::2])
