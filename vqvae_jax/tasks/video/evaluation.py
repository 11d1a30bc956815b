"""Evaluate the prediction of clips and the effect of actions (section 4.4)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from vqvae_jax import image_quality
from vqvae_jax import metrics as metrics_lib
from vqvae_jax.data.batches import eval_batches
from vqvae_jax.data.dataset import Dataset
from vqvae_jax.data.source import (
    Example,
    Source,
    read_many,
    stack,
)
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.evaluate import Results, SecondResults
from vqvae_jax.pipeline.run import Context
from vqvae_jax.tasks.video.clips import ClipsSource
from vqvae_jax.tasks.video.model import RECORDED, Video
from vqvae_jax.training import sharding
from vqvae_jax.training.loop import make_evaluation
from vqvae_jax.workdir import IMAGES, Workdir

# The arrays of `samples.npz`.
CLIPS = IMAGES | {
    "codes": "i clips rows frames h w g",
    "true_codes": "i clips frames h w g",
    "frame": "i clips",
    "given_frames": "i",
}
# Steps after the last given frame at which generated frames are compared.
TIMES = (1, 5, 10)
# Range of shifts per step: a turn moves the view by less than a fifth of its width, and
# hardly vertically.
_MAX_SHIFT = 0.2  # Of the width.
_MAX_VERTICAL_SHIFT = 2  # Pixels.


class Copying(NamedTuple):
    """A baseline that copies each code of the previous frame with fixed probability.

    same: probability that a code equals the previous frame's code at its position;
        otherwise it is another code, distributed as `marginal`.
    marginal: `[G, K]`, frequency of each code of each codebook.
    """

    same: float
    marginal: Float[np.ndarray, "G K"]


class OtherActions:
    """Clips with the actions of the next clip, worse for a model that uses actions."""

    def __init__(self, clips: Sequence[Example] | Source):
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Example:
        other = self._clips[(index + 1) % len(self)]
        return {**self._clips[index], "action": other["action"]}


def evaluate_video(context: Context) -> SecondResults:
    """Evaluate the video model and its baselines on the test split.

    Bits are averaged over all frames but the first of each clip, for all models.
    """
    workdir, experiment, dataset = context
    video, _ = workdir.restore("video")
    frames = video.clip_frames
    test = ClipsSource(workdir.codes("test"), length=frames, stride=frames)
    results: Results = {"test_clips": len(test)}
    for stage, name in (("video", "video"), ("video_frames_alone", "frames_alone")):
        values = _evaluated(workdir, experiment, stage, test)
        results[f"{name}_bits_per_frame"] = values["bits_per_later_frame"]
        results[f"{name}_bits_per_code"] = values["bits_per_code"]
    if video.num_actions and len(test) > 1:
        values = _evaluated(workdir, experiment, "video", OtherActions(test))
        results["video_bits_per_frame_other_actions"] = values["bits_per_later_frame"]
    pairs = ClipsSource(workdir.codes("train"), length=2)
    copying = fit_copying(_codes_of(pairs, batch_size=256), num_codes=video.num_codes)
    bits = [copying_bits(copying, codes) for codes in _codes_of(test, batch_size=16)]
    results["copying_bits_per_frame"] = float(np.concatenate(bits).mean())
    results["copying_equal_codes_train"] = copying.same
    arrays = workdir.read_samples(CLIPS)
    results |= clip_results(arrays, _true_images(arrays, dataset), video)
    return SecondResults(results, {})


def fit_copying(
    pairs: Iterable[Int[np.ndarray, "_ 2 H W G"]], *, num_codes: int
) -> Copying:
    """Fit the copying baseline to pairs of consecutive frames by maximum likelihood.

    Add one to the counts of each code, of equal codes and of changed codes, so that
    all probabilities are positive.
    """
    equal, cells, counts = 1, 2, None
    for codes in pairs:
        before, after = codes[:, 0], codes[:, 1]
        groups = after.shape[-1]
        if counts is None:
            counts = np.ones((groups, num_codes))
        equal, cells = equal + int((before == after).sum()), cells + after.size
        for group, row in zip(after.reshape(-1, groups).T, counts, strict=True):
            row += np.bincount(group, minlength=num_codes)
    return Copying(equal / cells, counts / counts.sum(axis=1, keepdims=True))


def copying_bits(
    copying: Copying, codes: Int[np.ndarray, "B T H W G"]
) -> Float[np.ndarray, "B T-1"]:
    """Return -log2 p of each frame but the first, given the previous one."""
    before, after = codes[:, :-1], codes[:, 1:]
    groups = np.arange(codes.shape[-1])
    p_after, p_before = (
        copying.marginal[groups, after],
        copying.marginal[groups, before],
    )
    changed = (1 - copying.same) * p_after / (1 - p_before)
    p = np.where(before == after, copying.same, changed)
    return -np.log2(p).sum(axis=(2, 3, 4))


def clip_results(
    samples: dict[str, np.ndarray],
    true_images: UInt8[np.ndarray, "N T H W C"],
    video: Video,
) -> Results:
    """Compare generated clips with the recorded frames and with each other.

    Args:
      samples: the arrays of `samples.npz`.
      true_images: the recorded frames.
      video: the model that generated the clips.
    """
    given, codes = int(samples["given_frames"]), samples["codes"]
    images = samples["images"].reshape(*codes.shape[:3], *true_images.shape[2:])
    row = video.rows.index(RECORDED) if RECORDED in video.rows else 0
    results: Results = {"video_clips": len(codes)}
    for steps in TIMES:
        t = given - 1 + steps
        if t >= codes.shape[2]:
            continue
        true = samples["true_codes"][:, t]
        for name, time in (("generated", t), ("last_given", given - 1)):
            equal = codes[:, row, time] == true
            psnr = _psnr_db(images[:, row, time], true_images[:, t])
            results[f"{name}_equal_codes_step_{steps}"] = float(equal.mean())
            results[f"{name}_psnr_db_step_{steps}"] = float(psnr.mean())
    if {"left", "right"} <= set(video.rows):
        left, right = (
            moves(images[:, video.rows.index(name), given - 1 :])
            for name in ("left", "right")
        )
        # Turning left moves the content of the view to the right.
        results["opposite_moves_under_left_and_right"] = float(
            np.mean((left > 0) & (right < 0))
        )
        results["pixels_moved_per_step_under_left"] = float(left.mean())
        results["pixels_moved_per_step_under_right"] = float(right.mean())
    return results


def moves(clips: UInt8[np.ndarray, "N T H W C"]) -> Float[np.ndarray, " N"]:
    """Return the pixels per step by which the content of each clip moves to the right.

    Uses phase correlation (Kuglin and Hines, 1975): the inverse transform of the
    normalised cross-power spectrum of two shifted frames has a peak at the shift. It is
    averaged over the steps of a clip, which all have the same action.
    """
    grey = clips.astype(np.float64).mean(axis=-1)
    height, width = grey.shape[2:]
    # Window the frames: their edges do not move, and would dominate the correlation.
    window = np.outer(np.hanning(height), np.hanning(width))
    grey = grey - grey.mean(axis=(2, 3), keepdims=True)
    spectra = np.fft.fft2(grey * window)
    cross = spectra[:, 1:] * spectra[:, :-1].conj()
    phases = cross / np.maximum(np.abs(cross), 1e-9)
    peaks = np.fft.ifft2(phases).real.mean(axis=1)
    most = max(1, int(_MAX_SHIFT * width))
    vertical = np.r_[: _MAX_VERTICAL_SHIFT + 1, -_MAX_VERTICAL_SHIFT:0]
    shifts = np.r_[-most : most + 1]
    best = peaks[:, vertical][:, :, shifts].max(axis=1).argmax(axis=1)
    return shifts[best].astype(np.float64)


def _evaluated(
    workdir: Workdir, experiment: Experiment, stage: str, clips: Source
) -> dict[str, float]:
    model, params = workdir.restore(stage)
    mesh = sharding.data_mesh()
    params = sharding.put_replicated(params, mesh)
    evaluation = make_evaluation(model.evaluate, mesh)
    return metrics_lib.compute(evaluation(params, experiment.eval_batches(clips)))


def _codes_of(
    clips: Source, *, batch_size: int
) -> Iterable[Int[np.ndarray, "_ T H W G"]]:
    for batch in eval_batches(clips, batch_size=batch_size):
        yield batch["codes"][batch["mask"]]


def _true_images(
    samples: dict[str, np.ndarray], dataset: Dataset
) -> UInt8[np.ndarray, "N T H W C"]:
    frames = samples["codes"].shape[2]
    return np.stack(
        [
            stack(read_many(dataset.test, range(first, first + frames)))["image"]
            for first in samples["frame"].tolist()
        ]
    )


def _psnr_db(images: UInt8[np.ndarray, "N H W C"], others) -> Float[np.ndarray, " N"]:
    a, b = (jnp.asarray(x, jnp.float32) for x in (images, others))
    return np.asarray(image_quality.psnr_db(a, b))
