"""The protocol of quantizers, and what their `quantize` returns."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

# Arrays of a quantizer, any pytree; a NamedTuple in every member of this package.
State = Any
AxisName = str | tuple[str, ...] | None

# What `model.quantizer.kind` may name. The package fills it, so that a member can hold
# another member without importing it.
MEMBERS: dict[str, type] = {}


class Quantized(NamedTuple):
    """What `Quantizer.quantize` returns.

    Attributes:
      z_q: `[..., F]`, the quantized vectors, of the dtype of z_e; their gradient
        reaches z_e by the quantizer's estimator.
      codes: `[..., C]` int32, C codes for each vector.
      losses: terms by name, `[..., C]` float32, unweighted. The gradient of each
        reaches one owner only; 0 at padding.
      loss: `[...]`, `Quantizer.total_loss` of the terms, averaged over the C codes.
    """

    z_q: Float[Array, "*batch F"]
    codes: Int[Array, "*batch C"]
    losses: Mapping[str, Float[Array, "*batch C"]]
    loss: Float[Array, "*batch"]


@runtime_checkable
class Quantizer(Protocol):
    """A frozen, hashable dataclass of sizes and options; its methods are pure.

    Every method works under jit, vmap, grad, scan, pmap and shard_map.
    """

    @property
    def num_codes(self) -> int:
        """K, the values that a code can take."""

    @property
    def codes_per_vector(self) -> int:
        """C, the codes of one vector."""

    @property
    def features(self) -> int:
        """F, the features of z_e and z_q."""

    @property
    def bits(self) -> float:
        """Bits of one vector's codes under the uniform prior."""

    @property
    def init_reads_data(self) -> bool:
        """Whether `init` needs z_e."""

    def init(
        self,
        key: PRNGKeyArray,
        z_e: Float[Array, "*batch F"] | None = None,
        mask: Bool[Array, "*batch"] | None = None,
    ) -> State:
        """Return the initial state, fitted to z_e where `init_reads_data`."""

    def quantize(
        self,
        state: State,
        z_e: Float[Array, "*batch F"],
        mask: Bool[Array, "*batch"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Quantized:
        """Quantize vectors; without a key nothing is drawn."""

    def update(
        self,
        state: State,
        z_e: Float[Array, "*batch F"],
        codes: Int[Array, "*batch C"],
        *,
        key: PRNGKeyArray,
        mask: Bool[Array, "*batch"] | None = None,
        axis_name: AxisName = None,
    ) -> State:
        """Apply what the gradient does not: EMA, usage counts, restarts."""

    def lookup(
        self, state: State, codes: Int[Array, "*batch C"]
    ) -> Float[Array, "*batch F"]:
        """Return the vectors of codes, in float32.

        They are equal to the last bit to the `Quantized.z_q` of the same state and
        float32 z_e, unless `quantize` has added noise to it.
        """

    def total_loss(self, losses: Mapping[str, Any]) -> Any:
        """Return the weighted sum of the terms of `Quantized.losses`, of any shape."""

    def trainable(self, state: State) -> State:
        """Return the state with True for each leaf that follows the gradient."""

    def inference_state(self, state: State) -> Any:
        """Return the arrays that `quantize` and `lookup` read."""

    def codebooks(self, state: State) -> Float[Array, "C K D"] | None:
        """Return the vector of each code; None where there is no table of them."""


class InitFromKey:
    """Defaults of members that `init` draws from the key alone.

    A vector of `dim` features has one of `num_codes` codes; only the gradient moves the
    state, all of which is read.
    """

    @property
    def codes_per_vector(self) -> int:
        """C, 1."""
        return 1

    @property
    def features(self) -> int:
        """Features of z_e, `dim`."""
        return self.dim

    @property
    def bits(self) -> float:
        """Bits of one vector's code under the uniform prior, log2 K."""
        return math.log2(self.num_codes)

    @property
    def init_reads_data(self) -> bool:
        """Whether `init` needs z_e: no."""
        return False

    def update(
        self,
        state: State,
        z_e: Float[Array, "*batch F"],
        codes: Int[Array, "*batch C"],
        *,
        key: PRNGKeyArray,
        mask: Bool[Array, "*batch"] | None = None,
        axis_name: AxisName = None,
    ) -> State:
        """Return the state unchanged."""
        del z_e, codes, key, mask, axis_name
        return state

    def inference_state(self, state: State) -> State:
        """Return the state."""
        return state
