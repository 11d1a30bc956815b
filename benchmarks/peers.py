"""Access to the optional peers in benchmarks/requirements.txt."""

import importlib
import shutil
from collections.abc import Callable

import jax


def are_installed(*modules: str) -> bool:
    """Return whether all modules can be imported."""
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError:
        return False
    return True


def can_compile() -> bool:
    """Return whether torch.compile can work: on a CPU it needs a C++ compiler."""
    return jax.default_backend() != "cpu" or shutil.which("g++") is not None


def attribute(module: str, name: str) -> Callable:
    """Import a function from a benchmark module that needs a peer."""
    return getattr(importlib.import_module(f"benchmarks.{module}"), name)
