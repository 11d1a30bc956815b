"""Whether stored arrays are those that a model of these sizes has."""

from typing import Any

import jax

from vqvae_jax.runtime.errors import UserError

Shapes = dict[str, tuple[int, ...]]


def shapes_of(tree: Any) -> Shapes:
    """Return the shape of every leaf under its path, as "encoder/params/kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def require_same_shapes(stored: Shapes, expected: Shapes, *, where: str) -> None:
    """Refuse arrays of another model than the one they are to be read into.

    Raises:
      UserError: a shape differs, or an array is missing or not expected; the message
        names the first and counts the rest.
    """
    shared = stored.keys() & expected.keys()
    differing = [
        f"{name} has shape {stored[name]} in the checkpoint, expected {expected[name]}"
        for name in sorted(shared)
        if stored[name] != expected[name]
    ]
    missing = [
        f"{name} of shape {expected[name]} is missing in the checkpoint"
        for name in sorted(expected.keys() - shared)
    ]
    surplus = [
        f"{name} of shape {stored[name]} in the checkpoint is not expected"
        for name in sorted(stored.keys() - shared)
    ]
    told = differing + missing + surplus
    if not told:
        return
    more = f", and {len(told) - 1} more differ" if len(told) > 1 else ""
    raise UserError(
        f"{where}: {told[0]}{more}: the model's sizes differ from those it was trained "
        "with"
    )
