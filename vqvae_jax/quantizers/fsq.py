"""Finite scalar quantization (Mentzer et al. 2023, arXiv:2309.15505)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vqvae_jax import options
from vqvae_jax.quantizers.base import InitFromKey, Quantized
from vqvae_jax.quantizers.codebook import require_codes
from vqvae_jax.quantizers.primitives import straight_through
from vqvae_jax.quantizers.projection import (
    Projection,
    all_vectors,
    init_projection,
    project_in,
    project_out,
)
from vqvae_jax.runtime.errors import require

_MAX_LEVELS = 2**16
_MAX_CODES = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class FSQ(InitFromKey):
    """Round each of d bounded numbers to one of L_i levels (section 3.1).

    z_e is projected to d numbers. Number i is bounded by tanh and rounded to the
    nearest of L_i evenly spaced levels from -1 to 1, straight-through. For odd L_i this
    is the paper's f(z) = floor(L_i / 2) tanh(z); for even L_i the levels are as
    symmetric as for odd ones, without the paper's shift by half a level. There is no
    codebook to learn and no loss term. The state is a `Projection`.

    Attributes:
      levels: L_i of each number, from 2 to 65 536.
      dim: D, features of z_e.
      codes: "joint" for one code per vector, the combination of all levels, so that K
        is their product; "digits" for d codes, the level of each number, so that K is
        the largest L_i and a prior models the digits one by one.
    """

    levels: tuple[int, ...] = (8, 6, 5)
    dim: Annotated[int, ">= 1"] = 64
    codes: Literal["joint", "digits"] = "joint"

    def __post_init__(self):
        """Check every option; UserError, a ValueError, names the first wrong one."""
        options.check(self)
        require(
            bool(self.levels) and all(2 <= n <= _MAX_LEVELS for n in self.levels),
            f"levels must be numbers from 2 to {_MAX_LEVELS}, got {self.levels}",
        )
        require(
            self.num_codes <= _MAX_CODES,
            f"levels must have at most {_MAX_CODES} combinations, got {self.levels}; "
            'use fewer levels, or codes="digits"',
        )

    @property
    def num_codes(self) -> int:
        """K, the product of all L_i, or the largest L_i where codes are digits."""
        return math.prod(self.levels) if self.codes == "joint" else max(self.levels)

    @property
    def codes_per_vector(self) -> int:
        """C, 1 or the number of digits."""
        return 1 if self.codes == "joint" else len(self.levels)

    @property
    def bits(self) -> float:
        """Bits of one vector's codes under the uniform prior, the sum of log2 L_i."""
        return sum(math.log2(n) for n in self.levels)

    def init(
        self,
        key: PRNGKeyArray,
        z_e: Float[Array, "*batch D"] | None = None,
        mask: Bool[Array, "*batch"] | None = None,
    ) -> Projection:
        """Draw the projection; z_e and mask are not read."""
        del z_e, mask
        return init_projection(key, self.dim, len(self.levels))

    def quantize(
        self,
        state: Projection,
        z_e: Float[Array, "*batch D"],
        mask: Bool[Array, "*batch"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Quantized:
        """Round the projected numbers to their nearest levels.

        Args:
          state: the projection.
          z_e: `[..., D]`, any float dtype; the computation is float32.
          mask: `[...]`, False at padding, which is read as zeros.
          key: unused: nothing is drawn.

        Raises:
          ValueError: the last axis of z_e is not D, or the mask has another shape.
        """
        del key
        z = jnp.tanh(project_in(state, z_e, mask))
        # NaN rounds to no level.
        z = jnp.where(jnp.isnan(z), 0.0, z)
        steps = self._per_digit(z.ndim) - 1
        digits = jnp.round((1 + z) / 2 * steps).astype(jnp.int32)
        values = straight_through(z, self._values(digits))
        z_q = project_out(state, values).astype(z_e.dtype)
        loss = jnp.zeros(z_e.shape[:-1], jnp.float32)
        return Quantized(z_q, self._encode(digits), {}, loss)

    def lookup(
        self, state: Projection, codes: Int[Array, "*batch C"]
    ) -> Float[Array, "*batch D"]:
        """Return the vectors of codes, `[..., C]` -> `[..., D]` float32.

        Codes out of range are clipped. A digit is out of range from its own L_i on,
        which may be below K where the levels differ.

        Raises:
          ValueError: the last axis of codes is not C.
        """
        require_codes(codes, self.codes_per_vector)
        return project_out(state, self._values(self._decode(codes)))

    def total_loss(self, losses: Mapping[str, Any]) -> Any:
        """Return 0: there are no terms."""
        del losses
        return 0.0

    def trainable(self, state: Projection) -> Projection:
        """Return True for every leaf."""
        return jax.tree.map(lambda _: True, state)

    def codebooks(self, state: Projection) -> Float[Array, "1 K D"] | None:
        """Return the vector of each joint code, up to K = 65 536; None otherwise."""
        return all_vectors(self, state)

    def _per_digit(self, ndim: int) -> Int[Array, "..."]:
        """Return L_i, broadcastable to arrays `[..., d]` of `ndim` axes."""
        return jnp.array(self.levels, jnp.int32).reshape((1,) * (ndim - 1) + (-1,))

    def _values(self, digits: Int[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """Return the levels, from -1 to 1.

        Only the division rounds, so compilers have no choice that changes a bit.
        """
        steps = self._per_digit(digits.ndim) - 1
        return (2 * digits - steps).astype(jnp.float32) / steps.astype(jnp.float32)

    def _encode(self, digits: Int[Array, "*batch d"]) -> Int[Array, "*batch C"]:
        """Return the codes of digits; the first digit of a joint code counts ones."""
        if self.codes == "digits":
            return digits
        code = jnp.zeros(digits.shape[:-1], jnp.int32)
        for i in reversed(range(len(self.levels))):
            code = code * self.levels[i] + digits[..., i]
        return code[..., None]

    def _decode(self, codes: Int[Array, "*batch C"]) -> Int[Array, "*batch d"]:
        """Return the digits of codes."""
        if self.codes == "digits":
            return jnp.clip(codes, 0, self._per_digit(codes.ndim) - 1)
        rest = jnp.clip(codes[..., 0], 0, self.num_codes - 1)
        digits = []
        for n in self.levels:
            digits.append(rest % n)
            rest = rest // n
        return jnp.stack(digits, axis=-1)
