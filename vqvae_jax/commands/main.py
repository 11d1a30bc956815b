"""From a command line to an exit code: 0, or 2 for a mistake, told in one line."""

import importlib
import sys
from collections.abc import Sequence

from vqvae_jax.commands.parser import parser
from vqvae_jax.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Do what a command line says; return the exit code."""
    options = parser().parse_args(arguments)
    # Heavy imports wait until the command line is known to be right.
    from absl import logging

    from vqvae_jax import compilation

    logging.set_verbosity(logging.ERROR)
    compilation.keep_programs()
    module = importlib.import_module(f"vqvae_jax.commands.{options.module}")
    try:
        getattr(module, options.command)(options)
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0
