"""Whatever byte of a checkpoint is damaged: what is read is what was written.

Or the one before, with a warning, or it is told that there is none.
"""

import shutil
import warnings

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.checkpoints import Checkpoints, on_devices, restore_params
from vqvae_jax.training.state import TrainState

ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def make_state(step) -> TrainState:
    """A state whose every array tells its step."""
    state = TrainState(
        step=np.int32(step),
        params={"w": np.full((2, 3), step, "f4"), "table": np.arange(5.0) + step},
        opt_state=({"mu": np.full(4, -step, "f4")},),
        key=jax.random.fold_in(jax.random.key(7), step),
    )
    return jax.device_put(state, ONE)


def abstract_state() -> TrainState:
    return on_devices(jax.eval_shape(lambda: make_state(0)), ONE)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """Two checkpoints, the second the best; tests change copies."""
    directory = tmp_path_factory.mktemp("checkpoints") / "line"
    with Checkpoints(directory, keep=10) as checkpoints:
        for step in (1, 2):
            checkpoints.save(
                make_state(step), {"next_batch": step}, validation_loss=1.0 / step
            )
    return directory


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Where copies are made."""
    return tmp_path_factory.mktemp("copies")


def damaged(directory, which, damage, place, bits) -> None:
    """Damage one file of the second checkpoint."""
    files = sorted(path for path in (directory / "2").rglob("*") if path.is_file())
    path = files[which % len(files)]
    content = bytearray(path.read_bytes())
    place %= max(1, len(content))
    match damage:
        case "flip":
            if content:
                content[place] ^= bits
            path.write_bytes(content)
        case "truncate":
            path.write_bytes(content[:place])
        case "empty":
            path.write_bytes(b"")
        case "grow":
            path.write_bytes(bytes(content) + bytes(bits))
        case "remove":
            path.unlink()


def read(read_one):
    """Return what is read, or the one line that says why nothing is."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            return read_one(), told
        except UserError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
            return None, told


def assert_is(found: TrainState, step: int) -> None:
    expected = make_state(step)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    bare = [
        each._replace(key=jax.random.key_data(each.key)) for each in (found, expected)
    ]
    jax.tree.map(np.testing.assert_array_equal, *bare)


DAMAGE = ("flip", "truncate", "empty", "grow", "remove")


@settings(max_examples=20)
@given(
    which=st.integers(0, 100),
    damage=st.sampled_from(DAMAGE),
    place=st.integers(0, 2000),
    bits=st.integers(1, 255),
)
@example(which=0, damage="flip", place=0, bits=1)
def test_what_is_read_is_what_was_written(
    two_steps, copies, which, damage, place, bits
):
    directory = copies / "line"
    shutil.copytree(two_steps, directory)
    try:
        damaged(directory, which, damage, place, bits)
        params, _ = read(lambda: restore_params(directory, abstract_state().params))
        if params is not None:
            step = int(params["w"][0, 0])
            jax.tree.map(np.testing.assert_array_equal, params, make_state(step).params)
        with Checkpoints(directory, keep=10) as checkpoints:
            restored, told = read(lambda: checkpoints.restore_latest(abstract_state()))
        assert restored is not None
        step = int(restored.state.step)
        assert_is(restored.state, step)
        assert restored.data == {"next_batch": step}
        said = [str(each.message) for each in told]
        passed_over = [each for each in said if "is passed over" in each]
        assert len(passed_over) == (0 if step == 2 else 1)
        assert all(len(each.splitlines()) == 1 for each in passed_over)
    finally:
        shutil.rmtree(directory)
