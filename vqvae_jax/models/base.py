"""Parts that several models share: training protocol, traits, checks of sizes."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vqvae_jax import options, registry
from vqvae_jax.quantizers import Quantizer
from vqvae_jax.runtime.checksums import sha256_of_leaves
from vqvae_jax.runtime.errors import require

Shapes = Mapping[str, jax.ShapeDtypeStruct]


class Traits(NamedTuple):
    """Properties of a kind of model that its results depend on.

    Attributes:
      likelihood: whether p(x) is "exact", a lower "bound" or "undefined".
      latent: what z consists of; None without a z.
      encodes: whether z can be inferred from x.
      figure: the result that tracks training across seeds, and its unit.
      draws_logits: whether samples are drawn from logits, which temperature, top-k and
        top-p shape.
      can_collapse: whether a run ends where all vectors have the same code.
    """

    likelihood: Literal["exact", "bound", "undefined"]
    latent: Literal["codes", "numbers"] | None
    encodes: bool
    figure: tuple[str, str] = ("test_bits_per_dim", "bits/dim")
    draws_logits: bool = False
    can_collapse: bool = False


class TrainedByGradient:
    """The training protocol of models without a quantizer."""

    def trainable(self, params: Any) -> Any:
        """Return True for each leaf: all follow the gradient."""
        return jax.tree.map(lambda _: True, params)

    def update(self, params: Any, key: PRNGKeyArray, carry: None, *, axis_name=None):
        """Return the parameters unchanged."""
        del key, carry, axis_name
        return params


class Carry(NamedTuple):
    """What a forward pass hands to `Quantizer.update`.

    z_e: `[..., F]` the encoder's output.
    codes: `[..., C]`.
    mask: `[...]`, False at padding.
    """

    z_e: Float[Array, "*latents F"]
    codes: Int[Array, "*latents C"]
    mask: Bool[Array, "*latents"]


class TrainedWithQuantizer:
    """The training protocol of models with a `quantizer`.

    Their params are a NamedTuple with the quantizer's state as `quantizer`.
    """

    quantizer: Quantizer

    def trainable(self, params: Any) -> Any:
        """Return True for each leaf that follows the gradient."""
        everything = jax.tree.map(lambda _: True, params)
        state = self.quantizer.trainable(params.quantizer)
        return everything._replace(quantizer=state)

    def update(
        self,
        params: Any,
        key: PRNGKeyArray,
        carry: Carry,
        *,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> Any:
        """Apply what the gradient does not: EMA, usage counts, restarts."""
        z_e, codes, mask = carry
        state = self.quantizer.update(
            params.quantizer, z_e, codes, key=key, mask=mask, axis_name=axis_name
        )
        return params._replace(quantizer=state)

    def _init_quantizer(
        self,
        key: PRNGKeyArray,
        data_key: PRNGKeyArray,
        z_e: Callable[[], Float[Array, "*latents F"]],
        mask: Bool[Array, "*latents"],
    ) -> Any:
        """Initialise the quantizer, from `z_e()` where it reads data.

        The two keys keep the random numbers of each initialisation apart.
        """
        if self.quantizer.init_reads_data:
            return self.quantizer.init(data_key, z_e(), mask)
        return self.quantizer.init(key)


def image_batch(image_shape: tuple[int, int, int]) -> Shapes:
    """Return the shapes of a batch of one image."""
    return {
        "image": jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8),
        "label": jax.ShapeDtypeStruct((1,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((1,), bool),
    }


def codes_batch(grid: tuple[int, int, int]) -> Shapes:
    """Return the shapes of a batch of one grid of codes."""
    return {
        "codes": jax.ShapeDtypeStruct((1, *grid), jnp.int32),
        "label": jax.ShapeDtypeStruct((1,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((1,), bool),
    }


def fingerprint(model: Any, params: Any) -> str:
    """Return a hash of the arrays that determine the codes.

    Those are the encoder's and the quantizer's.
    """
    state = model.quantizer.inference_state(params.quantizer)
    return sha256_of_leaves(*jax.tree.leaves((params.encoder, state)))


def second_models(
    name: str, section: Mapping[str, Any], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the models of a second stage, by the stages that train them.

    Args:
      name: a row of `registry.SECOND_STAGES`.
      section: of the config with that name.
      metadata: of the codes; fields marked `GIVEN` are taken from it.

    Raises:
      UserError: an option of the section is invalid.
    """
    spec = registry.SECOND_STAGES[name]
    # JSON has lists instead of tuples.
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in metadata.items()}
    model = options.build(registry.load(spec.model), section, name=name, **given)
    return {
        stage: getattr(model, attribute) if attribute else model
        for stage, attribute in spec.variants.items()
    }


def require_sides(name: str, sides: tuple[int, int, int]) -> None:
    """Raise UserError unless height, width and channels are valid sizes."""
    require(
        min(sides) >= 1 and math.prod(sides) < 2**31,
        f"{name} must be three sizes >= 1 with fewer than 2^31 values in all, got "
        f"{sides}",
    )


def require_pixelcnn(name: str, model: Any, params: Any) -> None:
    """Raise UserError unless a PixelCNN's parameters have a model's sizes."""
    tables = params["params"]["embedding"]["tables"]
    expected = (model.grid[-1], model.num_codes, model.channels)
    require(
        tables.shape == expected,
        f"params are for (codes a cell, codes, channels) = {tables.shape}, this {name} "
        f"has {expected}",
    )


def require_halvable(
    image_shape: tuple[int, int, int], *, num_downsamples: int, key: str
) -> None:
    """Raise UserError, naming a key, unless the sides can be halved so often."""
    height, width, _ = image_shape
    factor = 2**num_downsamples
    require(
        height % factor == 0 and width % factor == 0,
        f"{key}={num_downsamples} needs sides that are multiples of {factor}, but the "
        f"image is {height}x{width}: change it or data.image_size",
    )


def abstract_params(model: Any) -> Any:
    """Return the shapes and dtypes of a model's parameters."""
    return jax.eval_shape(model.init, jax.random.key(0), model.init_batch())


def count_of_parameters(model: Any) -> str:
    """Return the number of parameters of a model, and those of each part."""
    tree = abstract_params(model)
    if not hasattr(tree, "_asdict"):
        return f"{_size(tree):,}"
    parts = {name: part for name, part in tree._asdict().items() if part is not None}
    if "quantizer" in parts:
        # Usage counts and EMA sums are not parameters.
        inference_state = model.quantizer.inference_state
        parts["quantizer"] = jax.eval_shape(inference_state, parts["quantizer"])
    whole = f"{sum(map(_size, parts.values())):,}"
    return f"{whole} ({', '.join(f'{k} {_size(v):,}' for k, v in parts.items())})"


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
