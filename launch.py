r"""Run an experiment from nothing to a report; the same command resumes it.

python launch.py --config experiments/digits.py
python launch.py --config experiments/cifar.py:small
python launch.py --help
"""

from absl import app

from vqvae_jax.cli import train

if __name__ == "__main__":
    train.define_flags()
    app.run(train.main, flags_parser=train.parse)
