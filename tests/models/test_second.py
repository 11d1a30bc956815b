"""The table of second stages: one follows a VQ-VAE, built for its codes."""

import jax
import pytest

from vqvae_jax.models import second

OPTIONS = {"layers": 1, "units": 4, "kernel_size": 3}
FACTS = {
    "grid": [4, 5, 1],
    "num_codes": 7,
    "class_names": ["a", "b"],
    "action_names": ["go", "stay"],
    "fingerprint": "0",
    "num_examples": 5,
}


def test_sizes_come_from_the_codes_and_options_from_the_section():
    (prior,) = second.models_of("prior", OPTIONS, FACTS).values()
    assert (prior.grid, prior.num_codes) == ((4, 5, 1), 7)
    assert prior.class_names == ("a", "b")
    assert (prior.layers, prior.units) == (1, 4)


@pytest.mark.parametrize("name", second.SECOND_STAGES)
def test_a_batch_initialises_every_model(name):
    """Only shapes: nothing is computed."""
    row = second.SECOND_STAGES[name]
    for model in second.models_of(name, {}, FACTS).values():
        jax.eval_shape(model.init, jax.random.key(0), row.batch(model))
