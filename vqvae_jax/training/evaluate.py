"""Evaluation of a model over a whole set, exactly, on all devices."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.training import sharding
from vqvae_jax.training.state import Model

HostBatch = dict[str, np.ndarray]
Evaluation = Callable[[Any, Iterable[HostBatch]], metrics_lib.Metrics]


def make_evaluation(model: Model, mesh: jax.sharding.Mesh) -> Evaluation:
    """Return (params, batches) -> the metrics' sums over all of the batches.

    Each example counts once, those with a False mask not at all, whatever the size of
    the last batch. Nothing of the parameters changes.
    """
    evaluate = jax.jit(model.evaluate, out_shardings=sharding.replicated(mesh))

    def evaluation(params: Any, batches: Iterable[HostBatch]) -> metrics_lib.Metrics:
        on_devices = (sharding.put_batch(batch, mesh) for batch in batches)
        return metrics_lib.total(evaluate(params, batch) for batch in on_devices)

    return evaluation
