"""The command line of launch.py: what it says, and mistakes in it told in one line."""

import itertools
import os
import re
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from absl import flags, logging

_ROOT = Path(__file__).parents[1]
# The exit code of what the person at the keyboard can mend.
_MISTAKE = 2
_CONFIG_FLAGS = ("--config", "-config")


def parse(argv: list[str]) -> list[str]:
    """Parse the command line; a mistake in it ends with one line and exit code 2."""
    try:
        rest = flags.FLAGS(with_config_found(argv))
        if not flags.FLAGS["config"].present:
            raise flags.Error("--config is missing: try experiments/digits.py")
        if rest[1:]:
            raise flags.Error(f"{rest[1]!r} is no flag; flags start with --")
        flags.FLAGS.config.lock()
    except SystemExit:  # After --help, which absl takes for a failure.
        sys.exit(0)
    # What ml_collections raises for an unknown key, and for an unknown section.
    except (AttributeError, KeyError) as error:
        fail(_with_unknown_key(error, argv))
    except Exception as error:
        fail(error)
    return rest


def with_config_found(argv: list[str]) -> list[str]:
    """Let --config name a file of this repository where there is none here."""
    found = list(argv)
    for place, word in enumerate(argv):
        flag, is_whole, path = word.partition("=")
        if flag not in _CONFIG_FLAGS:
            continue
        if is_whole:
            found[place] = f"{flag}={_found(path)}"
        elif place + 1 < len(argv):
            found[place + 1] = _found(argv[place + 1])
    return found


def fail(error: Exception | str) -> NoReturn:
    """Tell a mistake in one line and exit with code 2."""
    tell(error)
    sys.exit(_MISTAKE)


def tell(error: Exception | str) -> None:
    """Tell a mistake in one line."""
    text = str(error).strip()
    if "Traceback" in text:  # ml_collections tells where a config file failed, too.
        text = re.sub(r"^\w+: ", "", text.splitlines()[-1])
    print("error:", " ".join(text.split()), file=sys.stderr, flush=True)


def main(argv: list[str]) -> None:
    """Bring the workdir to the end of the chosen stages, or to where it is stopped."""
    del argv
    from vqvae_jax.runtime import preemption

    with preemption.handled(sys.argv):
        run()


def run() -> None:
    """Do what the flags say."""
    # An error that a library logs it raises too, and here it is told in one line.
    logging.set_verbosity(logging.FATAL)
    sys.unraisablehook = _without_late_writes(sys.unraisablehook)
    # Heavy imports wait until the command line is known to be right.
    import jax

    from vqvae_jax import pipeline
    from vqvae_jax.contrib import studies
    from vqvae_jax.runtime import compilation, distributed
    from vqvae_jax.runtime.errors import UserError

    given = flags.FLAGS
    compilation.keep_programs()
    file, _, variant = given["config"].config_filename.partition(":")
    name = "-".join(filter(None, (Path(file).stem, variant)))
    config, workdir = given.config.to_dict(), given.workdir or f"runs/{name}"
    if given.stages and studies.is_suite(config):
        fail("--stages is for one run; a suite does all stages of all of its runs")
    typed = shlex.join(["python", *sys.argv])
    _join_others()
    try:
        if studies.is_suite(config):
            studies.run(config, workdir, command=typed)
        else:
            pipeline.run(config, workdir, given.stages, command=typed)
    except UserError as error:
        tell(error)
        distributed.leave(_MISTAKE)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        tell(
            f"process {jax.process_index()} cannot go on, most likely since another "
            f"has ended ({error}); the same command goes on from the last checkpoint"
        )
        distributed.leave(_MISTAKE)


def _without_late_writes(hook):
    """Have nothing printed of writes that fail when nobody waits for them any more.

    On a full disk the first of a checkpoint's arrays that cannot be written is told;
    the threads that write the others find an event loop that is closed, and print that.
    """

    def without(unraisable):
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and "loop is closed" in str(error)):
            hook(unraisable)

    return without


def _join_others() -> None:
    """Become one of several processes, if a flag or the cluster says so."""
    from vqvae_jax.runtime import distributed
    from vqvae_jax.runtime.errors import UserError

    given = flags.FLAGS
    cluster = {
        "coordinator": given.coordinator,
        "num_processes": given.num_processes,
        "process_id": given.process_id,
    }
    is_wanted = given.distributed
    if is_wanted is None:
        is_told = any(value is not None for value in cluster.values())
        is_wanted = is_told or distributed.is_launched_by_cluster()
    if not is_wanted:
        return
    try:
        distributed.start(**cluster, timeout=given.start_timeout)
    except UserError as error:
        tell(error)
        # A thread still waits for the others.
        os._exit(_MISTAKE)


def _with_unknown_key(error: AttributeError | KeyError, argv: list[str]) -> str:
    """Say which override names an unknown key, or that a config file fails itself."""
    key = re.search(r"\w+|$", str(error)).group()
    for word in argv:
        flag = word.partition("=")[0].lstrip("-").split(".")
        if flag[0] == "config" and key in flag[1:]:
            return f"{word}: the config has no key {key!r}"
    files = [
        word.partition("=")[2] or after
        for word, after in itertools.zip_longest(argv, argv[1:], fillvalue="")
        if word.partition("=")[0] in _CONFIG_FLAGS
    ]
    return ": ".join([*files[-1:], str(error)])


def _found(path: str) -> str:
    file, colon, variant = path.partition(":")
    if Path(file).exists() or not (_ROOT / file).is_file():
        return path
    return f"{_ROOT / file}{colon}{variant}"
