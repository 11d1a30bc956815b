"""The second VQ-VAE as a second stage: frames from 27 bits, encoded or drawn."""

import jax
import numpy as np
from jaxtyping import Float

from vqvae_jax.data.source import evenly_spaced, read_many, stack
from vqvae_jax.pipeline.run import Context, SecondStage, Stage
from vqvae_jax.pipeline.samples import draw_samples
from vqvae_jax.tasks.hierarchy.evaluation import encode_all, evaluate_hierarchy
from vqvae_jax.tasks.hierarchy.report import hierarchy_sections

# Models with latents, from which frames are reconstructed.
_MODELS = ("hierarchy", "hierarchy_vae")


def reconstruct(context: Context) -> None:
    """Reconstruct test frames from their global latents, through both decoders.

    Writes `reconstructions.npz`: `frames` [N], indices in the test split;
    `first_stage`, `hierarchy` and `hierarchy_vae`, uint8 images [N, H, W, C] of the
    first VQ-VAE and of codes drawn given the latents of each model.
    """
    workdir, experiment, _ = context
    model, params = workdir.restore()
    workdir.require_same_codebook(model, params)
    decode = jax.jit(model.decode)
    config, test = experiment.samples, workdir.codes("test")
    frames = np.array(evenly_spaced(len(test), config.num_samples))
    starts = range(0, len(frames), config.batch_size)
    keys = jax.random.split(jax.random.key(experiment.seed + 2), len(starts))
    batches = [frames[start : start + config.batch_size] for start in starts]
    codes = [stack(read_many(test, batch.tolist()))["codes"] for batch in batches]
    images = {"first_stage": [np.asarray(decode(params, batch)) for batch in codes]}
    for stage in _MODELS:
        second, second_params = workdir.restore(stage)
        encode, images[stage] = jax.jit(second.encode), []
        for key, batch in zip(keys, codes, strict=True):
            latents = encode(second_params, batch)
            drawn = second.decode(
                second_params, key, latents, **config.draw_options_without_labels
            )
            images[stage].append(np.asarray(decode(params, drawn)))
    arrays = {name: np.concatenate(parts) for name, parts in images.items()}
    workdir.write_arrays(workdir.reconstructions, frames=frames, **arrays)


def sample_global(context: Context) -> None:
    """Draw global codes, then codes given them, and decode these to images.

    The paper fits no prior to the global codes. Here each is drawn independently, with
    its frequency in the train split.
    """
    workdir, experiment, _ = context
    model, params = workdir.restore()
    workdir.require_same_codebook(model, params)
    decode = jax.jit(model.decode)
    second, second_params = workdir.restore("hierarchy")
    train = encode_all(
        second, second_params, workdir.codes("train"), experiment.eval_batches
    )
    # Codes that never occur have a logit of -inf.
    with np.errstate(divide="ignore"):
        logits = np.log(frequencies(train, num_codes=second.latent_codes))

    def draw(key, labels, progress):
        latent_key, key = jax.random.split(key)
        shape = (len(labels), second.latents)
        latents = jax.random.categorical(latent_key, logits[None], shape=shape)
        codes = second.decode(
            second_params,
            key,
            latents,
            progress=progress,
            **experiment.samples.draw_options_without_labels,
        )
        images = decode(params, codes)
        return jax.device_get(
            {"images": images, "codes": codes, "global_codes": latents}
        )

    draw_samples(context, draw, classes=0, rows=second.grid[0])


def frequencies(latents: np.ndarray, *, num_codes: int) -> Float[np.ndarray, "L K"]:
    """Return the frequency of each code of each latent among codes [N, L]."""
    counts = [np.bincount(column, minlength=num_codes) for column in latents.T]
    return np.stack(counts) / len(latents)


HIERARCHY = SecondStage(
    sample=sample_global,
    evaluate=evaluate_hierarchy,
    sections=hierarchy_sections,
    stages={
        "reconstructions": Stage(
            lambda workdir: workdir.reconstructions.exists(), reconstruct
        )
    },
)
