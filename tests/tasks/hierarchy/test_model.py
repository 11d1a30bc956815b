"""The second VQ-VAE: its loss, its codebooks, and that it uses its latents."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import changed

from vqvae_jax.networks.pixelcnn import PixelCNN
from vqvae_jax.quantizers import VQ
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.hierarchy.global_latents import GlobalDecoder, GlobalEncoder
from vqvae_jax.tasks.hierarchy.model import Hierarchy
from vqvae_jax.training.step import init_state, make_train_step

SMALL = {
    "channels": 8,
    "num_downsamples": 1,
    "residual_blocks": 0,
    "residual_channels": 4,
}
MODEL = Hierarchy(
    grid=(4, 5, 1),
    num_codes=6,
    quantizer=VQ(num_codebooks=3, num_codes=4, dim=2),
    encoder=GlobalEncoder(**SMALL),
    to_map=GlobalDecoder(out_channels=6, **SMALL),
    pixelcnn=PixelCNN(layers=1, channels=8, kernel_size=3),
)


@pytest.fixture(scope="module")
def batch():
    codes = jax.random.randint(jax.random.key(3), (8, 4, 5, 1), 0, 6)
    return {"codes": codes, "mask": jnp.arange(8) < 6}


@pytest.fixture(scope="module")
def params(batch):
    return jax.jit(MODEL.init)(jax.random.key(0), batch)


@pytest.fixture(scope="module")
def measured(params, batch):
    """The results of all methods on one batch, compiled once."""
    model = changed(MODEL, {"quantizer.beta": 0.5})

    @jax.jit
    def measure(params, batch):
        codes = model.encode(params, batch["codes"])
        return {
            "z_e": model._encoder_to(1).apply(params.encoder, batch["codes"]),
            "codes": codes,
            "nats": -model.log_prob(params, batch["codes"], codes),
            "loss": model.loss(params, jax.random.key(1), batch),
            "evaluated": model.evaluate(params, batch),
        }

    return jax.device_get(measure(params, batch))


def test_the_papers_latents_have_27_bits():
    assert Hierarchy(grid=(21, 21, 1), num_codes=512).bits_per_frame == 27


def test_loss_is_equation_3_of_whole_frames(params, measured):
    """Against NumPy; the last two frames are padding and do not count."""
    z_e = np.float64(measured["z_e"]).reshape(8, 3, 2)
    rows = np.float64(params.quantizer.embeddings)
    squared = ((z_e[:, :, None] - rows[None]) ** 2).sum(-1)
    codes, squared = squared.argmin(-1), squared.min(-1)
    np.testing.assert_array_equal(measured["codes"], codes)
    loss, (metrics, carry) = measured["loss"]
    np.testing.assert_array_equal(carry.codes, codes)
    # The frame is a sum over its 20 codes, the latents' terms are means over the 3.
    nats = np.float64(measured["nats"])
    expected = (nats + (1 + 0.5) * squared.mean(axis=1))[:6].mean() / 20
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    bits = nats[:6].mean() / 20 / math.log(2)
    assert float(metrics["bits_per_code"].total / 6) == pytest.approx(bits, rel=1e-5)
    evaluated = measured["evaluated"]
    assert float(evaluated["loss"].total / 6) == pytest.approx(expected, rel=1e-5)
    counts = [np.bincount(column, minlength=4) for column in codes[:6].T]
    np.testing.assert_array_equal(evaluated["usage"].counts, counts)


def test_each_term_of_the_loss_has_its_own_gradient(params, batch):
    """Only the codebook term reaches the codebook."""

    @jax.jit
    def gradients(params):
        def sums(params):
            _, terms, _ = MODEL._forward(params, batch)
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
        "codebook": {"quantizer"},
        "commitment": {"encoder"},
    }


def test_init_fits_the_codebooks_to_the_batch(params, measured):
    """Each code is the mean of the frames that use it, of six frames and four codes."""
    z_e = np.asarray(measured["z_e"]).reshape(8, 3, 2)[:6]
    codes = measured["codes"][:6]
    for group in range(3):
        for code in np.unique(codes[:, group]):
            mean = z_e[codes[:, group] == code, group].mean(axis=0)
            row = params.quantizer.embeddings[group, code]
            np.testing.assert_allclose(row, mean, rtol=1e-4, atol=1e-5)


def test_ema_moves_the_codebooks_and_nothing_else(params, measured):
    model = changed(
        MODEL,
        {"quantizer.codebook_update": "ema", "quantizer.dead_code_threshold": 0.5},
    )
    assert model.trainable(params).quantizer == (False, False, False)
    assert MODEL.trainable(params).quantizer == (True, False, False)
    _, (_, carry) = measured["loss"]
    updated = jax.jit(model.update)(params, jax.random.key(2), carry)
    assert not np.array_equal(updated.quantizer.sums, params.quantizer.sums)
    untouched = params._replace(quantizer=None)
    jax.tree.map(
        np.testing.assert_array_equal, updated._replace(quantizer=None), untouched
    )


def test_a_single_latent_code_raises():
    """It has no bits, and the evaluation divides by them."""
    with pytest.raises(UserError, match=r"quantizer.num_codes must be >= 2, got 1"):
        changed(MODEL, {"quantizer.num_codes": 1})


@pytest.mark.slow
def test_learns_to_use_its_latents():
    """Eight frames of noise, which only the latents can distinguish."""
    model = changed(
        MODEL,
        {
            "quantizer.num_codes": 8,
            "quantizer.codebook_update": "ema",
            "quantizer.dead_code_threshold": 0.05,
            "encoder.channels": 16,
            "to_map.channels": 16,
            "pixelcnn.channels": 16,
        },
    )
    codes = jax.random.randint(jax.random.key(3), (8, 4, 5, 1), 0, 6)
    batch = {"codes": codes, "mask": jnp.ones(8, bool)}
    optimizer = optax.adam(1e-2)
    state = jax.jit(lambda k: init_state(model, optimizer, k, batch))(jax.random.key(0))
    step = jax.jit(make_train_step(model, optimizer))
    for _ in range(60):
        state, _ = step(state, batch)
    latents = jax.jit(model.encode)(state.params, codes)
    assert len(np.unique(latents, axis=0)) >= 6
    log_prob = jax.jit(model.log_prob)
    right, other = (
        -float(log_prob(state.params, codes, z).mean()) / math.log(2)
        for z in (latents, jnp.roll(latents, 1, axis=0))
    )
    assert other > right + 20
