"""From a trained VQ-VAE to its codes, and to the models that are trained on them."""

import collections
import dataclasses
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from vqvae_jax.data import codes as codes_lib
from vqvae_jax.data.source import Batch, Source
from vqvae_jax.pipeline import code_usage
from vqvae_jax.pipeline.stage import Context
from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.video.clips import ClipsSource
from vqvae_jax.tasks.video.model import Video
from vqvae_jax.training import sharding
from vqvae_jax.training.loop import Run, fit
from vqvae_jax.workdir import SPLITS, fingerprint, restore

# From the codes of a split to what a model of the second stage is trained on.
Examples = Callable[..., Source]
# Encodes arrays of a batch, by their names.
Encode = Callable[..., np.ndarray]
Encoded = Iterator[tuple[np.ndarray, codes_lib.Columns]]
# From a model of the second stage and the VQ-VAE's parameters to the model as its
# training starts.
Start = Callable[[Any, Any], Any]


def extract_codes(context: Context) -> None:
    """Encode each split once, in order, and keep the codes as array_record."""
    _, experiment, dataset = context

    def encoded(source: Source, model: Any, encode: Encode) -> Encoded:
        del model
        for batch in experiment.eval_batches(source):
            codes = encode(batch, "image")
            columns = distributed.whole({k: batch[k] for k in batch if k != "image"})
            mask = columns.pop("mask")
            yield codes[mask], {k: v[mask] for k, v in columns.items()}

    write_splits(
        context,
        encoded,
        class_names=dataset.class_names,
        action_names=dataset.action_names,
    )


def write_splits(
    context: Context,
    encoded: Callable[[Source, Any, Encode], Encoded],
    **names: Sequence[str],
) -> None:
    """Write the codes of each split, and of which model they are.

    Args:
      context: of the run; its model is read from the workdir.
      encoded: from a split, the model and how it encodes to codes and columns.
      **names: what columns mean, as `data.codes.write_codes` takes them.
    """
    workdir, _, dataset = context
    model, params = restore(workdir.path)
    mesh = sharding.data_mesh()
    digest = fingerprint(params)
    if distributed.is_first():
        # Whoever is killed between two splits must not leave one of other codes.
        for split in SPLITS:
            shutil.rmtree(workdir.codes_directory(split), ignore_errors=True)
    params = sharding.put_replicated(params, mesh)
    of_arrays = jax.jit(model.encode, out_shardings=sharding.replicated(mesh))

    def encode(batch: Batch, *keys: str) -> np.ndarray:
        """Return the codes of the whole batch, of which each process has a share."""
        placed = sharding.put_batch({key: batch[key] for key in keys}, mesh)
        return np.asarray(of_arrays(params, *placed.values()))

    for split in SPLITS:
        batches = encoded(getattr(dataset, split), model, encode)
        if not distributed.is_first():
            # What is encoded here the first process writes.
            collections.deque(batches, maxlen=0)
            continue
        codes_lib.write_codes(
            workdir.codes_directory(split),
            batches=batches,
            num_codes=model.num_codes,
            fingerprint=digest,
            **names,
        )


def grids(codes: codes_lib.CodesSource, model: Any, *, split: str) -> Source:
    """Return the examples of a model of grids: the codes as they are."""
    del model, split
    return codes


def clips(codes: codes_lib.CodesSource, model: Video, *, split: str) -> Source:
    """Return the examples of a model of clips.

    To train on those from every frame on; otherwise no frame is in two of them. Those
    of test are the longest that are needed later.
    """
    frames = model.clip_frames
    if split == "test":
        frames = max(frames, model.given_frames + model.generated_frames)
    stride = 1 if split == "train" else frames
    return ClipsSource(codes, length=frames, stride=stride)


def as_it_is(model: Any, params: Any) -> Any:
    """Return a model to be trained from a random start."""
    del params
    return model


def from_codebook(model: Video, params: Any) -> Video:
    """Return a model whose embeddings start from the VQ-VAE's codebook."""
    vectors = np.asarray(params.codebook.embeddings)
    return dataclasses.replace(model, code_vectors=vectors)


def train_on_codes(
    context: Context,
    *,
    stage: str,
    examples: Examples = grids,
    start: Start = as_it_is,
) -> None:
    """Fit a model of the second stage; its sizes come from the codes' metadata.

    Raises:
      UserError: the codes, or what was trained on them before, are of another VQ-VAE.
    """
    workdir, experiment, _ = context
    of_splits = {split: workdir.codes(split) for split in SPLITS}
    _, params = restore(workdir.path)
    for source in of_splits.values():
        source.require_fingerprint(fingerprint(params))
    codes = of_splits["train"]
    facts = dataclasses.asdict(codes.metadata)
    model = start(experiment.make_second(facts)[stage], params)
    # Those of test too, so that what is wrong with them is told before the training.
    train, validation, _ = (
        examples(source, model, split=split) for split, source in of_splits.items()
    )
    place = workdir.facts(experiment.second)
    if place.exists():
        before = workdir.read_facts(experiment.second).fingerprint
        require(
            before == facts["fingerprint"],
            f"{workdir.checkpoints(stage)} was trained on the codes of another "
            f"VQ-VAE ({before}, now {facts['fingerprint']}): remove it and "
            f"{place} to train a {experiment.second} for this one",
        )
    collapse = code_usage.collapse(
        code_usage.count_codes(codes, num_codes=facts["num_codes"])
    )
    if collapse:
        warnings.warn(collapse, stacklevel=2)
    workdir.write_json(place, facts)
    config = experiment.second_training
    run = Run(
        stage=stage,
        workdir=workdir.path,
        seed=experiment.seed + 1,
        train=experiment.train_batches(train, config),
        validation=lambda: experiment.eval_batches(validation),
        init_batch=experiment.init_batch(train, config),
    )
    fit(model, config, run)
