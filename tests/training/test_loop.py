"""The loop with a model of four numbers: order, resumption, faults, devices."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vqvae_jax import metrics
from vqvae_jax.data.pipeline import eval_batches, train_batches
from vqvae_jax.errors import UserError
from vqvae_jax.training import checkpoints as checkpoints_lib
from vqvae_jax.training import sharding
from vqvae_jax.training.config import TrainingConfig
from vqvae_jax.training.loop import Run, checkpoint_directory, fit
from vqvae_jax.training.optimizer import make_optimizer
from vqvae_jax.training.state import init_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Line:
    """Fit y = w x with noise from the key; `seen` counts steps outside the gradient."""

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
        noise = 0.01 * jax.random.normal(key, batch["y"].shape)
        error = (batch["x"] @ params["w"] - batch["y"] + noise) ** 2
        error = jnp.where(params["seen"] == self.fail_at, jnp.nan, error)
        named = {"error": metrics.mean(error, batch["mask"])}
        return metrics.masked_mean(error, batch["mask"]), (named, jnp.ones(()))

    def update(self, params, key, carry, *, axis_name=None):
        return params | {"seen": params["seen"] + carry}

    def evaluate(self, params, batch):
        error = (batch["x"] @ params["w"] - batch["y"]) ** 2
        if self.best_at >= 0:
            error = error + 100 * jnp.abs(params["seen"] - self.best_at)
        return {"loss": metrics.mean(error, batch["mask"])}


class Points:
    """A source of 50 examples on a line."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(50, 2)).astype("f4")
        self.y = self.x @ np.array([1.0, -2.0], "f4")

    def __len__(self):
        return 50

    def __getitem__(self, i):
        return {"x": self.x[i], "y": self.y[i]}


def make_config(**changes) -> TrainingConfig:
    options = {
        "steps": 20,
        "batch_size": 16,
        "learning_rate": 0.05,
        "log_every": 5,
        "checkpoint_every": 5,
    }
    return TrainingConfig(**options | changes)


def make_run(workdir) -> Run:
    train = train_batches(Points(), batch_size=16, seed=1)
    return Run(
        stage="line",
        workdir=workdir,
        seed=3,
        train=train,
        validation=lambda: eval_batches(Points(), batch_size=16),
        init_batch=next(train_batches(Points(), batch_size=16, seed=1)),
    )


def abstract_params():
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return {
        "w": jax.ShapeDtypeStruct((2,), "float32", sharding=device),
        "seen": jax.ShapeDtypeStruct((), "float32", sharding=device),
    }


def read_params(workdir):
    """The newest parameters, read with Orbax alone."""
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(checkpoint_directory(workdir, "line")) as manager:
        step = manager.latest_step()
        restored = manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.PyTreeRestore(
                    abstract_params(),
                    restore_args=ocp.checkpoint_utils.construct_restore_args(
                        abstract_params()
                    ),
                )
            ),
        )
    return step, jax.device_get(restored["params"])


def read_log(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_trains_validates_and_logs(tmp_path):
    fit(Line(), make_config(), make_run(tmp_path))
    step, params = read_params(tmp_path)
    assert step == 20
    assert params["seen"] == 20
    log = read_log(tmp_path)
    validation = {e["step"]: e["loss"] for e in log if e["split"] == "validation"}
    assert [e["step"] for e in log if e["split"] == "train"] == [5, 10, 15, 20]
    assert sorted(validation) == [5, 10, 15, 20]
    assert validation[20] < validation[5]
    assert {"loss", "error", "gradient_norm", "examples_per_second"} <= log[0].keys()
    # The error of the whole set, in NumPy.
    points = Points()
    expected = np.mean((points.x @ params["w"] - points.y) ** 2)
    assert validation[20] == pytest.approx(expected, rel=1e-4)
    assert list((tmp_path / "tensorboard" / "line").iterdir())


def test_keeps_the_last_checkpoints_and_the_best_by_validation(tmp_path):
    config = make_config(keep=1, checkpoint_every=4)
    fit(Line(best_at=8), config, make_run(tmp_path))
    directory = checkpoint_directory(tmp_path, "line")
    assert {int(p.name) for p in directory.iterdir()} == {8, 20}
    assert checkpoints_lib.restore_params(directory, abstract_params())["seen"] == 8


def test_ten_steps_and_ten_more_are_twenty(tmp_path):
    """[20] Optimiser, key, data position and parameters come back bit for bit."""
    fit(Line(), make_config(), make_run(tmp_path / "whole"))
    fit(Line(), make_config(steps=10), make_run(tmp_path / "parts"))
    fit(Line(), make_config(), make_run(tmp_path / "parts"))
    whole, parts = (read_params(tmp_path / name)[1] for name in ("whole", "parts"))
    np.testing.assert_array_equal(whole["w"], parts["w"])
    assert whole["seen"] == parts["seen"]
    steps = [e["step"] for e in read_log(tmp_path / "parts") if e["split"] == "train"]
    assert steps == [5, 10, 15, 20]


def test_a_finished_run_is_left_alone(tmp_path):
    fit(Line(), make_config(), make_run(tmp_path))
    before = (tmp_path / "metrics.jsonl").read_text()
    fit(Line(), make_config(), make_run(tmp_path))
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_metrics_of_steps_that_were_lost_are_dropped(tmp_path):
    fit(Line(), make_config(steps=10), make_run(tmp_path))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        line = {"stage": "line", "split": "train", "step": 15, "loss": 1e9}
        file.write(json.dumps(line) + "\n" + '{"stage": "li')
    fit(Line(), make_config(), make_run(tmp_path))
    assert max(e["loss"] for e in read_log(tmp_path)) < 1e9


def test_a_truncated_checkpoint_is_passed_over(tmp_path):
    fit(Line(), make_config(), make_run(tmp_path / "whole"))
    fit(Line(), make_config(steps=10), make_run(tmp_path / "cut"))
    last = checkpoint_directory(tmp_path / "cut", "line") / "10"
    for file in last.rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"line/10 cannot be read and is passed over"):
        fit(Line(), make_config(), make_run(tmp_path / "cut"))
    whole, cut = (read_params(tmp_path / name)[1] for name in ("whole", "cut"))
    np.testing.assert_array_equal(whole["w"], cut["w"])


def test_no_readable_checkpoint_is_an_error(tmp_path):
    fit(Line(), make_config(steps=5), make_run(tmp_path))
    directory = checkpoint_directory(tmp_path, "line")
    for file in directory.rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="passed over"),
        pytest.raises(UserError, match="none of the 1 checkpoints"),
    ):
        fit(Line(), make_config(), make_run(tmp_path))
    with (
        pytest.warns(UserWarning, match="passed over"),
        pytest.raises(UserError, match="train this stage first"),
    ):
        checkpoints_lib.restore_params(directory, abstract_params())


def test_a_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint in"):
        checkpoints_lib.restore_params(tmp_path / "nothing", abstract_params())


def test_not_a_number_stops_with_step_term_and_last_good_checkpoint(tmp_path):
    expected = re.escape(f"{checkpoint_directory(tmp_path, 'line')}/10")
    with pytest.raises(UserError, match=f"line: error is nan at step 13.*{expected}"):
        fit(Line(fail_at=12), make_config(), make_run(tmp_path))
    assert read_params(tmp_path)[0] == 10


def test_a_batch_that_does_not_split_over_the_devices(tmp_path):
    with pytest.raises(UserError, match=r"batch_size=12 must be a multiple of the 8"):
        fit(Line(), make_config(batch_size=12), make_run(tmp_path))


def test_a_full_disk_is_told_and_earlier_checkpoints_stay(tmp_path, monkeypatch):
    fit(Line(), make_config(steps=5), make_run(tmp_path))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints_lib.ocp.CheckpointManager, "save", full)
    with pytest.raises(UserError, match=r"checkpoint 10 .*the disk is full.*untouched"):
        fit(Line(), make_config(), make_run(tmp_path))
    monkeypatch.undo()
    assert read_params(tmp_path)[0] == 5


def train_steps(step, state, batches):
    for batch in batches:
        state, values = step(state, batch)
    return state, values


def test_one_device_eight_devices_pmap_and_shard_map_agree():
    """[7, and the train step inside pmap] The same parameters after 20 steps."""
    model, config = Line(), make_config()
    iterator = train_batches(Points(), batch_size=16, seed=0)
    batches = [next(iterator) for _ in range(20)]
    params = model.init(jax.random.key(0), batches[0])
    optimizer = make_optimizer(config, model.trainable(params))

    class Quiet(Line):
        """Noise would differ between devices, as it should."""

        def loss(self, params, key, batch):
            loss, aux = super().loss(params, jax.random.key(0), batch)
            error = (batch["x"] @ params["w"] - batch["y"]) ** 2
            return metrics.masked_mean(error, batch["mask"]) + 0 * loss, aux

    quiet = Quiet()
    state = init_state(quiet, optimizer, jax.random.key(1), batches[0])
    expected, values = train_steps(
        jax.jit(make_train_step(quiet, optimizer)), state, batches
    )

    mesh = sharding.data_mesh()
    step = jax.jit(
        make_train_step(quiet, optimizer), out_shardings=sharding.replicated(mesh)
    )
    sharded, sharded_values = train_steps(
        step,
        jax.device_put(state, sharding.replicated(mesh)),
        [sharding.put_batch(b, mesh) for b in batches],
    )
    np.testing.assert_allclose(sharded.params["w"], expected.params["w"], atol=1e-5)
    assert metrics.compute(sharded_values) == pytest.approx(
        metrics.compute(values), rel=1e-4
    )

    inner = make_train_step(quiet, optimizer, axis_name="data")
    mapped, _ = train_steps(
        jax.pmap(inner, axis_name="data"),
        jax.tree.map(lambda x: jnp.stack([x] * 8), state),
        [{k: v.reshape(8, 2, *v.shape[1:]) for k, v in b.items()} for b in batches],
    )
    for device in range(8):
        np.testing.assert_allclose(
            mapped.params["w"][device], expected.params["w"], atol=1e-5
        )

    shard_mapped, _ = train_steps(
        jax.jit(
            jax.shard_map(
                inner,
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec("data")),
                out_specs=PartitionSpec(),
                check_vma=False,
            )
        ),
        state,
        batches,
    )
    np.testing.assert_allclose(
        shard_mapped.params["w"], expected.params["w"], atol=1e-5
    )


def test_batches_are_split_and_parameters_copied():
    mesh = sharding.data_mesh()
    batch = sharding.put_batch({"x": np.zeros((16, 3), "f4")}, mesh)
    assert batch["x"].sharding == NamedSharding(mesh, PartitionSpec("data"))
    assert {s.data.shape for s in batch["x"].addressable_shards} == {(2, 3)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"schedule": "linear"}, "schedule must be constant or cosine"),
        ({"gradient_clip": -1.0}, "gradient_clip must not be negative"),
        ({"keep": 0}, "keep must be at least 1"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        make_config(**changes)


def test_frozen_leaves_have_no_optimiser_state_and_do_not_move():
    params = {"w": jnp.ones(3), "table": jnp.ones((100, 7))}
    optimizer = make_optimizer(make_config(), {"w": True, "table": False})
    state = optimizer.init(params)
    assert not any(x.shape == (100, 7) for x in jax.tree.leaves(state))
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(after["table"], params["table"])
    # Adam's first step is the learning rate, whatever the gradient's size.
    np.testing.assert_allclose(after["w"], np.full(3, 1 - 0.05), rtol=1e-5)
