"""Video as a second stage: continue test clips under different actions."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from vqvae_jax.data.codes import CodesSource
from vqvae_jax.data.source import read_many, stack
from vqvae_jax.pipeline.run import Context, SecondStage
from vqvae_jax.pipeline.samples import rows_to_draw
from vqvae_jax.tasks.video.clips import ClipsSource
from vqvae_jax.tasks.video.evaluation import evaluate_video
from vqvae_jax.tasks.video.model import Video
from vqvae_jax.tasks.video.report import SHOWN, animation_gif, strip_png, video_sections
from vqvae_jax.training import sharding


def sample_video(context: Context) -> None:
    """Draw clips, first as codes and then as pixels, and write both.

    Every clip is drawn once for each held action, and once with the recorded actions.
    For N clips, R such rows and T frames, `samples.npz` has `codes` [N, R, T, H, W, C]
    and `images`, the N * R * T frames in the same order with the row as their label;
    `true_codes` [N, T, H, W, C]; `frame` [N], the index of each clip's first frame in
    the test split; `given_frames`, the number of frames that were not drawn.
    """
    workdir, experiment, _ = context
    config = experiment.samples
    model, params = workdir.restore()
    video, video_params = workdir.restore("video")
    workdir.require_same_codebook(model, params)
    params, video_params = sharding.put_replicated(
        (params, video_params), sharding.data_mesh()
    )
    decode = jax.jit(model.decode)
    clips = _test_clips(workdir.codes("test"), video, config.num_samples)
    given, names = video.given_frames, video.rows
    count = len(clips["codes"])
    starts = range(0, count, config.batch_size)
    keys = jax.random.split(jax.random.key(experiment.seed + 2), len(starts))
    drawn, seconds = [], []
    rows_per_batch = video.generated_frames * video.grid[0]
    with rows_to_draw(len(starts), rows_per_batch) as (progress, finish_batch):
        for key, first in zip(keys, starts, strict=True):
            # The last batch repeats some clips, so that all batches have one size.
            rows = (first + np.arange(min(config.batch_size, count))) % count
            codes, actions = clips["codes"][rows], clips["action"][rows, :-1]
            start = time.perf_counter()
            known = np.repeat(codes[:, :given], len(names), axis=0)
            new = video.sample(
                video_params,
                key,
                known,
                actions=held_actions(actions, video) if video.num_actions else None,
                progress=progress,
                **config.draw_options_without_labels,
            )
            whole = np.concatenate([known, jax.device_get(new)], axis=1)
            # All pixels at once, after all codes.
            frames = whole.reshape(-1, *video.grid)
            images = np.asarray(decode(params, frames))
            seconds.append((time.perf_counter() - start) / new[:, :, 0, 0, 0].size)
            drawn.append(
                (
                    whole.reshape(len(rows), len(names), *whole.shape[1:]),
                    images.reshape(len(rows), len(names), -1, *images.shape[1:]),
                )
            )
            finish_batch()
    codes, images = (np.concatenate(part)[:count] for part in zip(*drawn, strict=True))
    frames = codes.shape[2]
    for i in range(min(count, SHOWN)):
        strip = strip_png(images[i], names, given=given)
        workdir.write_bytes(workdir.pictures / f"{i:04d}_strip.png", strip)
        moving = animation_gif(images[i], names, given=given)
        workdir.write_bytes(workdir.pictures / f"{i:04d}.gif", moving)
    labels = np.repeat(np.tile(np.arange(len(names)), count), frames)
    workdir.write_arrays(
        workdir.samples,
        images=images.reshape(-1, *images.shape[3:]),
        labels=labels.astype(np.int32),
        class_names=np.array(names, dtype=str),
        codes=codes,
        true_codes=clips["codes"],
        frame=clips["frame"],
        given_frames=given,
        # The first batch includes the compilation.
        samples_per_second=1 / np.median(seconds[1:]) if seconds[1:] else np.nan,
    )


def _test_clips(codes, video: Video, n: int) -> dict[str, np.ndarray]:
    """Return up to n clips, evenly spaced over the test split."""
    frames = video.given_frames + video.generated_frames
    source = ClipsSource(codes, length=frames, stride=frames)
    chosen = np.linspace(0, len(source) - 1, min(n, len(source))).round().astype(int)
    return stack(read_many(source, chosen.tolist()))


def held_actions(
    recorded: Int[np.ndarray, "B S"], video: Video
) -> Int[np.ndarray, "N S"]:
    """Return a row for each clip and action, held from the last given frame on.

    The last row of each clip has the recorded actions.
    """
    rows = np.repeat(recorded[:, None], len(video.rows), axis=1)
    for action in range(video.num_actions):
        rows[:, action, video.given_frames - 1 :] = action
    return rows.reshape(-1, recorded.shape[1])


def clips(codes: CodesSource, model: Video, *, split: str) -> ClipsSource:
    """Return the clips to train or evaluate on.

    Training clips start at every frame; others do not overlap. Those of test are long
    enough for sampling.
    """
    frames = model.clip_frames
    if split == "test":
        frames = max(frames, model.given_frames + model.generated_frames)
    stride = 1 if split == "train" else frames
    return ClipsSource(codes, length=frames, stride=stride)


def start_from_codebook(model: Video, before: Any, params: Any) -> Video:
    """Return a model whose embeddings start from the VQ-VAE's codebooks."""
    vectors = before.codebooks(params)
    if vectors is None:
        return model
    return dataclasses.replace(model, code_vectors=np.asarray(vectors))


VIDEO = SecondStage(
    sample=sample_video,
    evaluate=evaluate_video,
    sections=video_sections,
    examples=clips,
    start=start_from_codebook,
)
