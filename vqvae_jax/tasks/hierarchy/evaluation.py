"""Bits per frame that measure whether a decoder uses its latents (section 4.2).

The PixelCNN scores each test frame's codes given the frame's latents and given those of
another frame. A PixelCNN of the same size, trained without latents, scores them too.
All three agree if the decoder ignores its latents, after posterior collapse. The
continuous VAE with the same networks is a baseline.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Shaped

from vqvae_jax import image_quality
from vqvae_jax import metrics as metrics_lib
from vqvae_jax.data.source import (
    Batch,
    Source,
    permutation,
    read_many,
    stack,
)
from vqvae_jax.pipeline.evaluate import LEARNED, Results, SecondResults
from vqvae_jax.pipeline.run import Context
from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.safe_io import read_arrays
from vqvae_jax.training import sharding
from vqvae_jax.training.loop import make_evaluation
from vqvae_jax.workdir import Workdir

# The arrays of `reconstructions.npz`: images decoded from global codes, and the indices
# of their frames.
RECONSTRUCTIONS = {
    "frames": "i N",
    "first_stage": "u N H W C",
    "hierarchy": "u N H W C",
    "hierarchy_vae": "u N H W C",
}

InBatches = Callable[[Source], Iterator[Batch]]


class LatentUse(NamedTuple):
    """Bits per frame of p(codes | latents), without the bits of the latents.

    right: given each frame's own latents.
    other: given those of another frame.
    """

    right: float
    other: float


def evaluate_hierarchy(context: Context) -> SecondResults:
    """Evaluate the second VQ-VAE, the VAE and the PixelCNN without latents."""
    workdir, experiment, dataset = context
    test = workdir.codes("test")
    mesh = sharding.data_mesh()
    values, uses = {}, {}
    for stage in ("hierarchy", "hierarchy_vae", "hierarchy_without_latents"):
        model, params = workdir.restore(stage)
        params = sharding.put_replicated(params, mesh)
        evaluation = make_evaluation(model.evaluate, mesh)
        sums = evaluation(params, experiment.eval_batches(test))
        values[stage] = metrics_lib.compute(sums)
        if stage != "hierarchy_without_latents":
            uses[stage] = latent_use(model, params, test, experiment.eval_batches)
    hierarchy = experiment.second_models(vars(test.metadata))["hierarchy"]
    vqvae, vae = uses["hierarchy"], uses["hierarchy_vae"]
    rate, kl = hierarchy.bits_per_frame, values["hierarchy_vae"]["kl_bits_per_frame"]
    bits_per_code = values["hierarchy_without_latents"]["bits_per_code"]
    results = {
        "global_codes": hierarchy.latents,
        "global_bits_per_frame": rate,
        "global_compression_ratio": 8 * experiment.model.num_dims / rate,
        "global_codebook_perplexity": values["hierarchy"]["codebook_perplexity"],
        "global_codebook_active_codes": int(
            values["hierarchy"]["codebook_active_codes"]
        ),
        "global_codebook_codes": hierarchy.latents * hierarchy.latent_codes,
        "decoder_bits_per_frame_right_latents": vqvae.right,
        "decoder_bits_per_frame_other_latents": vqvae.other,
        "decoder_bits_per_frame_without_latents": (
            bits_per_code * hierarchy.codes_per_frame
        ),
        "latent_margin_bits_per_frame": vqvae.other - vqvae.right,
        "total_bits_per_frame": rate + vqvae.right,
        "vae_decoder_bits_per_frame_right_latents": vae.right,
        "vae_decoder_bits_per_frame_other_latents": vae.other,
        "vae_latent_margin_bits_per_frame": vae.other - vae.right,
        "vae_kl_bits_per_frame": kl,
        "vae_total_bits_per_frame": kl + vae.right,
        "prior_bits_per_code": bits_per_code,
        **reconstruction_quality(workdir, dataset.test),
    }
    # The model evaluated last, without latents, is a prior over the codes.
    return SecondResults(results, {LEARNED: metrics_lib.each(sums)["bits"]})


def latent_use(
    model: Any, params: Any, source: Source, in_batches: InBatches
) -> LatentUse:
    """Evaluate a model of global latents on all frames of a source.

    `in_batches` iterates over a source once, as `Experiment.eval_batches` does.

    Raises:
      UserError: there are fewer than two frames.
    """
    latents = encode_all(model, params, source, in_batches)
    mesh = sharding.data_mesh()
    params = sharding.put_replicated(params, mesh)

    def bits_of_batch(params, batch):
        nats = -model.log_prob(params, batch["codes"], batch["latents"])
        return {"bits": metrics_lib.mean(nats / math.log(2), batch["mask"])}

    score = jax.jit(bits_of_batch, out_shardings=sharding.replicated(mesh))

    def bits(latents) -> float:
        batches = in_batches(_Paired(source, latents))
        on_devices = (sharding.put_batch(batch, mesh) for batch in batches)
        sums = metrics_lib.total(score(params, batch) for batch in on_devices)
        return metrics_lib.compute(sums)["bits"]

    return LatentUse(bits(latents), bits(latents[derangement(len(source))]))


def encode_all(
    model: Any, params: Any, source: Source, in_batches: InBatches
) -> Shaped[np.ndarray, "N ..."]:
    """Return the latents of all frames of a source, in order."""
    mesh = sharding.data_mesh()
    params = sharding.put_replicated(params, mesh)
    encode = jax.jit(model.encode, out_shardings=sharding.replicated(mesh))

    def batches() -> Iterator[np.ndarray]:
        for batch in in_batches(source):
            latents = encode(params, sharding.put_batch(batch, mesh)["codes"])
            yield np.asarray(latents)[distributed.whole(batch["mask"])]

    return np.concatenate(list(batches()))


def derangement(n: int) -> Int[np.ndarray, " n"]:
    """Return a fixed random cyclic permutation of n items.

    It is not a shift by one because successive frames of a walk look similar.

    Raises:
      UserError: n is below 2.
    """
    require(n >= 2, f"exchanging latents needs at least two frames, got {n}")
    order = permutation(n, 0)
    others = np.empty(n, order.dtype)
    others[order] = np.roll(order, 1)
    return others


def reconstruction_quality(workdir: Workdir, test: Source) -> Results:
    """Return the PSNR of images sampled from global codes.

    Baselines are the first VQ-VAE on the same frames, and other test frames: images of
    the maze, but from another position.
    """
    arrays = read_arrays(workdir.reconstructions, RECONSTRUCTIONS)
    originals = stack(read_many(test, arrays["frames"].tolist()))["image"]
    compared = {
        "first_stage": arrays["first_stage"],
        "global_codes": arrays["hierarchy"],
        "vae_latents": arrays["hierarchy_vae"],
    }
    if len(originals) > 1:
        compared["other_frames"] = originals[derangement(len(originals))]
    psnr = jax.jit(image_quality.psnr_db)
    results: Results = {
        f"reconstruction_psnr_db_{name}": float(
            np.mean(psnr(originals.astype(np.float32), images.astype(np.float32)))
        )
        for name, images in compared.items()
    }
    return results | {"reconstructed_frames": len(originals)}


class _Paired:
    """The frames of a source, each with a row of `latents`."""

    def __init__(self, source: Source, latents: Shaped[np.ndarray, "N ..."]):
        self._source, self._latents = source, latents

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int):
        return {**self._source[index], "latents": self._latents[index]}
