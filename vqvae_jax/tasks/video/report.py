"""What a run's page shows of its video model."""

import numpy as np

from vqvae_jax.data.dataset import Dataset
from vqvae_jax.data.source import read_many, stack
from vqvae_jax.experiment import Experiment
from vqvae_jax.report.page import Picture, Section
from vqvae_jax.runtime import npz_schemas
from vqvae_jax.tasks.video import gif
from vqvae_jax.workdir import Workdir


def sections_of_video(
    workdir: Workdir, experiment: Experiment, dataset: Dataset
) -> list[Section]:
    """Show clips: what was filmed, and what was drawn under each action."""
    del experiment
    samples = workdir.read_samples(npz_schemas.CLIPS)
    codes, given = samples["codes"], int(samples["given_frames"])
    names = ("filmed", *map(str, samples["class_names"]))
    shape = samples["images"].shape[1:]
    images = samples["images"].reshape(*codes.shape[:3], *shape)
    starts = samples["frame"][: gif.SHOWN].tolist()
    animations, strips = [], []
    for drawn, start in zip(images, starts, strict=False):
        filmed = stack(read_many(dataset.test, range(start, start + codes.shape[2])))
        clips = np.concatenate([filmed["image"][None], drawn])
        under = f"test frames from {start} on"
        animations.append(
            Picture(gif.animation(clips, names, given=given), f"Animation, {under}")
        )
        strips.append(Picture(gif.strips(clips, names, given=given), f"Strip, {under}"))
    text = (
        f"{given} frames are given, under an orange bar; those under a blue bar were "
        "drawn after them, all codes first, and decoded at once."
    )
    return [
        Section("Video", text, cards=animations),
        Section("Video, frame by frame", "A column a step, a row an action.", strips),
    ]
