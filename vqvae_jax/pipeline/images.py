"""The stages of models of images, and the prior as a second stage."""

import functools

import jax

from vqvae_jax import registry
from vqvae_jax.data.source import Source
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.codes import (
    encode_images,
    second_training_stages,
    start_from_codebook,
)
from vqvae_jax.pipeline.evaluate import (
    SecondResults,
    evaluate_coded_images,
    evaluate_images,
    evaluate_prior_bits,
)
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
from vqvae_jax.runtime import distributed
from vqvae_jax.training import sharding
from vqvae_jax.workdir import SPLITS, Workdir


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
    draws_logits = model.traits.draws_logits
    shaping = context.experiment.samples.draw_options_without_labels
    # Models that draw pixel by pixel compile their own loop, and report its rows.
    sample = model.sample
    if not draws_logits:
        sample = jax.jit(sample, static_argnames="num_samples")

    def draw(key, labels, progress):
        options = {"progress": progress, **shaping} if draws_logits else {}
        images = sample(params, key, num_samples=len(labels), **options)
        return {"images": jax.device_get(images)}

    rows = model.image_shape[0] if draws_logits else 1
    draw_samples(context, draw, classes=0, rows=rows)


def sample_prior(context: Context) -> None:
    """Draw class-conditional codes from the prior, decode them, and write both."""
    workdir, config = context.workdir, context.experiment.samples
    model, params = workdir.restore()
    prior, prior_params = workdir.restore("prior")
    workdir.require_same_codebook(model, params)
    mesh = sharding.data_mesh()
    splits_evenly = config.batch_size % mesh.size == 0
    params, prior_params = sharding.put_replicated((params, prior_params), mesh)
    decode = jax.jit(model.decode)

    def draw(key, labels, progress):
        if splits_evenly:
            rows = {"label": distributed.own_rows(labels)}
            labels = sharding.put_batch(rows, mesh)["label"]
        codes = prior.sample(
            prior_params,
            key,
            labels=labels if prior.num_classes else None,
            num_samples=config.batch_size,
            progress=progress,
            **config.draw_options,
        )
        return distributed.whole({"images": decode(params, codes), "codes": codes})

    draw_samples(context, draw, classes=prior.num_classes, rows=prior.grid[0])


def evaluate_prior(context: Context) -> SecondResults:
    """Evaluate the prior on the codes of every split."""
    workdir, experiment, _ = context
    prior, params = workdir.restore("prior")
    params = sharding.put_replicated(params, sharding.data_mesh())
    sources: dict[str, Source] = {split: workdir.codes(split) for split in SPLITS}
    return evaluate_prior_bits(prior, params, sources, workdir, experiment)


def prior_sections(context: Context) -> list[Section]:
    """Return the report's section of samples."""
    return [samples_section(context.workdir, "Codes drawn from the prior, decoded.")]


def _sections(context: Context) -> list[Section]:
    return [samples_section(context.workdir, "")]


def _build_page(context: Context, *, sections) -> str:
    return build_page(*context, sections=sections(context))


PRIOR = SecondStage(
    sample=sample_prior,
    evaluate=evaluate_prior,
    sections=prior_sections,
    start=start_from_codebook,
)
