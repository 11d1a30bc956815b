"""What the quantizers need of JAX: platforms, mesh axes, gradients, sums by code."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

T = TypeVar("T")

# TPUs multiply float32 in fewer bits otherwise.
matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)

# With more codes, few vectors share a row and few additions collide.
_MAX_ONE_HOT = 2048
# The one-hot array is float32.
_MAX_ONE_HOT_BYTES = 1 << 30


def for_platform(
    *args: Any, default: Callable[..., Any], **implementations: Callable[..., Any]
) -> Any:
    """Call the implementation for the platform that runs the program, or `default`.

    The choice is made when the program is lowered, so that jit on another device and
    exports use their own platform's implementation.

    With several processes the choice is `jax.default_backend()`. A choice at lowering
    leaves a one-branch conditional in the program, and XLA does not order collectives
    inside conditionals. On CPUs, Gloo matches collectives by their order alone, so a
    busy process could take one gradient's sum for another's.
    """
    if jax.process_count() > 1:
        return implementations.get(jax.default_backend(), default)(*args)
    return lax.platform_dependent(*args, default=default, **implementations)


def vary_like(tree: T, other: jax.Array) -> T:
    """Cast arrays to vary over every axis that `other` varies over.

    Values do not change. With `check_vma`, shard_map sums the gradient with respect to
    a replicated array over the devices; the gradient with respect to the result of this
    cast is each device's own. Outside of shard_map this does nothing.
    """
    wanted = _varying_axes(other)

    def cast(x):
        axes = wanted - _varying_axes(x)
        return lax.pcast(x, tuple(sorted(axes)), to="varying") if axes else x

    return jax.tree.map(cast, tree)


def _varying_axes(x: jax.Array) -> frozenset[str]:
    kind = jax.typeof(x)
    # The attribute has had both names in JAX.
    manual = getattr(kind, "mat", None)
    return getattr(manual, "varying", getattr(kind, "vma", frozenset()))


@jax.custom_jvp
def straight_through(
    z: Float[Array, "*batch D"], e: Float[Array, "*batch D"]
) -> Float[Array, "*batch D"]:
    """Return e; pass its gradient to z unchanged (section 3.2).

    The value does not depend on z, unlike that of e + (z - sg[z]), which is NaN where
    z is not finite.
    """
    del z
    return e


@straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    return straight_through(*primals), tangents[0] + tangents[1]


# Jitted, so that calls outside of jit are not traced and compiled each time.
@functools.partial(jax.jit, static_argnames="num_codes")
def sum_by_code(
    vectors: Float[Array, "N G D"], codes: Int[Array, "N G"], *, num_codes: int
) -> Float[Array, "G K D"]:
    """Sum the vectors of each code of each of G codebooks, in float32.

    On CPU each vector is added to its code's row. On GPU, atomic additions to one row
    serialise, which takes longer than the rest of a training step where few codes are
    in use, and their order changes from run to run. There, and on TPU, the sums are a
    matrix product with one-hot codes, unless the one-hot array is too large to pay off.
    """
    vectors = vectors.astype(jnp.float32)
    scatter = functools.partial(_scatter_add, num_codes=num_codes)
    matmul = functools.partial(_one_hot_matmul, num_codes=num_codes)
    one_hot_pays = num_codes <= _MAX_ONE_HOT
    one_hot_fits = 4 * codes.size * num_codes <= _MAX_ONE_HOT_BYTES
    return for_platform(
        vectors,
        codes,
        cpu=scatter,
        default=matmul if one_hot_pays and one_hot_fits else scatter,
    )


def _scatter_add(vectors, codes, *, num_codes):
    return jax.vmap(
        lambda z, c: jax.ops.segment_sum(z, c, num_segments=num_codes), in_axes=1
    )(vectors, codes)


def _one_hot_matmul(vectors, codes, *, num_codes):
    one_hot = jax.nn.one_hot(codes.T, num_codes, dtype=jnp.float32)
    return jnp.einsum("gnk,ngd->gkd", one_hot, vectors, precision="highest")
