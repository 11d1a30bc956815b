"""Binary codes without a codebook: LFQ (Yu et al. 2023), BSQ (Zhao et al. 2024)."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vqvae_jax import options
from vqvae_jax.quantizers.base import AxisName, InitFromKey, Quantized
from vqvae_jax.quantizers.codebook import normalize, require_codes
from vqvae_jax.quantizers.primitives import straight_through
from vqvae_jax.quantizers.projection import (
    Projection,
    all_vectors,
    init_projection,
    project_in,
    project_out,
)

# The gradient of the diversity term is unbounded where a bit is always the same.
_MIN_PROBABILITY = 1e-6


class BinaryState(NamedTuple):
    """The state of LFQ and BSQ.

    Attributes:
      projection: moved by the gradient.
      ones: `[bits]` float32, the running mean of the probability that a bit is 1.
    """

    projection: Projection
    ones: Float[Array, " bits"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Binary(InitFromKey, abc.ABC):
    """What LFQ and BSQ share: everything but the numbers y whose signs are the bits.

    A member defines `_numbers` and the magnitude of the quantized numbers, `_scale`.
    """

    bits: Annotated[int, ">= 1", "<= 30"] = 10
    dim: Annotated[int, ">= 1"] = 64
    beta: Annotated[float, ">= 0"] = 0.25
    entropy_weight: Annotated[float, ">= 0"] = 0.1
    diversity_weight: Annotated[float, ">= 0"] = 0.1
    temperature: Annotated[float, "> 0"] = 1.0
    ema_decay: Annotated[float, ">= 0", "< 1"] = 0.9

    def __post_init__(self):
        """Check every option; UserError, a ValueError, names the first wrong one."""
        options.check(self)

    @property
    def num_codes(self) -> int:
        """K, 2^bits."""
        return 2**self.bits

    def init(
        self,
        key: PRNGKeyArray,
        z_e: Float[Array, "*batch D"] | None = None,
        mask: Bool[Array, "*batch"] | None = None,
    ) -> BinaryState:
        """Draw the projection; z_e and mask are not read."""
        del z_e, mask
        projection = init_projection(key, self.dim, self.bits)
        # Quantized numbers are +-scale, and z_q starts with unit variance.
        projection = projection._replace(out=projection.out / self._scale)
        return BinaryState(projection, jnp.full(self.bits, 0.5, jnp.float32))

    def quantize(
        self,
        state: BinaryState,
        z_e: Float[Array, "*batch D"],
        mask: Bool[Array, "*batch"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Quantized:
        """Replace each number y of the projected vector by its sign; that of 0 is +1.

        The losses are means over the bits, so their scale does not depend on K. Their
        gradient reaches z_e and the projection that reads it. With
        `q(c|y) = softmax_c(-|y - c|^2 / temperature)` over all 2^bits codes c in
        {-1, 1}^bits, they are

        * `commitment`, `|y - sg[sign(y)]|^2 / bits`;
        * `entropy`, `H[q(.|y)] / log K`, from 0 to 1: exact, as q factorizes over bits;
        * `diversity`, `1 - H[E q] / log K`, from 0 to 1, with H[E q] as the sum of the
          entropies of the bits. The expectation is the running mean of `update`, so
          that the term of a vector depends neither on the others of the batch nor on
          the number of devices. Its gradient is that of -H[E q] with respect to this
          vector's q.

        Args:
          state: the projection and the running means.
          z_e: `[..., D]`, any float dtype; the computation is float32.
          mask: `[...]`, False at padding, which is read as zeros and has losses of 0.
          key: unused: nothing is drawn.

        Raises:
          ValueError: the last axis of z_e is not D, or the mask has another shape.
        """
        del key
        y = self._numbers(project_in(state.projection, z_e, mask))
        ones = y >= 0
        signs = _signs(ones)
        losses = {
            "commitment": jnp.mean(jnp.square(y - signs), axis=-1, keepdims=True),
            "entropy": self._entropy(y),
            "diversity": self._diversity(state, y),
        }
        if mask is not None:
            losses = {k: jnp.where(mask[..., None], v, 0.0) for k, v in losses.items()}
        values = self._scale * straight_through(y, signs)
        z_q = project_out(state.projection, values).astype(z_e.dtype)
        bits = ones * self._place_values(y.ndim)
        codes = bits.sum(axis=-1, keepdims=True, dtype=jnp.int32)
        return Quantized(z_q, codes, losses, self.total_loss(losses)[..., 0])

    def update(
        self,
        state: BinaryState,
        z_e: Float[Array, "*batch D"],
        codes: Int[Array, "*batch 1"],
        *,
        key: PRNGKeyArray,
        mask: Bool[Array, "*batch"] | None = None,
        axis_name: AxisName = None,
    ) -> BinaryState:
        """Update the running means of the bits; a batch of padding changes nothing.

        Args:
          state: the state, after the optimiser's step.
          z_e: `[..., D]`, the vectors that were quantized.
          codes: unused.
          key: unused.
          mask: `[...]`, False at padding.
          axis_name: the mapped axes of a pmap, vmap or shard_map, to keep the means of
            all devices equal. Under jit with sharded arrays leave it out.
        """
        del codes, key
        y = self._numbers(project_in(state.projection, z_e, mask))
        p = jax.nn.sigmoid(self._logits(lax.stop_gradient(y)))
        valid = jnp.ones(p.shape[:-1], jnp.float32) if mask is None else mask
        p = jnp.where(valid[..., None] > 0, p, 0.0)
        batch_axes = tuple(range(p.ndim - 1))
        total, count = p.sum(batch_axes), valid.sum(dtype=jnp.float32)
        if axis_name is not None:
            total, count = lax.psum((total, count), axis_name)
        mean = total / jnp.maximum(count, 1.0)
        ones = self.ema_decay * state.ones + (1 - self.ema_decay) * mean
        return state._replace(ones=jnp.where(count > 0, ones, state.ones))

    def lookup(
        self, state: BinaryState, codes: Int[Array, "*batch 1"]
    ) -> Float[Array, "*batch D"]:
        """Return the vectors of codes, `[..., 1]` -> `[..., D]` float32.

        Raises:
          ValueError: the last axis of codes is not 1.
        """
        require_codes(codes, 1)
        ones = (codes & self._place_values(codes.ndim)) > 0
        return project_out(state.projection, self._scale * _signs(ones))

    def total_loss(self, losses: Mapping[str, Any]) -> Any:
        """Return the sum of the terms, each with its weight."""
        return (
            self.beta * losses["commitment"]
            + self.entropy_weight * losses["entropy"]
            + self.diversity_weight * losses["diversity"]
        )

    def trainable(self, state: BinaryState) -> BinaryState:
        """Return True for the projection, False for the running means."""
        return BinaryState(jax.tree.map(lambda _: True, state.projection), False)

    def codebooks(self, state: BinaryState) -> Float[Array, "1 K D"] | None:
        """Return the vector of each code, up to K = 65 536; None otherwise."""
        return all_vectors(self, state)

    @property
    @abc.abstractmethod
    def _scale(self) -> float:
        """The magnitude of the quantized numbers."""

    @abc.abstractmethod
    def _numbers(self, v: Float[Array, "*batch bits"]) -> Float[Array, "*batch bits"]:
        """Return y, in units of the quantized numbers, of projected vectors."""

    def _logits(self, y: Float[Array, "*batch bits"]) -> Float[Array, "*batch bits"]:
        """Return the logit of q for each bit: (|y + 1|^2 - |y - 1|^2) / temperature."""
        return 4 * y / self.temperature

    def _entropy(self, y: Float[Array, "*batch bits"]) -> Float[Array, "*batch 1"]:
        """Return H[q] / log K; a sum of terms >= 0, so rounding keeps it >= 0."""
        # Of either sign the entropy is the same; negative ones do not cancel.
        a = -jnp.abs(self._logits(y))
        nats = jax.nn.softplus(a) - a * jax.nn.sigmoid(a)
        return jnp.mean(nats, axis=-1, keepdims=True) / math.log(2)

    def _diversity(
        self, state: BinaryState, y: Float[Array, "*batch bits"]
    ) -> Float[Array, "*batch 1"]:
        """Return 1 - H[E q] / log K with its gradient for one vector's q."""
        p = jnp.clip(
            lax.stop_gradient(state.ones), _MIN_PROBABILITY, 1 - _MIN_PROBABILITY
        )
        nats = -p * jnp.log(p) - (1 - p) * jnp.log1p(-p)
        value = jnp.maximum(1 - nats.mean() / math.log(2), 0.0)
        # The derivative of -H[E q] with respect to a bit's q is the logit of E q.
        logits = (jnp.log(p) - jnp.log1p(-p)).reshape((1,) * (y.ndim - 1) + (-1,))
        linear = jax.nn.sigmoid(self._logits(y)) * logits
        linear = jnp.mean(linear, axis=-1, keepdims=True) / math.log(2)
        return value + (linear - lax.stop_gradient(linear))

    def _place_values(self, ndim: int) -> Int[Array, "..."]:
        """Return 2^i of each bit, broadcastable to arrays `[..., bits]`."""
        powers = 2 ** jnp.arange(self.bits, dtype=jnp.int32)
        return powers.reshape((1,) * (ndim - 1) + (-1,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LFQ(_Binary):
    """Lookup-free quantization, of MAGVIT-v2 (Yu et al. 2023, arXiv:2310.05737).

    z_e is projected to `bits` numbers, whose signs are the code. Memory does not grow
    with K = 2^bits. The state is a `BinaryState`. On digits, with these weights, 59, 28
    and 8 % of K = 512, 2 048 and 16 384 codes were in use: docs/which_quantizer.md.

    Attributes:
      bits: log2 K.
      dim: D, features of z_e.
      beta: weight of the commitment loss, a mean over bits.
      entropy_weight: weight of the entropy of each vector's q, which makes decisions
        certain; as all terms, per bit.
      diversity_weight: weight of the diversity term, which makes all codes be used. The
        paper's entropy penalty has both weights equal.
      temperature: of q.
      ema_decay: of the running mean of q.
    """

    @property
    def _scale(self) -> float:
        return 1.0

    def _numbers(self, v: Float[Array, "*batch bits"]) -> Float[Array, "*batch bits"]:
        return v


@dataclasses.dataclass(frozen=True, kw_only=True)
class BSQ(_Binary):
    """Binary spherical quantization (Zhao et al. 2024, arXiv:2406.07548).

    z_e is projected to `bits` numbers and divided by its norm, and each number is
    replaced by +-1 / sqrt(bits), so that z_e's projection and the quantized vector lie
    on the unit sphere. The losses are those of `LFQ` for numbers in units of
    1 / sqrt(bits). The state is a `BinaryState`.

    Attributes:
      bits: log2 K.
      dim: D, features of z_e.
      beta: weight of the commitment loss, a mean over bits. The quantization error is
        bounded without it.
      entropy_weight: weight of the entropy of each vector's q; as all terms, per bit.
      diversity_weight: weight of the diversity term, which makes all codes be used.
      temperature: of q; the paper's tau is 2 bits / temperature.
      ema_decay: of the running mean of q.
    """

    @property
    def _scale(self) -> float:
        return self.bits**-0.5

    def _numbers(self, v: Float[Array, "*batch bits"]) -> Float[Array, "*batch bits"]:
        return self.bits**0.5 * normalize(v)


def _signs(ones: Bool[Array, "*batch bits"]) -> Float[Array, "*batch bits"]:
    return 2 * ones.astype(jnp.float32) - 1
