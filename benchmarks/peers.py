"""Peers of which a machine may have only some: benchmarks/requirements.txt."""

import importlib
import shutil
from collections.abc import Callable

import jax


def are_installed(*modules: str) -> bool:
    """Can all of these be imported?"""
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError:
        return False
    return True


def can_compile() -> bool:
    """Has torch.compile what it needs? For a CPU that is a C++ compiler."""
    return jax.default_backend() != "cpu" or shutil.which("g++") is not None


def attribute(module: str, name: str) -> Callable:
    """Import a function from one of the files here that need a peer."""
    return getattr(importlib.import_module(f"benchmarks.{module}"), name)
