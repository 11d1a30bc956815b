"""The table of kinds: each is initialised from its shapes, and followed by its own."""

import jax
import pytest

from vqvae_jax.models import first, second
from vqvae_jax.runtime.errors import UserError

GIVEN = {
    "image_shape": (8, 8, 1),
    "class_names": (),
    "speaker_names": ("ann", "bob"),
}
PAIRS = [(kind, name) for kind, row in first.KINDS.items() for name in row.second]


@pytest.mark.parametrize("kind", first.KINDS)
def test_a_batch_initialises_every_kind(kind):
    """Only shapes: nothing is computed."""
    row = first.KINDS[kind]
    fields = row.model.__dataclass_fields__
    model = row.model(**{k: v for k, v in GIVEN.items() if k in fields})
    jax.eval_shape(model.init, jax.random.key(0), row.batch(model))


def test_every_second_stage_follows_one_kind():
    assert sorted(name for _, name in PAIRS) == sorted(second.SECOND_STAGES)


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_a_config_names_its_second_stage(kind, name):
    of_training = second.training_section(name)
    config = {"model": {}, name: {}, of_training: {}}
    assert first.second_of(kind, config) == name
    # What is missing is told by name elsewhere.
    assert first.second_of(kind, {of_training: {}}) == name


def test_what_needs_none_may_have_none():
    assert first.second_of("speech", {}) is None
    assert first.second_of("vae", {"prior": {}}) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "^prior is missing from the config; a vqvae is followed by exactly one"),
        ({"prior": {}, "video": {}}, "^prior and video are both in the config; a vq"),
        ({"prior": {}, "video_training": {}}, "^prior and video are both in"),
        ({"sequence_prior": {}}, "^prior is missing from the config"),
    ],
)
def test_none_and_two_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        first.second_of("vqvae", config)
