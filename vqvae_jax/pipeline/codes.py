"""Encode the data with a trained VQ-VAE, and train models on the codes."""

import collections
import dataclasses
import functools
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from vqvae_jax.data import codes as codes_lib
from vqvae_jax.data.source import Batch, Source
from vqvae_jax.experiment import Experiment
from vqvae_jax.models.base import fingerprint
from vqvae_jax.pipeline.initial import initial_params
from vqvae_jax.pipeline.run import Context, SecondStage, Stage, training_stage
from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import require
from vqvae_jax.training import sharding
from vqvae_jax.training.loop import Run, fit
from vqvae_jax.workdir import SPLITS

# Returns the codes of a batch, from the arrays with the given names.
Encode = Callable[..., np.ndarray]
Encoded = Iterator[tuple[np.ndarray, codes_lib.Columns]]


def encode_images(context: Context) -> None:
    """Encode each split in order, and write the codes as array_record.

    With `data.random_flip` the codes of the flipped training images follow: a second
    stage is trained on what the first model saw, and overfits later.
    """
    _, experiment, dataset = context

    def batches(source: Source) -> Iterator[Batch]:
        yield from experiment.eval_batches(source)
        if source is dataset.train and experiment.data.random_flip:
            for batch in experiment.eval_batches(source):
                yield {**batch, "image": batch["image"][:, :, ::-1]}

    def encoded(source: Source, model: Any, encode: Encode) -> Encoded:
        del model
        for batch in batches(source):
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
    """Write the codes of each split, with the fingerprint of their model.

    Args:
      context: input of the stage; the model is read from its workdir.
      encoded: yields batches of codes and columns, from a split, the model and a
        function that encodes.
      **names: names of the columns' values, as in `data.codes.write_codes`.
    """
    workdir, _, dataset = context
    model, params = workdir.restore()
    mesh = sharding.data_mesh()
    digest = fingerprint(model, params)
    if distributed.is_first():
        # A run killed between two splits must not contain codes of another model.
        for split in SPLITS:
            shutil.rmtree(workdir.codes_directory(split), ignore_errors=True)
    params = sharding.put_replicated(params, mesh)
    encode_arrays = jax.jit(model.encode, out_shardings=sharding.replicated(mesh))

    def encode(batch: Batch, *keys: str) -> np.ndarray:
        """Return the codes of the whole batch; `batch` is this process's share."""
        on_devices = sharding.put_batch({key: batch[key] for key in keys}, mesh)
        return np.asarray(encode_arrays(params, *on_devices.values()))

    for split in SPLITS:
        batches = encoded(getattr(dataset, split), model, encode)
        if not distributed.is_first():
            # Every process encodes; the first one writes.
            collections.deque(batches, maxlen=0)
            continue
        codes_lib.write_codes(
            workdir.codes_directory(split),
            batches=batches,
            num_codes=model.num_codes,
            fingerprint=digest,
            **names,
        )


def second_training_stages(
    experiment: Experiment, second: SecondStage
) -> dict[str, Stage]:
    """Return a stage for each model of an experiment's second stage."""
    return {
        name: training_stage(
            name, functools.partial(train_on_codes, stage=name, second=second)
        )
        for name in experiment.second_spec.variants
    }


def start_from_codebook(model: Any, before: Any, params: Any) -> Any:
    """Return a model of codes whose embeddings start from the VQ-VAE's codebooks."""
    vectors = before.codebooks(params)
    if vectors is None:
        return model
    return dataclasses.replace(model, code_vectors=np.asarray(vectors))


def train_on_codes(context: Context, *, stage: str, second: SecondStage) -> None:
    """Fit a model of the second stage; its sizes come from the codes' metadata.

    Raises:
      UserError: the codes, or models trained on them, belong to another VQ-VAE.
    """
    workdir, experiment, _ = context
    splits = {split: workdir.codes(split) for split in SPLITS}
    before, params = workdir.restore()
    for source in splits.values():
        source.require_fingerprint(fingerprint(before, params))
    codes = splits["train"]
    metadata = dataclasses.asdict(codes.metadata)
    model = second.start(experiment.second_models(metadata)[stage], before, params)
    # Test examples too, so that their errors are raised before training.
    train, validation, _ = (
        second.examples(source, model, split=split) for split, source in splits.items()
    )
    path = workdir.codes_metadata(experiment.second_stage)
    if path.exists():
        kept = workdir.read_codes_metadata(experiment.second_stage).fingerprint
        require(
            kept == metadata["fingerprint"],
            f"{workdir.checkpoints(stage)} was trained on the codes of another "
            f"VQ-VAE ({kept}, now {metadata['fingerprint']}): remove it and "
            f"{path} to train a {experiment.second_stage} for this one",
        )
    collapse = codes_lib.collapse(
        codes_lib.count_codes(codes, num_codes=metadata["num_codes"])
    )
    if collapse:
        warnings.warn(collapse, stacklevel=2)
    workdir.write_json(path, metadata)
    config = experiment.second_training
    run = Run(
        stage=stage,
        workdir=workdir.path,
        seed=experiment.seed + 1,
        train=experiment.train_batches(train, config),
        validation=lambda: experiment.eval_batches(validation),
        init_batch=experiment.init_batch(train, config),
        initial=initial_params(config, stage),
    )
    fit(model, config, run)
