"""The report's sections on a video model."""

import numpy as np

from vqvae_jax.data.source import read_many, stack
from vqvae_jax.pipeline.run import Context
from vqvae_jax.report.page import Picture, Section
from vqvae_jax.tasks.video import gif
from vqvae_jax.tasks.video.evaluation import CLIPS


def video_sections(context: Context) -> list[Section]:
    """Return the sections of recorded clips beside those drawn under each action."""
    workdir, _, dataset = context
    samples = workdir.read_samples(CLIPS)
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
        f"{given} frames are given, marked by an orange bar. Frames marked by a blue "
        "bar are generated: all codes are drawn first, then decoded at once."
    )
    return [
        Section("Video", text, cards=animations),
        Section(
            "Video, frame by frame", "One column per step, one row per action.", strips
        ),
    ]
