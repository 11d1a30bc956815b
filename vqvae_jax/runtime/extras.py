"""Import of packages that only some commands need, from extras of the package."""

import importlib
from types import ModuleType

from vqvae_jax.runtime.errors import UserError


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
