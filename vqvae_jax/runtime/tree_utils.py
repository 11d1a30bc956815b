"""Shapes of the leaves of pytrees, compared between a checkpoint and a model."""

from typing import Any

import jax

from vqvae_jax.runtime.errors import UserError

Shapes = dict[str, tuple[int, ...]]


def shapes_of(tree: Any) -> Shapes:
    """Return the shape of every leaf by its path, such as "encoder/params/kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def require_same_shapes(stored: Shapes, expected: Shapes, *, where: str) -> None:
    """Raise UserError unless the stored shapes are those the model expects.

    Raises:
      UserError: a shape differs, or an array is missing or unexpected; the message
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
    problems = differing + missing + surplus
    if not problems:
        return
    more = f", and {len(problems) - 1} more differ" if len(problems) > 1 else ""
    raise UserError(
        f"{where}: {problems[0]}{more}: the model's sizes differ from those it was "
        "trained with"
    )
