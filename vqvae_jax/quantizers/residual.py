"""Residual quantization: each level quantizes what the levels before it left."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vqvae_jax import options
from vqvae_jax.quantizers.base import MEMBERS, AxisName, Quantized, Quantizer, State
from vqvae_jax.quantizers.codebook import require_mask
from vqvae_jax.quantizers.vq import VQ

# The code of a dropped level.
DROPPED = -1


class ResidualState(NamedTuple):
    """The states of the quantizers.

    Attributes:
      quantizers: one state for each level and group, in the order of the codes; one
        for each group where its levels share it.
    """

    quantizers: tuple[State, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Residual:
    """Residual quantization with any quantizer (SoundStream, Zeghidour et al. 2021).

    Algorithm 1: level l quantizes r_l = z_e - (q_1 + ... + q_{l-1}), and z_q is
    q_1 + ... + q_L. With G groups (HiFi-Codec, Yang et al. 2023), each of G consecutive
    parts of z_e has levels of its own.

    The codes of a vector are ordered by level, then by group, so that the first ones
    are a coarser description. The code of a dropped level is -1: `lookup` adds nothing
    for it, its losses are 0, and `update` and `usage` ignore it. A whole batch keeps
    the same number of levels, drawn from the key alone: devices with one key agree, and
    a decoder sees one depth at a time, as it will when coding at a lower rate.

    Attributes:
      quantizer: of each level and group.
      levels: L, number of levels.
      shared: whether all levels of a group use the same state.
      level_dropout: probability that `quantize`, given a key, keeps only the first n
        levels, n uniform in 1 ... L.
      num_groups: G; z_e has G times the features of `quantizer`.
    """

    quantizer: Annotated[Quantizer, options.OneOf(MEMBERS)] = VQ()
    levels: Annotated[int, ">= 1"] = 8
    shared: bool = False
    level_dropout: Annotated[float, ">= 0", "<= 1"] = 0.0
    num_groups: Annotated[int, ">= 1"] = 1

    def __post_init__(self):
        """Check every option; UserError, a ValueError, names the first wrong one."""
        options.check(self)

    @property
    def num_codes(self) -> int:
        """K of the quantizer."""
        return self.quantizer.num_codes

    @property
    def codes_per_vector(self) -> int:
        """C = L G times the codes of the quantizer."""
        return self.levels * self.num_groups * self.quantizer.codes_per_vector

    @property
    def features(self) -> int:
        """Features of z_e, G times those of the quantizer."""
        return self.num_groups * self.quantizer.features

    @property
    def bits(self) -> float:
        """Bits of one vector's codes under the uniform prior, without dropout."""
        return self.levels * self.num_groups * self.quantizer.bits

    @property
    def init_reads_data(self) -> bool:
        """Whether `init` needs z_e."""
        return self.quantizer.init_reads_data

    def init(
        self,
        key: PRNGKeyArray,
        z_e: Float[Array, "*batch F"] | None = None,
        mask: Bool[Array, "*batch"] | None = None,
    ) -> ResidualState:
        """Initialize each level, fitted to what the levels before it left.

        A shared state is fitted to the inputs of all levels at once: those that levels
        with states of their own would have.

        Args:
          key: split over levels and groups.
          z_e: `[..., F]`, data for a quantizer that reads them.
          mask: `[...]`, False at padding.

        Raises:
          ValueError: z_e is needed and missing, or has another width.
        """
        if not self.init_reads_data:
            z_e = mask = None
        if z_e is not None:
            require_mask(mask, z_e)
            z_e = self._split(z_e, mask)
        keys = jax.random.split(key, self.num_groups)
        groups = [
            self._init_group(key, None if z_e is None else z_e[..., group, :], mask)
            for group, key in enumerate(keys)
        ]
        return _join(groups)

    def quantize(
        self,
        state: ResidualState,
        z_e: Float[Array, "*batch F"],
        mask: Bool[Array, "*batch"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Quantized:
        """Quantize level by level.

        The losses are the quantizer's, of each level. No gradient of a level's losses
        reaches another level's state, since the sum of the levels before is a constant
        to it; the identity in r_l = z_e - sg[q_1 + ... + q_{l-1}] carries the gradient
        to z_e.

        The gradient of z_q reaches z_e by the estimator of the first level alone, once.
        It reaches the states of all levels, of quantizers where it does.

        Args:
          state: of the levels.
          z_e: `[..., F]`, any float dtype; residuals and sums are float32.
          mask: `[...]`, False at padding, whose losses are then 0.
          key: for the quantizer's draws, and for the dropout of levels; without it
            there is none. Devices of a pmap or shard_map drop the same levels if they
            have the same key.

        Raises:
          ValueError: the last axis of z_e is not F, or the mask has another shape.
        """
        require_mask(mask, z_e)
        vectors = self._split(z_e, mask)
        num_levels, keys = None, [None] * self.num_groups
        if key is not None:
            key, dropout_key = jax.random.split(key)
            keys = jax.random.split(key, self.num_groups)
            if self.level_dropout > 0:
                num_levels = self._draw_num_levels(dropout_key)
        groups = [
            self._quantize_group(
                states, vectors[..., group, :], mask, keys[group], num_levels
            )
            for group, states in enumerate(self._split_states(state))
        ]
        z_q, codes, losses = jax.tree.map(_stack, *groups)
        codes = codes.reshape(*z_e.shape[:-1], self.codes_per_vector)
        losses = {name: loss.reshape(codes.shape) for name, loss in losses.items()}
        z_q = z_q.reshape(z_e.shape).astype(z_e.dtype)
        # Of no terms the total is the number 0.
        total = jnp.asarray(self.total_loss(losses), jnp.float32)
        loss = jnp.broadcast_to(total, codes.shape).mean(axis=-1)
        return Quantized(z_q, codes, losses, loss)

    def update(
        self,
        state: ResidualState,
        z_e: Float[Array, "*batch F"],
        codes: Int[Array, "*batch C"],
        *,
        key: PRNGKeyArray,
        mask: Bool[Array, "*batch"] | None = None,
        axis_name: AxisName = None,
    ) -> ResidualState:
        """Update each level with its residuals, a shared state with those of all.

        A level that was dropped from the whole batch keeps its state: running counts
        that decay without data would restart codes that are in use.

        Args:
          state: of the levels, after the optimiser's step.
          z_e: `[..., F]`, the vectors that were quantized.
          codes: `[..., C]`, their codes.
          key: split over levels and groups; the same on all devices.
          mask: `[...]`, False at padding.
          axis_name: as in the quantizer's `update`.
        """
        require_mask(mask, z_e)
        z_e, codes = self._split(z_e, mask), self._split_codes(codes)
        keys = jax.random.split(key, self.num_groups)
        groups = [
            self._update_group(
                states,
                z_e[..., group, :],
                codes[..., group, :],
                keys[group],
                mask,
                axis_name,
            )
            for group, states in enumerate(self._split_states(state))
        ]
        return _join(groups)

    def lookup(
        self, state: ResidualState, codes: Int[Array, "*batch C"]
    ) -> Float[Array, "*batch F"]:
        """Return the sum of the levels' vectors, `[..., C]` -> `[..., F]` float32.

        Raises:
          ValueError: the last axis of codes is not C.
        """
        codes = self._split_codes(codes)
        # In the order of `quantize`, so that the sums are equal to the last bit.
        groups = [
            sum(self._vectors(states, codes[..., group, :]))
            for group, states in enumerate(self._split_states(state))
        ]
        return jnp.concatenate(groups, axis=-1)

    def total_loss(self, losses: Mapping[str, Any]) -> Any:
        """Return the quantizer's weighted sum of the terms."""
        return self.quantizer.total_loss(losses)

    def trainable(self, state: ResidualState) -> ResidualState:
        """Return the answers of the quantizers."""
        return ResidualState(tuple(map(self.quantizer.trainable, state.quantizers)))

    def inference_state(self, state: ResidualState) -> tuple[Any, ...]:
        """Return the arrays that the quantizers read."""
        return tuple(map(self.quantizer.inference_state, state.quantizers))

    def codebooks(self, state: ResidualState) -> Float[Array, "C K D"] | None:
        """Return the vectors that the codes of each level and group stand for."""
        tables = [self.quantizer.codebooks(each) for each in state.quantizers]
        if tables[0] is None:
            return None
        return jnp.concatenate(tables * (self.levels if self.shared else 1))

    def _split_states(self, state: ResidualState) -> list[tuple[State, ...]]:
        """Return the states of each group's levels."""
        states = state.quantizers * (self.levels if self.shared else 1)
        return [states[group :: self.num_groups] for group in range(self.num_groups)]

    def _split(
        self, z_e: Float[Array, "*batch GF"], mask: Bool[Array, "*batch"] | None
    ) -> Float[Array, "*batch G F"]:
        """Return the float32 vectors of each group, 0 at padding."""
        if z_e.shape[-1] != self.features:
            raise ValueError(
                f"the last axis of z_e must be {self.num_groups} groups x "
                f"{self.quantizer.features} = {self.features}, but its shape is "
                f"{z_e.shape}"
            )
        z_e = z_e.astype(jnp.float32)
        if mask is not None:
            # NaN of padding would reach the sums over a batch.
            z_e = jnp.where(mask[..., None], z_e, 0.0)
        return z_e.reshape(*z_e.shape[:-1], self.num_groups, self.quantizer.features)

    def _split_codes(self, codes: Int[Array, "*batch C"]) -> Int[Array, "*batch L G c"]:
        """Return the codes of each level and group."""
        if codes.shape[-1] != self.codes_per_vector:
            raise ValueError(
                f"the last axis of codes must be {self.levels} levels x "
                f"{self.num_groups} groups x {self.quantizer.codes_per_vector} = "
                f"{self.codes_per_vector}, but their shape is {codes.shape}"
            )
        return codes.reshape(
            *codes.shape[:-1],
            self.levels,
            self.num_groups,
            self.quantizer.codes_per_vector,
        )

    def _draw_num_levels(self, key: PRNGKeyArray) -> Int[Array, ""]:
        coin_key, number_key = jax.random.split(key)
        number = jax.random.randint(number_key, (), 1, self.levels + 1)
        is_dropping = jax.random.bernoulli(coin_key, self.level_dropout)
        return jnp.where(is_dropping, number, self.levels)

    def _init_group(self, key, z_e, mask):
        *level_keys, shared_key = jax.random.split(key, self.levels + 1)
        if z_e is None:
            keys = [shared_key] if self.shared else level_keys
            return [self.quantizer.init(key) for key in keys]
        states, residuals, z_q = [], [], jnp.zeros_like(z_e)
        for level_key in level_keys:
            residuals.append(z_e - z_q)
            states.append(self.quantizer.init(level_key, residuals[-1], mask))
            z_q += self.quantizer.quantize(states[-1], residuals[-1], mask).z_q
        if not self.shared:
            return states
        if mask is not None:
            mask = jnp.repeat(mask[..., None], self.levels, axis=-1)
        return [self.quantizer.init(shared_key, jnp.stack(residuals, -2), mask)]

    def _quantize_group(self, states, z_e, mask, key, num_levels):
        keys = (
            [None] * len(states) if key is None else jax.random.split(key, len(states))
        )
        z_q, codes, losses = jnp.zeros_like(z_e), [], []
        for level, (state, level_key) in enumerate(zip(states, keys, strict=True)):
            residual = z_e - lax.stop_gradient(z_q)
            # The estimators of all levels would multiply the gradient of z_e by L.
            for_z_q = residual if level == 0 else lax.stop_gradient(residual)
            outputs = _quantize(
                self.quantizer, state, for_z_q, residual, mask, level_key
            )
            if num_levels is not None:
                outputs = _drop(outputs, level >= num_levels)
            z_q += outputs[0]
            codes.append(outputs[1])
            losses.append(outputs[2])
        return z_q, _stack(*codes), jax.tree.map(_stack, *losses)

    def _vectors(self, states, codes: Int[Array, "*batch L c"]) -> list[Array]:
        """Return the vectors of each level, 0 where it was dropped."""
        is_kept = _is_kept(codes)
        # A quantizer may drop some of its own codes, which it then reads itself.
        codes = jnp.where(is_kept, codes, 0)
        rows = [
            self.quantizer.lookup(state, codes[..., level, :])
            for level, state in enumerate(states)
        ]
        return [jnp.where(is_kept[..., i, :], row, 0.0) for i, row in enumerate(rows)]

    def _update_group(self, states, z_e, codes, key, mask, axis_name):
        *before, _ = itertools.accumulate(self._vectors(states, codes))
        residuals = _stack(z_e, *(z_e - z_q for z_q in before))
        is_kept = is_valid = _is_kept(codes)[..., 0]
        if mask is not None:
            is_valid = is_kept & mask[..., None]
        update = functools.partial(self.quantizer.update, axis_name=axis_name)
        if self.shared:
            # With levels as the last axis of the batch, the vectors of a device stay
            # consecutive, and any number of devices draws the same ones for restarts.
            return [update(states[0], residuals, codes, key=key, mask=is_valid)]
        is_used = is_kept.any(axis=range(is_kept.ndim - 1))
        if axis_name is not None:
            is_used = lax.psum(is_used.astype(jnp.int32), axis_name) > 0
        updated = []
        for level, level_key in enumerate(jax.random.split(key, self.levels)):
            after = update(
                states[level],
                residuals[..., level, :],
                codes[..., level, :],
                key=level_key,
                mask=is_valid[..., level],
            )
            choose = functools.partial(jnp.where, is_used[level])
            updated.append(jax.tree.map(choose, after, states[level]))
        return updated


def _join(groups: Sequence[Sequence[State]]) -> ResidualState:
    """Return the states of all groups in the order of the codes."""
    return ResidualState(tuple(itertools.chain(*zip(*groups, strict=True))))


def _stack(*arrays: Array) -> Array:
    return jnp.stack(arrays, axis=-2)


def _is_kept(codes: Int[Array, "*batch c"]) -> Bool[Array, "*batch 1"]:
    return (codes > DROPPED).any(axis=-1, keepdims=True)


def _drop(outputs, is_dropped):
    z_q, codes, losses = outputs
    losses = {name: jnp.where(is_dropped, 0.0, loss) for name, loss in losses.items()}
    z_q = jnp.where(is_dropped, 0.0, z_q)
    return z_q, jnp.where(is_dropped, DROPPED, codes), losses


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _quantize(quantizer, state, for_z_q, for_losses, mask, key):
    """Quantize one level, with z_q a function of one argument, the losses of another.

    Both arguments have the same value; the gradient of z_q reaches `for_z_q`, and that
    of the losses `for_losses`.
    """
    del for_losses
    out = quantizer.quantize(state, for_z_q, mask, key)
    return out.z_q, out.codes, out.losses


def _quantize_forward(quantizer, state, for_z_q, for_losses, mask, key):
    del for_losses

    def f(state, z_e):
        out = quantizer.quantize(state, z_e, mask, key)
        return (out.z_q, out.losses), out.codes

    (z_q, losses), vjp, codes = jax.vjp(f, state, for_z_q, has_aux=True)
    return (z_q, codes, losses), vjp


def _quantize_backward(quantizer, vjp, gradient):
    del quantizer
    z_q, _, losses = gradient
    zeros = functools.partial(jax.tree.map, jnp.zeros_like)
    state_of_z_q, for_z_q = vjp((z_q, zeros(losses)))
    state_of_losses, for_losses = vjp((zeros(z_q), losses))
    state = jax.tree.map(jnp.add, state_of_z_q, state_of_losses)
    return state, for_z_q, for_losses, None, None


_quantize.defvjp(_quantize_forward, _quantize_backward)
