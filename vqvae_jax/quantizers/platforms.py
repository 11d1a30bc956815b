"""Which form of a computation a platform runs fast."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax


def for_platform(
    *args: Any, default: Callable[..., Any], **forms: Callable[..., Any]
) -> Any:
    """Call the function of the platform that will compute it, or `default`.

    Chosen when the program is lowered, so that jit on another device and exports take
    their own platform's form, and lowering for one platform keeps one.

    In several processes it is that of `jax.default_backend()`. What is chosen when a
    program is lowered stays a conditional of one branch in it, and XLA does not keep
    sums over devices within conditionals in order: on CPUs, where Gloo knows sums by
    their order alone, a busy process would take one gradient's for another's.
    """
    if jax.process_count() > 1:
        return forms.get(jax.default_backend(), default)(*args)
    return lax.platform_dependent(*args, default=default, **forms)
