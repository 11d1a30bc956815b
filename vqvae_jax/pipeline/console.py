"""What a run prints at its start and at its end."""

import collections
from typing import Any

import jax

from vqvae_jax.experiment import Experiment
from vqvae_jax.models import base
from vqvae_jax.report.readable import highlights
from vqvae_jax.runtime.terminal import print_table
from vqvae_jax.workdir import SPLITS, Workdir


def print_start(workdir: Workdir, experiment: Experiment, dataset: Any) -> None:
    """Print the devices, the data and the model of a run."""
    counts = collections.Counter(device.device_kind for device in jax.devices())
    devices = ", ".join(f"{number} x {kind}" for kind, number in counts.items())
    processes = jax.process_count()
    lines = {
        "run": str(workdir.path),
        "devices": f"{devices} in {processes} processes" if processes > 1 else devices,
        "data": _data(experiment, dataset),
        "model": experiment.kind,
        "parameters": base.count_of_parameters(experiment.model),
    }
    print_table(lines)


def print_end(workdir: Workdir, experiment: Experiment) -> None:
    """Print what a run reached, where it is, and commands to go on with."""
    reached = dict(highlights(workdir.read_results()))
    model = f"vqvae-jax {{}} {workdir.path}"
    further = {
        "sample": f"{model.format('sample')} OUT --num 100",
        "reconstruct": f"{model.format('reconstruct')} FILES OUT",
        "compress": f"{model.format('compress')} IMAGES OUT.vq",
    }
    supported = [c for name, c in further.items() if name in experiment.spec.commands]
    places = {"report": workdir.report, "samples": workdir.pictures}
    where = {name: str(path) for name, path in places.items() if path.exists()}
    go_on = {"next": "\n".join(supported)} if supported else {}
    print_table(reached | where | go_on)


def _data(experiment: Experiment, dataset: Any) -> str:
    """Return the sizes of the splits, and a note on them."""
    config = experiment.data
    source = config.name if config.source == "tfds" else config.data_dir
    sizes = (f"{len(getattr(dataset, name)):,} {name}" for name in SPLITS)
    parts = [f"{source}: {', '.join(sizes)}"]
    if classes := len(getattr(dataset, "class_names", ())):
        parts.append(f"{classes} classes")
    if dataset.splits_note:
        parts.append(dataset.splits_note)
    return "; ".join(parts)
