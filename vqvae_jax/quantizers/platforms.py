"""Implementations chosen by platform."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax


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
