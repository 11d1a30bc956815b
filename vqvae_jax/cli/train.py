"""Training from the command line: flags, and errors in one line.

`launch.py` and `vqvae-jax train` share it.
"""

import ast
import contextlib
import difflib
import importlib.util
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from vqvae_jax.options import flatten
from vqvae_jax.runtime import extras, resources, terminal
from vqvae_jax.runtime.errors import (
    UserError,
    is_out_of_memory,
    report,
    report_out_of_memory,
)
from vqvae_jax.runtime.safe_io import require_file

_ROOT = Path(__file__).parents[2]
_PROGRAM = "vqvae-jax train"
_ERROR = 2
_MAX_CONFIG_BYTES = 2**22
_CONFIG_FLAGS = ("--config", "-config")
_HELP_FLAGS = ("--help", "-help", "-h", "-?", "--helpshort", "--helpfull")
_OUR_FLAGS = (
    "config",
    "workdir",
    "init_from",
    "stages",
    "distributed",
    "coordinator",
    "num_processes",
    "process_id",
    "start_timeout",
)
_DESCRIPTION = r"""
Train a model: run an experiment from nothing to a report, or resume it.

  {program} --config digits
  {program} --config cifar:small
  {program} --config cifar --config.training.steps=1000 --workdir runs/short

An interrupted run resumes with the same command, and with the same results. A run uses
all devices of the machine. On several machines, start it on each with a shared workdir
and, on the second of two,

  --coordinator=FIRST_MACHINE:1234 --num_processes=2 --process_id=1

Under Slurm, Open MPI or on a TPU pod these flags are not needed."""


def define_flags() -> None:
    """Define the flags, once per process."""
    if "config" in flags.FLAGS:
        return
    config_flags.DEFINE_config_file(
        "config",
        None,
        "an experiment by name or path, with a variant after a colon, as cifar:small; "
        "any key of it is set with --config.section.key=value",
        lock_config=True,
    )
    flag = flags.FLAGS["config"]
    flag.parser = _WithKinds(flag.parser)
    flags.DEFINE_string(
        "workdir", None, "directory of the run (default: runs/EXPERIMENT)"
    )
    flags.DEFINE_string(
        "init_from",
        None,
        "start from the parameters of a trained model: a workdir, a model.safetensors, "
        "a released model such as cifar10, or hf://user/name; short for "
        "--config.training.init_from. --config.prior_training.init_from does so for "
        "the prior",
    )
    flags.DEFINE_list(
        "stages",
        [],
        "run only these, of vqvae,codes,prior,samples,evaluate,report (default: all); "
        "a wrong name lists the stages of the experiment",
    )
    flags.DEFINE_boolean(
        "distributed",
        None,
        "join other processes (default: if --coordinator is given or a cluster is "
        "detected)",
    )
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, any free port")
    flags.DEFINE_integer("num_processes", None, "number of processes")
    flags.DEFINE_integer("process_id", None, "index of this process, from 0")
    flags.DEFINE_integer("start_timeout", 300, "seconds to wait for all processes")


class _WithKinds(flags.ArgumentParser):
    """Reads a config, then changes the kinds of sections that overrides name.

    ml_collections accepts an override for a key of the config only. The keys of a
    quantizer are those of its kind, so this has to be changed first.
    """

    def __init__(self, parser: flags.ArgumentParser):
        self._parser = parser

    def parse(self, argument: str) -> Any:
        """Return the config of an experiment.

        Raises:
          UserError: a kind is unknown, or its section is.
        """
        config = self._parser.parse(argument)
        if config is None or not (kinds := _kinds(sys.argv)):
            return config
        # Imported with the experiment already.
        from vqvae_jax.experiment import with_kinds

        return type(config)(with_kinds(config.to_dict(), kinds))

    def flag_type(self) -> str:
        """Return the type's name, as the wrapped parser does."""
        return self._parser.flag_type()


def _kinds(argv: Sequence[str]) -> dict[str, str]:
    """Return the overrides of keys named `kind`, without "config."."""
    kinds = {}
    for word, after in zip(argv, [*argv[1:], ""], strict=True):
        flag, has_value, value = word.partition("=")
        first, *path = flag.lstrip("-").split(".")
        if first == "config" and path[-1:] == ["kind"] and flag.startswith("-"):
            kinds[".".join(path)] = value if has_value else after
    return kinds


def launch(words: Sequence[str]) -> NoReturn:
    """Run `vqvae-jax train` with these arguments, and exit."""
    # ml_collections looks for overrides in sys.argv.
    sys.argv = [_PROGRAM, *words]
    define_flags()
    app.run(main, flags_parser=parse)


def parse(argv: list[str]) -> list[str]:
    """Parse the command line; an error ends the process with one line and code 2."""
    terminal.accept_any_text()
    terminal.silence_libraries()
    if any(word in _HELP_FLAGS for word in argv[1:]):
        # Its reader, such as head, may close the pipe.
        with contextlib.suppress(BrokenPipeError):
            print(help_text(argv[0]))
        sys.exit(0)
    import_experiments()
    sys.argv = argv = with_init_from(argv)
    try:
        rest = flags.FLAGS(with_config_found(argv))
        if not flags.FLAGS["config"].present:
            raise flags.Error("--config is missing: try --config digits")
        if rest[1:]:
            raise flags.Error(f"{rest[1]!r} is not a flag; flags start with --")
        flags.FLAGS.config.lock()
    # ml_collections raises these for an unknown key, and for an unknown section.
    except (AttributeError, KeyError) as error:
        fail(_describe_unknown_key(error, argv))
    except ModuleNotFoundError as error:
        fail(extras.advice(error) or error)
    except SystemExit as error:
        fail(f"{_config_given(argv)} ended the program: {error}")
    except Exception as error:
        fail(error)
    return rest


def help_text(program: str) -> str:
    """Return the help: description, flags and experiments."""
    command = shlex.join(_command(program))
    lines = [_DESCRIPTION.strip().replace("{program}", command), "", "flags:"]
    for name in _OUR_FLAGS:
        lines += _paragraph(f"--{name}", flags.FLAGS[name].help, indent=18)
    lines += ["", "experiments:"]
    for name, summary in experiments().items():
        lines += _paragraph(name, summary, indent=18)
    lines += ["", "The docstring of an experiment's file lists its variants."]
    return "\n".join(lines)


def experiments() -> dict[str, str]:
    """Return the first line of each experiment's docstring, by name."""
    found = {}
    for path in sorted(resources.folder("experiments").glob("[!_]*.py")):
        if path.stem != "base":
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            found[path.stem] = (text or "").partition("\n")[0]
    return found


def import_experiments() -> None:
    """Import the experiments beside this package as a part of it.

    In a checkout they are another folder, and an installed checkout may be another one.
    """
    name = "vqvae_jax.experiments"
    if name in sys.modules:
        return
    directory = resources.folder("experiments")
    spec = importlib.util.spec_from_file_location(
        name,
        directory / "__init__.py",
        submodule_search_locations=[str(directory)],
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def with_init_from(argv: list[str]) -> list[str]:
    """Replace --init_from by the key of the config that it is short for."""
    short = re.compile(r"--?init_from(=|$)")
    return [short.sub(r"--config.training.init_from\1", word) for word in argv]


def with_config_found(argv: list[str]) -> list[str]:
    """Replace the name of an experiment in --config by its path.

    Raises:
      flags.Error: there is no such file or experiment.
      UserError: the file is not a regular file, or too large.
    """
    found = list(argv)
    for index, word in enumerate(argv):
        flag, has_value, path = word.partition("=")
        if flag not in _CONFIG_FLAGS:
            continue
        if has_value:
            found[index] = f"{flag}={_find_config(path)}"
        elif index + 1 < len(argv):
            found[index + 1] = _find_config(argv[index + 1])
    return found


def fail(error: Exception | str) -> NoReturn:
    """Report an error in one line and exit with code 2."""
    report(error)
    sys.exit(_ERROR)


def main(argv: list[str]) -> None:
    """Run the stages that the flags name, or resume them."""
    del argv
    terminal.silence_libraries()
    # Imported after the command line has been checked, as they take seconds.
    import jax

    from vqvae_jax import pipeline, registry
    from vqvae_jax.runtime import compilation, distributed, preemption

    given = flags.FLAGS
    file, _, variant = given["config"].config_filename.partition(":")
    name = "-".join(filter(None, (Path(file).stem, variant)))
    config, workdir = given.config.to_dict(), given.workdir or f"runs/{name}"
    study = next(
        (registry.STUDIES[key] for key in config if key in registry.STUDIES), ""
    )
    if given.stages and study:
        fail("--stages is for a single run; a study runs all stages of all of its runs")
    words = [*_command(sys.argv[0]), *sys.argv[1:]]
    command = shlex.join(words)
    with preemption.handled(words):
        compilation.keep_programs()
        _join_processes()
        try:
            if study:
                registry.load(study)(config, workdir, command=command)
            else:
                pipeline.run(config, workdir, given.stages, command=command)
        except UserError as error:
            report(error)
            distributed.leave(_ERROR)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                report_out_of_memory(error)
                distributed.leave(_ERROR)
            if jax.process_count() == 1:
                raise
            report(
                f"process {jax.process_index()} cannot continue, most likely because "
                f"another process ended ({error}); the same command resumes from the "
                "last checkpoint"
            )
            distributed.leave(_ERROR)


def _command(program: str) -> list[str]:
    """Return the words that start a program, `launch.py` or `vqvae-jax train`."""
    return program.split() if program == _PROGRAM else ["python", program]


def _join_processes() -> None:
    """Join the other processes, if a flag or the cluster asks for it."""
    from vqvae_jax.runtime import distributed

    given = flags.FLAGS
    cluster = {
        "coordinator": given.coordinator,
        "num_processes": given.num_processes,
        "process_id": given.process_id,
    }
    is_wanted = given.distributed
    if is_wanted is None:
        is_given = any(value is not None for value in cluster.values())
        is_wanted = is_given or distributed.is_launched_by_cluster()
    if not is_wanted:
        return
    try:
        distributed.start(**cluster, timeout=given.start_timeout)
    except UserError as error:
        report(error)
        # A thread still waits for the other processes.
        os._exit(_ERROR)


def _describe_unknown_key(error: AttributeError | KeyError, argv: list[str]) -> str:
    """Return which override names an unknown key, or which config file failed."""
    file = _config_given(argv)
    failed = ": ".join(filter(None, (file, str(error))))
    try:
        found = flags.FLAGS["config"].parser.parse(_find_config(file))
    except (Exception, SystemExit):
        return failed
    if not isinstance(found, ConfigDict):
        returned = type(found).__name__
        return f"{file}: get_config() returned a {returned}, expected a ConfigDict"
    config = found.to_dict()
    for word in argv:
        flag, *path = word.partition("=")[0].lstrip("-").split(".")
        if flag == "config" and path and (unknown := _unknown_key(config, path)):
            return f"{word}: {unknown}"
    return failed


def _config_given(argv: Sequence[str]) -> str:
    """Return the value of the last --config, "" without one."""
    files = [
        word.partition("=")[2] or after
        for word, after in zip(argv, [*argv[1:], ""], strict=True)
        if word.partition("=")[0] in _CONFIG_FLAGS
    ]
    return files[-1] if files else ""


def _unknown_key(config: Mapping[str, Any], path: Sequence[str]) -> str:
    """Return a message, with a suggestion, for a path that is not in a config."""
    section: Any = config
    parents: list[str] = []
    for name in path:
        names = section if isinstance(section, Mapping) else {}
        if name not in names:
            break
        section = section[name]
        parents.append(name)
    else:
        return ""
    # The right name in the wrong section, or a typo.
    moved = [k for k in flatten(config) if k.rpartition(".")[2] == path[-1]]
    close = difflib.get_close_matches(".".join(path), moved, n=1, cutoff=0) or [
        ".".join([*parents, similar])
        for similar in difflib.get_close_matches(name, names, n=1)
    ]
    suggestion = f", did you mean {close[0]}?" if close else ""
    return f"the config has no key {name!r}{suggestion}"


def _find_config(given: str) -> str:
    """Return the path of an experiment that is given by path or by name."""
    file, colon, variant = given.partition(":")
    directory = resources.folder("experiments")
    name = file.removeprefix("experiments/").removesuffix(".py")
    for path in (Path(file), _ROOT / file, directory / f"{name}.py"):
        if path.exists() and not path.is_dir():
            require_file(path, limit=_MAX_CONFIG_BYTES)
            return f"{path}{colon}{variant}"
    close = difflib.get_close_matches(Path(name).name, experiments(), n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    raise flags.Error(
        f"--config={given}: there is no such file or experiment{hint}; there are "
        f"{', '.join(experiments())}"
    )


def _paragraph(name: str, text: str, *, indent: int) -> list[str]:
    """Return lines with a name on the left and wrapped text on the right."""
    head = f"  {name}".ljust(indent)
    lines = textwrap.wrap(text, 88 - indent) or [""]
    if len(head) > indent:
        return [head, *(" " * indent + line for line in lines)]
    return [head + lines[0], *(" " * indent + line for line in lines[1:])]
