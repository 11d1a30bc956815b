"""The command line: exit code 0; 2 for an error, reported in one line; 130, 141."""

import importlib.util
import os
import sys
from collections.abc import Sequence

from vqvae_jax import registry
from vqvae_jax.cli.arguments import make_parser
from vqvae_jax.runtime import extras, terminal
from vqvae_jax.runtime.errors import (
    UserError,
    is_out_of_memory,
    report,
    report_out_of_memory,
)

_ERROR = 2
# Shells use this code for a program that Ctrl-C ended.
_INTERRUPTED = 130
# And this one for a program whose reader, such as head, closed the pipe.
_BROKEN_PIPE = 141


def main(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code."""
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        extras.report_missing(error)
        return _ERROR


def entry() -> None:
    """Run the console script."""
    terminal.accept_any_text()
    sys.exit(main(sys.argv[1:]))


def _run(arguments: Sequence[str]) -> int:
    if list(arguments[:1]) == ["train"]:
        from vqvae_jax.cli import train

        train.launch(arguments[1:])
    if not arguments:
        make_parser().print_help()
        return 0
    chosen = next((word for word in arguments if word in registry.COMMANDS), None)
    options = make_parser(chosen).parse_args(arguments)
    # Imported after the command line has been checked, as they take seconds.
    from vqvae_jax.runtime import compilation

    terminal.silence_libraries()
    # JAX bounds its cache with filelock; `info` runs without the extra `train`.
    if importlib.util.find_spec("filelock") is not None:
        compilation.keep_programs()
    try:
        registry.load(registry.COMMANDS[options.command].run)(options)
        sys.stdout.flush()
    except UserError as error:
        report(error)
        return _ERROR
    except KeyboardInterrupt:
        report("interrupted; finished files are complete, the same command resumes")
        return _INTERRUPTED
    except BrokenPipeError:
        # Otherwise Python would try to flush stdout again, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except OSError as error:  # Such as a name that is too long, or no permission.
        report(error)
        return _ERROR
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        report_out_of_memory(error)
        return _ERROR
    return 0
