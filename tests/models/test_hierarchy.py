"""The second VQ-VAE: its loss term by term, its codebooks, and that it is listened to."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vqvae_jax.errors import UserError
from vqvae_jax.models.hierarchy import Hierarchy
from vqvae_jax.training.state import Model, init_state, make_train_step

SMALL = {
    "grid": (4, 5, 1),
    "num_codes": 6,
    "latents": 3,
    "dim": 2,
    "stages": 1,
    "encoder_units": 8,
    "residual_blocks": 1,
    "residual_units": 4,
    "map_features": 6,
    "layers": 2,
    "units": 8,
    "kernel_size": 3,
    "latent_codes": 4,
}


def make(**changes):
    return Hierarchy(**SMALL | changes)


@pytest.fixture(scope="module")
def batch():
    codes = jax.random.randint(jax.random.key(3), (8, 4, 5, 1), 0, 6)
    return {"codes": codes, "mask": jnp.arange(8) < 6}


@pytest.fixture(scope="module")
def params(batch):
    return jax.jit(make().init)(jax.random.key(0), batch)


def oracle(model, params, batch):
    """Nearest codes and both distances of equation 3 in NumPy, float64."""
    encode = jax.jit(model._encoder_to(1).apply)
    z_e = np.float64(encode(params.encoder, batch["codes"])).reshape(8, 3, 2)
    rows = np.float64(params.codebook.embeddings)
    squared = ((z_e[:, :, None] - rows[None]) ** 2).sum(-1)
    return squared.argmin(-1), squared.min(-1)


def test_27_bits():
    assert make(latent_codes=512).bits_per_frame == 27
    assert isinstance(make(), Model)


@pytest.mark.parametrize("update", ["loss", "ema"])
def test_loss_is_equation_3_of_frames(params, batch, update):
    model = make(codebook_update=update, beta=0.5)
    loss, (metrics, carry) = jax.jit(model.loss)(params, jax.random.key(1), batch)
    codes, squared = oracle(model, params, batch)
    np.testing.assert_array_equal(jax.jit(model.encode)(params, batch["codes"]), codes)
    np.testing.assert_array_equal(carry.codes, codes)
    nats = -np.float64(jax.jit(model.log_prob)(params, batch["codes"], codes))
    weight = 0.5 + (update == "loss")
    # Padding does not count; the frame is a sum over codes, the latents a mean.
    expected = (nats + weight * squared.mean(axis=1))[:6].mean() / 20
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    bits = nats[:6].mean() / 20 / math.log(2)
    assert float(metrics["bits_per_code"].total / 6) == pytest.approx(bits, rel=1e-5)
    evaluated = jax.jit(model.evaluate)(params, batch)
    assert float(evaluated["loss"].total / 6) == pytest.approx(expected, rel=1e-5)
    counts = [np.bincount(column, minlength=4) for column in codes[:6].T]
    np.testing.assert_array_equal(evaluated["usage"].counts, counts)


def test_each_term_trains_its_own(params, batch):
    """Reconstruction: all but the codebook; beta: the encoder; the loss: the table."""

    @jax.jit
    def gradients(params):
        def sums(params):
            _, terms, _ = make()._forward(params, batch)
            return {name: term.sum() for name, term in terms.items()}

        return jax.jacrev(sums)(params)

    found = gradients(params)
    reached = {
        term: {
            part
            for part, leaves in gradient._asdict().items()
            if any(np.any(leaf) for leaf in jax.tree.leaves(leaves))
        }
        for term, gradient in found.items()
    }
    assert reached == {
        "reconstruction": {"encoder", "to_map", "pixelcnn"},
        "codebook": {"codebook"},
        "commitment": {"encoder"},
    }


def test_starts_from_kmeans_of_the_batch(params, batch):
    """Six frames and four codes: each code is the mean of the frames that use it."""
    encode = jax.jit(make()._encoder_to(1).apply)
    z_e = np.asarray(encode(params.encoder, batch["codes"])).reshape(8, 3, 2)[:6]
    codes, _ = oracle(make(), params, batch)
    for group in range(3):
        for code in np.unique(codes[:6, group]):
            mean = z_e[codes[:6, group] == code, group].mean(axis=0)
            row = params.codebook.embeddings[group, code]
            np.testing.assert_allclose(row, mean, rtol=1e-4, atol=1e-5)


def test_ema_moves_the_codebook_and_nothing_else(params, batch):
    model = make(codebook_update="ema", restart_below=0.5)
    assert model.trainable(params).codebook == (False, False, False)
    assert make().trainable(params).codebook == (True, False, False)
    _, (_, carry) = jax.jit(model.loss)(params, jax.random.key(1), batch)
    updated = jax.jit(model.update)(params, jax.random.key(2), carry)
    assert not np.array_equal(updated.codebook.sums, params.codebook.sums)
    for part in ("encoder", "to_map", "pixelcnn"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(updated, part), getattr(params, part)
        )


def test_latent_codes_that_cannot_be():
    with pytest.raises(UserError, match="^latent_codes must be at least 1, got 0"):
        make(latent_codes=0)
    with pytest.raises(UserError, match="^codebook_update must be one of"):
        make(codebook_update="never")


def test_learns_to_use_its_latents():
    """Eight frames of noise: nothing but the latents tells which one it is."""
    model = make(
        latent_codes=8,
        codebook_update="ema",
        restart_below=0.05,
        encoder_units=16,
        units=16,
        layers=1,
    )
    codes = jax.random.randint(jax.random.key(3), (8, 4, 5, 1), 0, 6)
    batch = {"codes": codes, "mask": jnp.ones(8, bool)}
    optimizer = optax.adam(1e-2)
    state = jax.jit(lambda k: init_state(model, optimizer, k, batch))(jax.random.key(0))
    step = jax.jit(make_train_step(model, optimizer))
    for _ in range(60):
        state, _ = step(state, batch)
    encode, log_prob = jax.jit(model.encode), jax.jit(model.log_prob)
    latents = encode(state.params, codes)
    assert len(np.unique(latents, axis=0)) >= 6
    right = -log_prob(state.params, codes, latents).mean() / math.log(2)
    other = -log_prob(state.params, codes, jnp.roll(latents, 1, 0)).mean() / math.log(2)
    assert other > right + 20
