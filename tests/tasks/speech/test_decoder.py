"""Audio to mu-law values and back, as the decoder sees them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.decoder import audio_of, companded, values_of


def test_round_trip_error_is_half_a_companded_step():
    audio = np.arange(-32768, 32768, dtype=np.int16)[None]

    def compand(x):
        x = x / 32768
        return np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256)

    values = jax.jit(values_of)(audio)
    back = jax.jit(audio_of)(values)
    assert values.min() == 0
    assert values.max() == 255
    assert back.dtype == jnp.int16
    error = np.abs(compand(np.float64(back)) - compand(np.float64(audio)))
    # Half a step, and the error of rounding to 16 bits, relevant near silence.
    assert error.max() < 1 / 255 + 0.005
    assert error[np.abs(audio) > 2000].max() < 1.01 / 255


def test_companded_values_fill_their_range():
    found = companded(jnp.asarray([[0, 255]]))
    np.testing.assert_allclose(found, [[-1, 1]])


def test_audio_of_another_dtype_raises():
    with pytest.raises(UserError, match=r"^audio must be int16, got float32"):
        values_of(np.zeros((1, 4), np.float32))
