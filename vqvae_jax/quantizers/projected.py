"""Any quantizer in another width than that of z_e."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vqvae_jax import options
from vqvae_jax.options import OneOf
from vqvae_jax.quantizers.base import (
    MEMBERS,
    AxisName,
    Quantized,
    Quantizer,
    State,
)
from vqvae_jax.quantizers.projection import (
    Projection,
    init_projection,
    project_in,
    project_out,
)
from vqvae_jax.quantizers.vq import VQ


class ProjectedState(NamedTuple):
    """The state of `Projected`.

    Attributes:
      projection: moved by the gradient.
      quantizer: the state of the quantizer inside.
    """

    projection: Projection
    quantizer: State


@dataclasses.dataclass(frozen=True, kw_only=True)
class Projected:
    """Project z_e into the quantizer's space, quantize there, and project back.

    With a few dimensions inside these are the factorized codes of ViT-VQGAN (Yu et al.
    2021, arXiv:2110.04627, section 3.2) and of DAC (Kumar et al. 2023,
    arXiv:2306.06546, section 3.2): more codes of a large codebook are used, as search
    and lookup take place in a low-dimensional space. The losses are the quantizer's;
    those whose gradient reaches its z_e also train the projection into its space. The
    state is a `ProjectedState`.

    Attributes:
      quantizer: works on the projected vectors, in its own width.
      dim: F, features of z_e.
    """

    quantizer: Annotated[Quantizer, OneOf(MEMBERS)] = VQ(dim=8)
    dim: Annotated[int, ">= 1"] = 64

    def __post_init__(self):
        """Check every option; UserError, a ValueError, names the first wrong one."""
        options.check(self)

    @property
    def num_codes(self) -> int:
        """K of the quantizer."""
        return self.quantizer.num_codes

    @property
    def codes_per_vector(self) -> int:
        """C of the quantizer."""
        return self.quantizer.codes_per_vector

    @property
    def features(self) -> int:
        """F, features of z_e."""
        return self.dim

    @property
    def bits(self) -> float:
        """Bits of one vector's codes under the uniform prior."""
        return self.quantizer.bits

    @property
    def init_reads_data(self) -> bool:
        """Whether `init` of the quantizer needs z_e."""
        return self.quantizer.init_reads_data

    def init(
        self,
        key: PRNGKeyArray,
        z_e: Float[Array, "*batch F"] | None = None,
        mask: Bool[Array, "*batch"] | None = None,
    ) -> ProjectedState:
        """Draw the projection, and initialise the quantizer from projected z_e.

        Args:
          key: decides all draws.
          z_e: `[..., F]`, where the quantizer reads data.
          mask: `[...]`, False at padding.

        Raises:
          ValueError: the quantizer reads data and z_e is missing or of another width.
        """
        projection_key, quantizer_key = jax.random.split(key)
        projection = init_projection(
            projection_key, self.features, self.quantizer.features
        )
        if z_e is not None:
            z_e = project_in(projection, z_e, mask)
        state = self.quantizer.init(quantizer_key, z_e, mask)
        return ProjectedState(projection, state)

    def quantize(
        self,
        state: ProjectedState,
        z_e: Float[Array, "*batch F"],
        mask: Bool[Array, "*batch"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Quantized:
        """Quantize the projected vectors, in float32, and project the result.

        Args:
          state: the projection and the quantizer's state.
          z_e: `[..., F]`, any float dtype.
          mask: `[...]`, False at padding, which is read as zeros.
          key: of the quantizer.

        Raises:
          ValueError: the last axis of z_e is not F, or the mask has another shape.
        """
        z = project_in(state.projection, z_e, mask)
        out = self.quantizer.quantize(state.quantizer, z, mask, key=key)
        z_q = project_out(state.projection, out.z_q)
        return out._replace(z_q=z_q.astype(z_e.dtype))

    def update(
        self,
        state: ProjectedState,
        z_e: Float[Array, "*batch F"],
        codes: Int[Array, "*batch C"],
        *,
        key: PRNGKeyArray,
        mask: Bool[Array, "*batch"] | None = None,
        axis_name: AxisName = None,
    ) -> ProjectedState:
        """Update the quantizer, with its arguments, from the projected vectors."""
        z = project_in(state.projection, z_e, mask)
        shared = {"key": key, "mask": mask, "axis_name": axis_name}
        updated = self.quantizer.update(state.quantizer, z, codes, **shared)
        return state._replace(quantizer=updated)

    def lookup(
        self, state: ProjectedState, codes: Int[Array, "*batch C"]
    ) -> Float[Array, "*batch F"]:
        """Return the projected vectors of codes, `[..., C]` -> `[..., F]` float32.

        Raises:
          ValueError: the last axis of codes is not C.
        """
        z_q = self.quantizer.lookup(state.quantizer, codes)
        return project_out(state.projection, z_q)

    def total_loss(self, losses: Mapping[str, Any]) -> Any:
        """Return the total of the quantizer."""
        return self.quantizer.total_loss(losses)

    def trainable(self, state: ProjectedState) -> ProjectedState:
        """Return True for the projection and what the quantizer's gradient moves."""
        return ProjectedState(
            jax.tree.map(lambda _: True, state.projection),
            self.quantizer.trainable(state.quantizer),
        )

    def inference_state(self, state: ProjectedState) -> ProjectedState:
        """Return the projection and the arrays that the quantizer reads."""
        return ProjectedState(
            state.projection, self.quantizer.inference_state(state.quantizer)
        )

    def codebooks(self, state: ProjectedState) -> Float[Array, "1 K F"] | None:
        """Return the projected table; None with several codes or without a table.

        With several codes a vector is no row of one table: all of them share the bias.
        """
        table = self.quantizer.codebooks(state.quantizer)
        if table is None or self.codes_per_vector > 1:
            return None
        return project_out(state.projection, table)
