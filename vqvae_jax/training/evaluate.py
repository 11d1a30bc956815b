"""Exact evaluation of a model over a whole set, on all devices."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.training import sharding
from vqvae_jax.training.step import Model

HostBatch = dict[str, np.ndarray]
Evaluation = Callable[[Any, Iterable[HostBatch]], metrics_lib.Metrics]


def make_evaluation(model: Model, mesh: jax.sharding.Mesh) -> Evaluation:
    """Return the function (params, batches) -> metrics summed over all batches.

    Every example has the same weight and masked examples have none, whatever the size
    of the last batch.
    """
    evaluate = jax.jit(model.evaluate, out_shardings=sharding.replicated(mesh))

    def evaluation(params: Any, batches: Iterable[HostBatch]) -> metrics_lib.Metrics:
        on_devices = (sharding.put_batch(batch, mesh) for batch in batches)
        return metrics_lib.total(evaluate(params, batch) for batch in on_devices)

    return evaluation
