"""Metrics that accumulate exactly over batches, devices and processes.

A model returns a dict of `Mean`, `CodeUsage`, `Moments` and `Each`. The first three
hold sums, so the metrics of a whole set are the sums over its batches, even if the last
one is smaller; `compute` takes ratios and entropies once at the end. An `Each` holds
one value per example.
"""

import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vqvae_jax import quantizers


class Mean(NamedTuple):
    """A weighted sum and its weight, from which `compute` takes the mean.

    total: `[]` the weighted sum.
    weight: `[]` the sum of the weights.
    """

    total: Float[Array, ""] | Float[np.ndarray, ""] | np.floating
    weight: Float[Array, ""] | Float[np.ndarray, ""] | np.floating


class CodeUsage(NamedTuple):
    """Usage counts of the codes.

    counts: `[G, K]`, for each code of each codebook.
    """

    counts: Float[Array, "G K"] | Float[np.ndarray, "G K"]


class Moments(NamedTuple):
    """Sums over vectors of F features, from which `compute` takes the effective rank.

    count: `[]` the number of vectors.
    first: `[F]` the sum of the vectors.
    second: `[F, F]` the sum of their outer products.
    """

    count: Float[Array, ""] | Float[np.ndarray, ""] | np.floating
    first: Float[Array, " F"] | Float[np.ndarray, " F"]
    second: Float[Array, "F F"] | Float[np.ndarray, "F F"]


class Each(NamedTuple):
    """One value per example, in order.

    values: `[B]`.
    mask: `[B]`, False for padding.
    """

    values: Float[Array, " B"] | Float[np.ndarray, " B"]
    mask: Bool[Array, " B"] | Bool[np.ndarray, " B"]


Metric = Mean | CodeUsage | Moments | Each
Metrics = Mapping[str, Metric]
# The share of the variance that the axes of the effective rank hold.
_VARIANCE = 0.999


def mean(values: Float[Array, "B ..."], mask: Bool[Array, " B"] | None = None) -> Mean:
    """Average values of examples `[B, ...]` whose mask is True."""
    per_example = values.reshape(values.shape[0], -1).mean(axis=1)
    if mask is None:
        mask = jnp.ones(per_example.shape, bool)
    return mean_over(per_example, mask)


def mean_over(values: Float[Array, "*shape"], mask: Bool[Array, "*shape"]) -> Mean:
    """Average single values whose mask is True, while `mean` averages per example."""
    # Multiplying by the mask would keep a NaN in padding.
    total = jnp.sum(jnp.where(mask, values, 0.0))
    return Mean(total, jnp.sum(mask).astype(jnp.float32))


def of_each(values: Float[Array, " B"], mask: Bool[Array, " B"]) -> Each:
    """Keep one value per example, 0 for padding."""
    return Each(jnp.where(mask, values, 0.0), mask)


def masked_mean(
    values: Float[Array, "B ..."],
    mask: Bool[Array, " B"],
    global_mask: Bool[Array, " W"] | None = None,
) -> Float[Array, ""]:
    """Return the mean over the examples whose mask is True; see `value`."""
    return value(mean(values, mask), global_mask)


def value(
    mean: Mean, global_mask: Bool[Array, "*whole"] | None = None
) -> Float[Array, ""]:
    """Return a mean, or 0 if its weight is 0.

    For a part of a batch, pass the mask of the whole batch as `global_mask`: the
    results of all parts then add up to the mean over the whole batch.
    """
    weight = mean.weight if global_mask is None else jnp.float32(jnp.sum(global_mask))
    return mean.total / jnp.maximum(weight, 1.0)


def code_usage(
    codes: Int[Array, "B *grid G"], *, num_codes: int, mask: Bool[Array, " B"]
) -> CodeUsage:
    """Count the codes of examples `[B, ..., G]` whose mask is True."""
    cell_mask = jnp.broadcast_to(
        mask.reshape(-1, *(1 for _ in codes.shape[1:-1])), codes.shape[:-1]
    )
    return CodeUsage(quantizers.usage(codes, num_codes=num_codes, mask=cell_mask))


def moments(vectors: Float[Array, "B *grid F"], mask: Bool[Array, " B"]) -> Moments:
    """Sum the vectors `[B, ..., F]` of examples whose mask is True."""
    kept = mask.reshape(-1, *(1 for _ in vectors.shape[1:]))
    # Multiplying by the mask would keep a NaN in padding.
    rows = jnp.where(kept, vectors, 0.0).reshape(-1, vectors.shape[-1])
    each = rows.shape[0] // max(1, mask.shape[0])
    return Moments(jnp.float32(jnp.sum(mask)) * each, rows.sum(axis=0), rows.T @ rows)


def total(batches: Iterable[Metrics]) -> Metrics:
    """Sum metrics over batches on the host in float64, and concatenate each `Each`."""
    parts: dict[str, list] = {}
    for batch in batches:
        for name, metric in jax.device_get(dict(batch)).items():
            parts.setdefault(name, []).append(metric)
    return {name: _total(metrics) for name, metrics in parts.items()}


def each(metrics: Metrics) -> dict[str, Float[np.ndarray, " N"]]:
    """Return the values of each `Each` without padding, by name."""
    return {
        name: np.asarray(metric.values, np.float64)[np.asarray(metric.mask)]
        for name, metric in metrics.items()
        if isinstance(metric, Each)
    }


def compute(metrics: Metrics) -> dict[str, float]:
    """Convert sums to numbers: means by name, usage to perplexity and active codes.

    Perplexity is averaged and active codes are summed over the codebooks. `Moments`
    become "<name>_effective_rank". An `Each` is skipped.
    """
    values = {}
    for name, metric in metrics.items():
        if isinstance(metric, Mean):
            values[name] = float(metric.total) / max(float(metric.weight), 1.0)
        elif isinstance(metric, Moments):
            values[f"{name}_effective_rank"] = float(effective_rank(metric))
        elif isinstance(metric, CodeUsage):
            counts = np.asarray(metric.counts, np.float64)
            values["codebook_perplexity"] = float(np.exp(entropy(counts)).mean())
            values["codebook_active_codes"] = float(np.sum(counts > 0))
    return values


def effective_rank(moments: Moments) -> int:
    """Return the number of principal axes that hold 99.9 % of the vectors' variance."""
    count, first, second = (np.asarray(x, np.float64) for x in moments)
    mean = first / max(float(count), 1.0)
    covariance = second / max(float(count), 1.0) - np.outer(mean, mean)
    variances = np.linalg.eigvalsh(covariance)[::-1].clip(min=0)
    held = np.cumsum(variances)
    return int(np.searchsorted(held, _VARIANCE * held[-1])) + 1 if held[-1] > 0 else 0


def mutual_information(
    codes: Int[np.ndarray, "N C"], *, num_codes: int
) -> Float[np.ndarray, " pairs"]:
    """Return the mutual information of each pair of the C codes, in bits.

    The estimate from N vectors is too high; that of the same codes in random order,
    where the true value is 0, is subtracted.
    """
    rng = np.random.default_rng(0)
    codes = codes.astype(np.int64)

    def bits(values):
        _, counts = np.unique(values, return_counts=True)
        return entropy(np.float64(counts)[None])[0] / np.log(2)

    def of(first, second):
        return bits(first) + bits(second) - bits(first * num_codes + second)

    return np.array(
        [
            of(first, second) - of(first, rng.permutation(second))
            for first, second in itertools.combinations(codes.T, 2)
        ]
    )


def entropy(counts: Float[np.ndarray, "G K"]) -> Float[np.ndarray, " G"]:
    """Return the entropy of each histogram in nats, 0 for an empty one."""
    total = counts.sum(-1, keepdims=True)
    p = counts / np.where(total > 0, total, 1.0)
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)


def _total(metrics: list) -> Metric:
    if isinstance(metrics[0], Each):
        return Each(*map(np.concatenate, zip(*metrics, strict=True)))
    in_float64 = (
        jax.tree.map(lambda x: np.asarray(x, np.float64), metric) for metric in metrics
    )
    return functools.reduce(lambda a, b: jax.tree.map(np.add, a, b), in_float64)
