"""The stages of models of images."""

import functools

import jax

from vqvae_jax import registry
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.codes import encode_images, second_training_stages
from vqvae_jax.pipeline.evaluate import evaluate_coded_images, evaluate_images
from vqvae_jax.pipeline.run import (
    Context,
    SecondStage,
    Stage,
    final_stages,
    sampling_stage,
    train_model,
    training_stage,
)
from vqvae_jax.pipeline.samples import draw_samples
from vqvae_jax.report.build import build_page, samples_section
from vqvae_jax.report.page import Section
from vqvae_jax.workdir import Workdir


def image_stages(experiment: Experiment) -> dict[str, Stage]:
    """Return the stages of a model without second stage, by name in order."""
    kind = experiment.kind
    return {
        kind: training_stage(kind, train_model),
        "samples": sampling_stage(sample_images),
        **final_stages(
            evaluate_images,
            functools.partial(_build_page, sections=_sections),
        ),
    }


def coded_image_stages(experiment: Experiment) -> dict[str, Stage]:
    """Return the stages of a model with codes and its second stage, in order."""
    kind = experiment.kind
    second: SecondStage = registry.load(experiment.second_spec.stage)
    return {
        kind: training_stage(kind, train_model),
        "codes": Stage(Workdir.has_codes, encode_images),
        **second_training_stages(experiment, second),
        **second.stages,
        "samples": sampling_stage(second.sample),
        **final_stages(
            functools.partial(evaluate_coded_images, second=second),
            functools.partial(_build_page, sections=second.sections),
        ),
    }


def sample_images(context: Context) -> None:
    """Draw images from a model without second stage, and write them."""
    model, params = context.workdir.restore()
    if model.traits.draws_logits:
        options = context.experiment.samples.draw_options_without_labels

        def draw(key, labels, progress):
            images = model.sample(
                params,
                key,
                num_samples=len(labels),
                progress=progress,
                **options,
            )
            return {"images": jax.device_get(images)}

        draw_samples(context, draw, classes=0, rows=model.image_shape[0])
        return

    sample = jax.jit(model.sample, static_argnames="num_samples")

    def draw_at_once(key, labels, progress):
        images = jax.device_get(sample(params, key, num_samples=len(labels)))
        return {"images": images}

    draw_samples(context, draw_at_once, classes=0, rows=1)


def _sections(context: Context) -> list[Section]:
    return [samples_section(context.workdir, "")]


def _build_page(context: Context, *, sections) -> str:
    return build_page(*context, sections=sections(context))
