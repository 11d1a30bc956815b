"""Run an experiment: python launch.py --config experiments/digits.py."""

import re
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "an experiment, as experiments/cifar.py or, with a variant, experiments/cifar.py:x;"
    " any key of it is changed by --config.section.key=value",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "where the run is kept; the same command resumes it (default: runs/<experiment>)",
)
_STAGES = flags.DEFINE_list(
    "stages",
    [],
    "do only these of vqvae,codes,prior,samples,evaluate,report (default: all); other"
    " second stages than a prior have stages of their own, a wrong name lists them; a"
    " model without one has model.kind,samples,evaluate,report",
)


def parse(argv: list[str]) -> list[str]:
    """Parse the command line; a mistake in it ends with one line and exit code 2."""
    try:
        rest = flags.FLAGS(argv)
        if not flags.FLAGS["config"].present:
            raise flags.Error("--config is missing: try experiments/digits.py")
        if rest[1:]:
            raise flags.Error(f"{rest[1]!r} is no flag; flags start with --")
        _CONFIG.value.lock()
    except AttributeError as error:  # What ml_collections raises for an unknown key.
        key = re.search(r"\w+", str(error)).group()
        override = next((a for a in argv if key in re.split(r"[.=]", a)), key)
        fail(f"{override}: the config has no key {key!r}")
    except Exception as error:
        fail(error)
    return rest


def fail(error: Exception | str) -> None:
    """Tell a mistake in one line and exit with code 2."""
    text = str(error).strip()
    if "Traceback" in text:  # ml_collections tells where a config file failed, too.
        text = re.sub(r"^\w+: ", "", text.splitlines()[-1])
    sys.exit(print("error:", " ".join(text.split()), file=sys.stderr) or 2)


def main(argv: list[str]) -> None:
    """Bring the workdir to the end of the chosen stages, or to where it is stopped."""
    del argv
    from vqvae_jax.training import interruption

    with interruption.handled(sys.argv):
        run()


def run() -> None:
    """Do what the flags say."""
    logging.set_verbosity(logging.ERROR)
    # Heavy imports wait until the command line is known to be right.
    from vqvae_jax import compilation, stages, suite
    from vqvae_jax.errors import UserError

    compilation.keep_programs()
    file, _, variant = flags.FLAGS["config"].config_filename.partition(":")
    name = "-".join(filter(None, (Path(file).stem, variant)))
    config, workdir = _CONFIG.value.to_dict(), _WORKDIR.value or f"runs/{name}"
    try:
        if suite.is_suite(config):
            suite.run(config, workdir)
        else:
            stages.run(config, workdir, _STAGES.value)
    except UserError as error:
        fail(error)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
