"""What is done after the codes: a row for each of the models' `SECOND_STAGES`."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from vqvae_jax.models import second as models
from vqvae_jax.pipeline.codes import (
    Examples,
    Start,
    as_it_is,
    clips,
    from_codebook,
    grids,
    train_on_codes,
)
from vqvae_jax.pipeline.evaluate import MeasureSecond, of_prior
from vqvae_jax.pipeline.samples import sample_codes
from vqvae_jax.pipeline.stage import Context, Stage
from vqvae_jax.report.build import Sections, sections_of_prior
from vqvae_jax.tasks.hierarchy.evaluation import of_hierarchy
from vqvae_jax.tasks.hierarchy.report import sections_of_hierarchy
from vqvae_jax.tasks.hierarchy.stages import reconstruct, sample_global
from vqvae_jax.tasks.video.evaluation import of_video
from vqvae_jax.tasks.video.report import sections_of_video
from vqvae_jax.tasks.video.stages import sample_video
from vqvae_jax.training.early_stopping import is_marked
from vqvae_jax.workdir import Workdir


class SecondStage(NamedTuple):
    """How the models of a second stage are trained, sampled from, measured and shown.

    stages: those between `codes` and `samples`, that train them and so on.
    sample: writes `samples.npz`.
    measure: what they add to the results.
    sections: what they add to the report.
    """

    stages: Mapping[str, Stage]
    sample: Callable[[Context], None]
    measure: MeasureSecond
    sections: Sections


def training_stages(
    second: str, examples: Examples = grids, start: Start = as_it_is
) -> dict[str, Stage]:
    """Return a stage for each model of a second stage, trained on these examples."""

    def stage(name: str) -> Stage:
        def is_done(workdir: Workdir) -> bool:
            return is_marked(workdir.checkpoints(name))

        return Stage(
            is_done,
            functools.partial(
                train_on_codes, stage=name, examples=examples, start=start
            ),
        )

    return {name: stage(name) for name in models.SECOND_STAGES[second].trained}


SECOND_STAGES: dict[str, SecondStage] = {
    "prior": SecondStage(
        stages=training_stages("prior"),
        sample=sample_codes,
        measure=of_prior,
        sections=sections_of_prior,
    ),
    "hierarchy": SecondStage(
        stages={
            **training_stages("hierarchy"),
            "reconstructions": Stage(
                lambda workdir: workdir.reconstructions.exists(), reconstruct
            ),
        },
        sample=sample_global,
        measure=of_hierarchy,
        sections=sections_of_hierarchy,
    ),
    "video": SecondStage(
        stages=training_stages("video", clips, from_codebook),
        sample=sample_video,
        measure=of_video,
        sections=sections_of_video,
    ),
}
