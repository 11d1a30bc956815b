r"""Run an experiment from nothing to a report; the same command resumes it.

  python launch.py --config experiments/digits.py
  python launch.py --config experiments/cifar.py:small
  python launch.py --config experiments/cifar.py --config.training.steps=1000 \
      --workdir runs/cifar-1000

A file of experiments/ says at its top which variants it has. Wherever it was stopped,
a run goes on, with the same results.

It uses all devices of this machine. For those of several machines start it on each,
with a workdir that all of them share; on the second of two, say, with

  --coordinator=FIRST_MACHINE:1234 --num_processes=2 --process_id=1

Where Slurm, Open MPI or a TPU pod starts it on each machine, it needs no such flag.
"""

from absl import app, flags
from ml_collections import config_flags

from vqvae_jax.cli import train

config_flags.DEFINE_config_file(
    "config",
    None,
    "an experiment, as experiments/cifar.py or, with a variant, experiments/cifar.py:x;"
    " any key of it is changed by --config.section.key=value",
    lock_config=True,
)
flags.DEFINE_string(
    "workdir", None, "where the run is kept (default: runs/<experiment>)"
)
flags.DEFINE_list(
    "stages",
    [],
    "do only these of vqvae,codes,prior,samples,evaluate,report (default: all); other"
    " second stages than a prior have stages of their own, a wrong name lists them; a"
    " model without one has model.kind,samples,evaluate,report",
)
flags.DEFINE_boolean(
    "distributed",
    None,
    "be one of several processes (default: if --coordinator or the cluster says so)",
)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, any free port of it")
flags.DEFINE_integer("num_processes", None, "how many processes there are")
flags.DEFINE_integer("process_id", None, "which of them this one is, from 0 on")
flags.DEFINE_integer("start_timeout", 300, "seconds to wait for all to start")

if __name__ == "__main__":
    app.run(train.main, flags_parser=train.parse)
