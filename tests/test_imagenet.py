"""The ImageNet experiment: sizes of section 4.2, and training steps at full size."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import metrics
from vqvae_jax.experiment import Experiment
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.config import make_optimizer
from vqvae_jax.training.step import init_state, make_train_step

CLASSES = tuple(f"class {label}" for label in range(1000))


@pytest.fixture(scope="module")
def paper(make_config) -> Experiment:
    return Experiment.from_config(make_config("imagenet", {}))


def prior_of(paper):
    """Return the prior over the codes of all classes."""
    model = paper.model
    sizes = {"grid": model.grid, "num_codes": model.num_codes}
    return paper.second_models({**sizes, "class_names": CLASSES})["prior"]


def first_step(model, training, batch):
    """Return the first step's metrics, and the largest change of each parameter."""
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    optimizer = make_optimizer(training, model.trainable(params))

    @jax.jit
    def run(key, batch):
        before = init_state(model, optimizer, key, batch)
        state, values = make_train_step(model, optimizer)(before, batch)
        # One number per leaf: a copy of the parameters would take half a gigabyte.
        moved = jax.tree.map(
            lambda a, b: jnp.abs(a - b).max(), before.params, state.params
        )
        finite = jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), state.params)
        return values, moved, finite

    values, moved, finite = run(jax.random.key(0), batch)
    assert all(jax.tree.leaves(finite))
    return metrics.compute(values), moved


def test_sizes_are_those_of_section_4_2(paper):
    """128x128x3 bytes become 32x32 codes of 9 bits: 42.67 times fewer bits."""
    model = paper.model
    assert (model.image_shape, model.grid) == ((128, 128, 3), (32, 32, 1))
    for network in (model.encoder, model.decoder):
        assert (network.channels, network.residual_channels) == (256, 256)
    assert (model.num_codes, model.likelihood) == (512, "mse")
    quantizer = model.quantizer
    assert (quantizer.codebook_update, quantizer.beta) == ("loss", 0.25)
    assert (paper.training.batch_size, paper.training.learning_rate) == (128, 2e-4)
    bits = 8 * model.num_dims, model.num_latents * math.log2(model.num_codes)
    assert bits == (393_216, 9216)
    assert bits[0] / bits[1] == pytest.approx(42.67, abs=0.01)


@pytest.mark.parametrize("variant", ["imagenette", "folder"])
def test_variants_with_other_data_have_the_same_model(paper, make_config, variant):
    config = make_config(f"imagenet:{variant}", {"data.data_dir": "images"})
    assert Experiment.from_config(config).model == paper.model


@pytest.mark.parametrize("variant", ["folder", "small"])
def test_an_empty_data_dir_raises_with_its_key(make_config, variant):
    config = make_config(f"imagenet:{variant}", {})
    with pytest.raises(UserError, match=r"^data\.data_dir is empty; .*train/<class>"):
        Experiment.from_config(config)


@pytest.mark.slow
def test_training_step_of_the_vqvae_at_full_size(paper):
    images = np.random.default_rng(0).integers(256, size=(1, 128, 128, 3))
    batch = {"image": jnp.asarray(images, "uint8"), "mask": jnp.ones(1, bool)}
    values, moved = first_step(paper.model, paper.training, batch)
    # Uniform noise on -1 ... 1 and outputs near 0 give 1/3 over 2 * 0.5^2, or more.
    assert 2 / 3 < values["reconstruction"] < 1
    assert all(step > 0 for step in jax.tree.leaves(moved[:2]))


@pytest.mark.slow
def test_training_step_of_the_prior_at_full_size(paper):
    model = paper.model
    prior = prior_of(paper)
    codes = np.random.default_rng(0).integers(512, size=(1, *model.grid))
    batch = {
        "codes": jnp.asarray(codes, "int32"),
        "label": jnp.array([999]),
        "mask": jnp.ones(1, bool),
    }
    values, _ = first_step(prior, paper.second_training, batch)
    assert values["bits_per_code"] == pytest.approx(9, abs=3)
    assert values["gradient_norm"] > 0


@pytest.mark.slow
def test_sampling_a_grid_at_full_size(paper):
    model = paper.model
    prior = prior_of(paper)
    batch = {"codes": jnp.zeros((1, *model.grid), int), "label": jnp.zeros(1, int)}
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.random(leaf.shape, np.float32) - 0.5) * 0.05,
        jax.eval_shape(prior.init, jax.random.key(0), batch),
    )
    rows = []
    codes = prior.sample(
        params,
        jax.random.key(0),
        labels=np.array([7]),
        progress=lambda row: rows.append(int(row)),
    )
    jax.effects_barrier()
    assert codes.shape == (1, *model.grid)
    assert 0 <= codes.min() < codes.max() < model.num_codes
    assert len(np.unique(codes)) > 100
    assert rows == list(range(1, 33))
