"""Pictures of a second VQ-VAE: frames from their own 27 bits, and from drawn ones."""

import jax
import numpy as np
from jaxtyping import Float

from vqvae_jax.data.source import read_many, spread, stack
from vqvae_jax.pipeline.samples import keep
from vqvae_jax.pipeline.stage import Context
from vqvae_jax.tasks.hierarchy.evaluation import encode_all
from vqvae_jax.workdir import restore, restore_second

# Whose latents frames are reconstructed from.
_MODELS = ("hierarchy", "hierarchy_vae")


def reconstruct(context: Context) -> None:
    """Draw test frames anew from their global latents, through both decoders.

    Writes `reconstructions.npz`: `frames` [N], which of the test split; `first_stage`,
    `hierarchy` and `hierarchy_vae`, uint8 images [N, H, W, C] of the first VQ-VAE and
    of codes drawn from the latents of each model.
    """
    workdir, experiment, _ = context
    model, params = restore(workdir.path)
    workdir.require_same_codebook(params)
    decode = jax.jit(model.decode)
    config, test = experiment.samples, workdir.codes("test")
    frames = np.array(spread(len(test), config.num_samples))
    starts = range(0, len(frames), config.batch_size)
    keys = jax.random.split(jax.random.key(experiment.seed + 2), len(starts))
    batches = [frames[start : start + config.batch_size] for start in starts]
    codes = [stack(read_many(test, batch.tolist()))["codes"] for batch in batches]
    images = {"first_stage": [np.asarray(decode(params, batch)) for batch in codes]}
    for stage in _MODELS:
        second, second_params = restore_second(workdir.path, stage)
        encode, images[stage] = jax.jit(second.encode), []
        for key, batch in zip(keys, codes, strict=True):
            latents = encode(second_params, batch)
            drawn = second.decode(second_params, key, latents, **config.without_labels)
            images[stage].append(np.asarray(decode(params, drawn)))
    arrays = {name: np.concatenate(parts) for name, parts in images.items()}
    workdir.write_arrays(workdir.reconstructions, frames=frames, **arrays)


def sample_global(context: Context) -> None:
    """Draw global codes, then codes, then look at them through the first decoder.

    The paper fits no prior to the global codes. Here each of them is drawn by how often
    it occurs in the train split, whatever the others are.
    """
    workdir, experiment, _ = context
    model, params = restore(workdir.path)
    workdir.require_same_codebook(params)
    decode = jax.jit(model.decode)
    second, second_params = restore_second(workdir.path, "hierarchy")
    train = encode_all(
        second, second_params, workdir.codes("train"), experiment.eval_batches
    )
    # Codes that never occur have no logarithm, and are never drawn.
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
            **experiment.samples.without_labels,
        )
        images = decode(params, codes)
        return jax.device_get(
            {"images": images, "codes": codes, "global_codes": latents}
        )

    keep(context, draw, classes=0, rows=second.grid[0])


def frequencies(latents: np.ndarray, *, num_codes: int) -> Float[np.ndarray, "L K"]:
    """Return how often each code of each latent occurs among codes [N, L]."""
    counts = [np.bincount(column, minlength=num_codes) for column in latents.T]
    return np.stack(counts) / len(latents)
