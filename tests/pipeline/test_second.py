"""Both tables of second stages have the same rows."""

from vqvae_jax.models import second as models
from vqvae_jax.models.first import KINDS
from vqvae_jax.pipeline import second, stages_of


def test_rows_are_those_of_the_models():
    assert tuple(second.SECOND_STAGES) == KINDS["vqvae"].second
    for name, row in second.SECOND_STAGES.items():
        trained = list(models.SECOND_STAGES[name].trained)
        assert list(row.stages)[: len(trained)] == trained
        expected = ["vqvae", "codes", *row.stages, "samples", "evaluate", "report"]
        assert list(stages_of("vqvae", name)) == expected


def test_other_kinds_are_followed_by_nothing():
    assert list(stages_of("vae", None)) == ["vae", "samples", "evaluate", "report"]
