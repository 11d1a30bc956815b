r"""Run an experiment from nothing to a report; the same command resumes it.

python launch.py --config experiments/digits.py
python launch.py --config experiments/cifar.py:small
python launch.py --help
"""

import sys

from vqvae_jax.runtime import extras

if __name__ == "__main__":
    try:
        from absl import app

        from vqvae_jax.cli import train

        train.define_flags()
        app.run(train.main, flags_parser=train.parse)
    except ModuleNotFoundError as error:
        extras.report_missing(error)
        sys.exit(2)
