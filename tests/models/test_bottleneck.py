"""The choice of what moves codebooks; each choice itself is tested in `quantizer`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizers
from vqvae_jax.models.bottleneck import Bottleneck, Carry, shared_options
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.runtime.errors import UserError

OPTIONS = {
    "num_codes": 4,
    "num_codebooks": 2,
    "dim": 3,
    "beta": 0.5,
    "codebook_update": "loss",
    "ema_decay": 0.75,
    "codebook_init": "uniform",
    "restart_below": 0.0,
}
TERMS = {"codebook": jnp.array([1.0, 2.0]), "commitment": jnp.array([10.0, 20.0])}


def make(**changes):
    return Bottleneck(**OPTIONS | changes)


def test_codebook_loss_counts_where_it_moves_the_codebook():
    assert make().objective(TERMS).tolist() == [6.0, 12.0]
    assert make(codebook_update="ema").objective(TERMS).tolist() == [5.0, 10.0]
    assert make().trainable() == (True, False, False)
    assert make(codebook_update="ema").trainable() == (False, False, False)


def test_starts_from_kmeans_or_without_a_look_at_the_data():
    def never():
        raise AssertionError

    keys, mask = jax.random.split(jax.random.key(0)), jnp.ones(4, bool)
    uniform = make().init(*keys, never, mask)
    assert np.abs(uniform.embeddings).max() <= 1 / 4
    z_e = jax.random.normal(jax.random.key(1), (4, 6)) + 5
    fitted = make(codebook_init="kmeans").init(*keys, lambda: z_e, mask)
    # Four vectors for four codes: each code is one of them, group by group.
    for group in range(2):
        rows = sorted(map(tuple, np.asarray(fitted.embeddings[group])))
        vectors = sorted(map(tuple, np.asarray(z_e[:, 3 * group : 3 * group + 3])))
        np.testing.assert_allclose(rows, vectors, rtol=1e-6)


def test_update_is_ema_or_count_and_restarts_on_demand():
    codebook = quantizers.init(jax.random.key(0), num_codes=4, dim=3, num_codebooks=2)
    z_e = jax.random.normal(jax.random.key(1), (5, 6))
    codes = jnp.zeros((5, 2), jnp.int32)
    carry = Carry(z_e, codes, jnp.array([True, True, False, True, True]))
    kept = make().update(codebook, jax.random.key(2), carry)
    np.testing.assert_array_equal(kept.embeddings, codebook.embeddings)
    np.testing.assert_allclose(kept.counts[:, 0], 0.75 + 0.25 * 4)
    moved = make(codebook_update="ema").update(codebook, jax.random.key(2), carry)
    sums = 0.25 * np.delete(np.asarray(z_e), 2, axis=0)[:, :3].sum(0)
    expected = (0.75 * np.asarray(codebook.embeddings[0, 0]) + sums) / 1.75
    np.testing.assert_allclose(moved.embeddings[0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(
        moved.embeddings[:, 1:], codebook.embeddings[:, 1:], rtol=1e-5
    )
    restarted = make(restart_below=0.8).update(codebook, jax.random.key(2), carry)
    vectors = np.delete(np.asarray(z_e), 2, axis=0)[:, 3:]
    for row in np.asarray(restarted.embeddings[1, 1:]):
        assert np.abs(vectors - row).max(axis=1).min() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "^dim must be at least 1, got 0"),
        ({"beta": -0.1}, "^beta must be at least 0"),
        ({"ema_decay": 1.0}, r"^ema_decay must be in \[0, 1\)"),
        ({"codebook_update": "sgd"}, "^codebook_update must be one of loss, ema"),
        ({"codebook_init": "zeros"}, "^codebook_init must be one of kmeans"),
    ],
)
def test_mistakes_are_told(changes, message):
    with pytest.raises(UserError, match=message):
        make(**changes)


def test_options_of_a_model_are_taken_by_name():
    model = VQVAE(image_shape=(8, 8, 1), **OPTIONS)
    assert Bottleneck(**shared_options(model)) == make()
