"""A model of a few numbers, a source of points on a line, and runs of both."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from vqvae_jax import metrics
from vqvae_jax.data.batches import TrainBatches, eval_batches
from vqvae_jax.training import sharding
from vqvae_jax.training.config import TrainingConfig
from vqvae_jax.training.loop import Run, checkpoint_directory


@dataclasses.dataclass(frozen=True)
class Line:
    """Fits y = w x with noise from the key; `update` counts the steps in `seen`."""

    noise: float = 0.01
    fail_at: int = -1
    best_at: int = -1

    def init(self, key, batch):
        return {
            "w": jax.random.normal(key, (2,)) + 0 * batch["x"].mean(),
            "seen": jnp.zeros(()),
        }

    def trainable(self, params):
        return {"w": True, "seen": False}

    def loss(self, params, key, batch):
        noise = self.noise * jax.random.normal(key, batch["y"].shape)
        error = (batch["x"] @ params["w"] - batch["y"] + noise) ** 2
        error = jnp.where(params["seen"] == self.fail_at, jnp.nan, error)
        named = {"error": metrics.mean(error, batch["mask"])}
        loss = metrics.masked_mean(error, batch["mask"], batch.get("global_mask"))
        return loss, (named, jnp.ones(batch["y"].shape))

    def update(self, params, key, carry, *, axis_name=None):
        return params | {"seen": params["seen"] + carry.mean()}

    def evaluate(self, params, batch):
        error = (batch["x"] @ params["w"] - batch["y"]) ** 2
        if self.best_at >= 0:
            error = error + 100 * jnp.abs(params["seen"] - self.best_at)
        return {"loss": metrics.mean(error, batch["mask"])}


class Points:
    """A source of `n` examples on a line."""

    def __init__(self, n=50):
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(n, 2)).astype("f4")
        self.y = self.x @ np.array([1.0, -2.0], "f4")

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "y": self.y[i]}


def _make_config(**changes) -> TrainingConfig:
    options = {
        "steps": 20,
        "batch_size": 16,
        "learning_rate": 0.05,
        "log_every": 5,
        "checkpoint_every": 5,
    }
    return TrainingConfig(**options | changes)


def _make_run(workdir) -> Run:
    return Run(
        stage="line",
        workdir=workdir,
        seed=3,
        train=TrainBatches(Points(), batch_size=16, seed=1),
        validation=lambda: eval_batches(Points(), batch_size=16),
        init_batch=next(TrainBatches(Points(), batch_size=16, seed=1)),
    )


def _read_run(workdir):
    directory = checkpoint_directory(workdir, "line")
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = {
        "w": jax.ShapeDtypeStruct((2,), "float32", sharding=device),
        "seen": jax.ShapeDtypeStruct((), "float32", sharding=device),
    }
    item = ocp.args.PyTreeRestore(
        abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract)
    )
    with ocp.CheckpointManager(directory) as manager:
        steps = sorted(manager.all_steps())
        found = manager.restore(steps[-1], args=ocp.args.Composite(params=item))
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    return steps, jax.device_get(found["params"]), log


@pytest.fixture(scope="session")
def line():
    """The class of the model."""
    return Line


@pytest.fixture(scope="session")
def points():
    """The class of the source."""
    return Points


@pytest.fixture(scope="session")
def make_config():
    """(**changes) -> TrainingConfig of 20 steps."""
    return _make_config


@pytest.fixture(scope="session")
def make_run():
    """(workdir) -> Run over 50 points."""
    return _make_run


@pytest.fixture(scope="session")
def read_run():
    """(workdir) -> (steps of checkpoints, parameters of the last one, log)."""
    return _read_run


@pytest.fixture(scope="session")
def mesh():
    """The mesh of eight devices."""
    return sharding.data_mesh()
