"""Checkpoints that hold an average, are of another model, tie or have neighbours."""

import jax
import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.checkpoints import Checkpoints, on_devices, restore_params
from vqvae_jax.training.state import TrainState

ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def make_state(step) -> TrainState:
    """A state whose every array tells its step."""
    state = TrainState(
        step=np.int32(step),
        params={"w": np.full((2, 3), step, "f4"), "table": np.arange(5.0) + step},
        opt_state=({"mu": np.full(4, -step, "f4")}, (), np.int32(step)),
        key=jax.random.key(7),
    )
    return jax.device_put(state)


def abstract_state() -> TrainState:
    return on_devices(jax.eval_shape(lambda: make_state(0)), ONE)


def save(directory, losses, *, keep=10):
    """Save steps 1, 2, … with these validation losses."""
    with Checkpoints(directory, keep=keep) as checkpoints:
        for step, loss in enumerate(losses, start=1):
            checkpoints.save(make_state(step), {}, validation_loss=loss)
    return directory


def best_step(directory) -> int:
    return int(restore_params(directory, abstract_state().params)["w"][0, 0])


def steps_in(directory) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture
def directory(tmp_path):
    """Three checkpoints, the first the best."""
    return save(tmp_path / "line", [1.0, 2.0, 3.0])


def with_average(state: TrainState) -> TrainState:
    average = {"w": state.params["w"] + 0.5, "table": state.params["table"] * 2}
    return state._replace(average=average)


def test_users_read_the_average_and_training_goes_on_from_both(tmp_path):
    state = with_average(make_state(1))
    with Checkpoints(tmp_path / "line", keep=1) as checkpoints:
        checkpoints.save(state, {}, validation_loss=1.0)
    abstract = on_devices(jax.eval_shape(lambda: with_average(make_state(0))), ONE)
    with Checkpoints(tmp_path / "line", keep=1) as checkpoints:
        restored = checkpoints.restore_latest(abstract).state
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(
        np.testing.assert_array_equal, restored._replace(key=0), state._replace(key=0)
    )
    found = restore_params(tmp_path / "line", abstract_state().params)
    np.testing.assert_array_equal(found["w"], np.full((2, 3), 1.5))


class TestSizes:
    """Arrays of another model are told at once, and not taken for damaged ones."""

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            (
                {"w": (2, 5)},
                r"w has shape \(2, 3\) in the checkpoint, expected \(2, 5\)",
            ),
            ({"bias": (7,)}, r"bias of shape \(7,\) is missing in the checkpoint"),
            ({"w": None}, r"w of shape \(2, 3\) in the checkpoint is not expected"),
        ],
    )
    def test_of_parameters(self, directory, changes, told):
        abstract = abstract_state()
        for name, shape in changes.items():
            if shape is None:
                del abstract.params[name]
            else:
                abstract.params[name] = jax.ShapeDtypeStruct(shape, "f4", sharding=ONE)
        with pytest.raises(UserError, match=rf"line/1: {told}: the model's sizes"):
            restore_params(directory, abstract.params)
        with (
            pytest.raises(UserError, match=rf"line/3: {told}: the model's sizes"),
            Checkpoints(directory, keep=10) as checkpoints,
        ):
            checkpoints.restore_latest(abstract)
        assert steps_in(directory) == {"1", "2", "3"}

    def test_of_the_rest(self, directory):
        abstract = abstract_state()._replace(opt_state=())
        with (
            pytest.raises(UserError, match=r"opt_state/.* is not expected, and 1 more"),
            Checkpoints(directory, keep=10) as checkpoints,
        ):
            checkpoints.restore_latest(abstract)


def test_the_newest_of_equal_ones_is_the_best(tmp_path):
    """For what is kept, for what is read and for `best_step` alike."""
    directory = save(tmp_path / "line", [3.0, 1.0, 1.0, 2.0], keep=1)
    assert steps_in(directory) == {"3", "4"}
    assert best_step(directory) == 3
    with Checkpoints(directory, keep=1) as checkpoints:
        assert (checkpoints.last_step, checkpoints.best_step) == (4, 3)
        checkpoints.save(make_state(5), {}, validation_loss=0.5)
        assert checkpoints.best_step == 5


def test_other_files_beside_the_checkpoints_stay(directory):
    """The mark of the end, and one that a killed run did not come to rename."""
    for name in ("finished.json", ".finished.json.tmp"):
        (directory / name).write_text("{}")
    with Checkpoints(directory, keep=1) as checkpoints:
        assert (checkpoints.last_step, checkpoints.best_step) == (3, 1)
        checkpoints.save(make_state(4), {}, validation_loss=5.0)
    assert steps_in(directory) == {"1", "4", "finished.json", ".finished.json.tmp"}
