"""The prior as the second stage of a VQ-VAE of images."""

import jax

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.data.source import Source
from vqvae_jax.pipeline.evaluate import SecondResults, evaluate_prior_bits
from vqvae_jax.pipeline.run import Context, SecondStage
from vqvae_jax.pipeline.samples import draw_samples
from vqvae_jax.report.build import samples_section
from vqvae_jax.report.page import Section
from vqvae_jax.runtime import distributed
from vqvae_jax.training import sharding
from vqvae_jax.workdir import SPLITS


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
    results, test_sums = evaluate_prior_bits(
        prior, params, sources, workdir, experiment
    )
    return SecondResults(results, metrics_lib.each(test_sums)["bits"])


def prior_sections(context: Context) -> list[Section]:
    """Return the report's section of samples."""
    return [samples_section(context.workdir, "Codes drawn from the prior, decoded.")]


PRIOR = SecondStage(
    sample=sample_prior, evaluate=evaluate_prior, sections=prior_sections
)
