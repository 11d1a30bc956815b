"""From a trained VQ-VAE to its codes, and to the models that are trained on them."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from vqvae_jax.data import codes as codes_lib
from vqvae_jax.data.clips import ClipsSource
from vqvae_jax.data.source import Source
from vqvae_jax.errors import require
from vqvae_jax.evaluation import usage
from vqvae_jax.models.video import Video
from vqvae_jax.stages.stage import Context
from vqvae_jax.training import sharding
from vqvae_jax.training.loop import Run, fit
from vqvae_jax.workdir import SPLITS, Workdir, fingerprint, restore

# From the codes of a split to what a model of the second stage is trained on.
Examples = Callable[..., Source]
# From a model of the second stage and the run to the model as its training starts.
Start = Callable[[Any, Workdir], Any]


def extract_codes(context: Context) -> None:
    """Encode each split once, in order, and keep the codes as array_record."""
    workdir, experiment, dataset = context
    model, params = restore(workdir.path)
    mesh = sharding.data_mesh()
    params = jax.device_put(params, sharding.replicated(mesh))
    encode = jax.jit(model.encode, out_shardings=sharding.replicated(mesh))

    def encoded(source: Source) -> Iterator[tuple[np.ndarray, codes_lib.Columns]]:
        for batch in experiment.eval_batches(source):
            codes = encode(params, sharding.put_batch(batch, mesh)["image"])
            columns = {k: v for k, v in batch.items() if k not in ("image", "mask")}
            mask = batch["mask"]
            yield np.asarray(codes)[mask], {k: v[mask] for k, v in columns.items()}

    digest = fingerprint(params)
    for split in SPLITS:
        source = getattr(dataset, split)
        codes_lib.write_codes(
            workdir.codes_directory(split),
            batches=encoded(source),
            num_codes=model.num_codes,
            class_names=dataset.class_names,
            fingerprint=digest,
            action_names=dataset.action_names,
        )


def grids(codes: codes_lib.CodesSource, model: Any, *, split: str) -> Source:
    """Return the examples of a model of grids: the codes as they are."""
    del model, split
    return codes


def clips(codes: codes_lib.CodesSource, model: Video, *, split: str) -> Source:
    """Return the examples of a model of clips.

    To train on those from every frame on; otherwise no frame is in two of them.
    """
    frames = model.clip_frames
    stride = 1 if split == "train" else frames
    return ClipsSource(codes, length=frames, stride=stride)


def as_it_is(model: Any, workdir: Workdir) -> Any:
    """Return a model to be trained from a random start."""
    del workdir
    return model


def from_codebook(model: Video, workdir: Workdir) -> Video:
    """Return a model whose embeddings start from the VQ-VAE's codebook."""
    _, params = restore(workdir.path)
    vectors = np.asarray(params.codebook.embeddings)
    return dataclasses.replace(model, code_vectors=vectors)


def train_on_codes(
    context: Context,
    *,
    stage: str,
    examples: Examples = grids,
    start: Start = as_it_is,
) -> None:
    """Fit a model of the second stage; its sizes come from the codes' metadata."""
    workdir, experiment, _ = context
    codes = workdir.codes("train")
    facts = dataclasses.asdict(codes.metadata)
    model = start(experiment.make_second(facts)[stage], workdir)
    train = examples(codes, model, split="train")
    validation = examples(workdir.codes("validation"), model, split="validation")
    place = workdir.facts(experiment.second)
    if place.exists():
        before = workdir.read_json(place)["fingerprint"]
        require(
            before == facts["fingerprint"],
            f"{workdir.checkpoints(stage)} was trained on the codes of another "
            f"VQ-VAE ({before}, now {facts['fingerprint']}): remove it and "
            f"{place} to train a {experiment.second} for this one",
        )
    collapse = usage.collapse(usage.count_codes(codes, num_codes=facts["num_codes"]))
    if collapse:
        warnings.warn(collapse, stacklevel=2)
    workdir.write_json(place, facts)
    config = experiment.second_training
    init = experiment.train_batches(train, config)
    batches = [next(init) for _ in range(config.init_batches)]
    run = Run(
        stage=stage,
        workdir=workdir.path,
        seed=experiment.seed + 1,
        train=experiment.train_batches(train, config),
        validation=lambda: experiment.eval_batches(validation),
        init_batch=jax.tree.map(lambda *arrays: np.concatenate(arrays), *batches),
    )
    fit(model, config, run)
