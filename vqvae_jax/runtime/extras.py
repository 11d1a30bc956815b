"""Packages that only some commands need, from extras of `pyproject.toml`."""

import importlib
from types import ModuleType

from vqvae_jax.runtime.errors import UserError, report

# The extras that commands need, by the module that is imported.
EXTRAS = {"constriction": "codec", "tensorflow": "prepare"} | dict.fromkeys(
    (
        "PIL",
        "absl",
        "array_record",
        "filelock",
        "grain",
        "importlib_resources",
        "matplotlib",
        "ml_collections",
        "orbax",
        "rich",
        "scipy",
        "sklearn",
        "tensorboardX",
        "tensorflow_datasets",
    ),
    "train",
)


def imported(package: str, *, purpose: str, extra: str = "speech") -> ModuleType:
    """Import and return a package of an extra.

    Args:
      package: the name to import.
      purpose: why the package is needed, for the error message.
      extra: the extra of `pyproject.toml` that installs it.

    Raises:
      UserError: if the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.replace("_", "-")
        raise UserError(
            f"{name} is needed {purpose} and is not installed: "
            f"pip install 'vqvae_jax[{extra}]', or pip install {name}"
        ) from error


def advice(error: ModuleNotFoundError) -> str:
    """Return which extra installs a missing module; "" if none does."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        return ""
    return (
        f"this command needs {module}, which is not installed: "
        f"pip install 'vqvae_jax[{EXTRAS[module]}]'"
    )


def report_missing(error: ModuleNotFoundError) -> None:
    """Report a missing module of an extra in one line; raise the error for others."""
    if not advice(error):
        raise error
    report(advice(error))
