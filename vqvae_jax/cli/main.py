"""From a command line to an exit code: 0; 2 for a mistake, told in one line; 130."""

import importlib
import os
import sys
from collections.abc import Sequence

from vqvae_jax.cli.parser import parser
from vqvae_jax.runtime.errors import UserError

_MISTAKE = 2
# What shells give a program that Ctrl-C ended.
_INTERRUPTED = 130
# And one whose reader, such as head, went away.
_UNREAD = 141


def main(arguments: Sequence[str]) -> int:
    """Do what a command line says; return the exit code."""
    options = parser().parse_args(arguments)
    # Heavy imports wait until the command line is known to be right.
    from absl import logging

    from vqvae_jax.cli.train import tell
    from vqvae_jax.runtime import compilation

    logging.set_verbosity(logging.ERROR)
    compilation.keep_programs()
    module = importlib.import_module(f"vqvae_jax.cli.{options.module}")
    try:
        getattr(module, options.command)(options)
        sys.stdout.flush()
    except UserError as error:
        tell(error)
        return _MISTAKE
    except KeyboardInterrupt:
        tell("interrupted; what is written is whole, and the same command goes on")
        return _INTERRUPTED
    except BrokenPipeError:
        # Else Python would try again to write what is left, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNREAD
    return 0
