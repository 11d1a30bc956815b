"""Checkpoints: what comes back, what is kept, and what a fault leaves behind."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training import sharding
from vqvae_jax.training.checkpoints import Checkpoints, on_devices, restore_params
from vqvae_jax.training.state import TrainState

ROOT = Path(__file__).parents[2]
ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def make_state(step, where=ONE) -> TrainState:
    """A state whose every array tells its step."""
    state = TrainState(
        step=np.int32(step),
        params={"w": np.full((2, 3), step, "f4"), "table": np.arange(5.0) + step},
        opt_state=({"mu": np.full(4, -step, jnp.bfloat16)}, (), np.int32(step)),
        key=jax.random.fold_in(jax.random.key(7), step),
    )
    return jax.device_put(state, where)


def abstract_state(where=ONE) -> TrainState:
    return on_devices(jax.eval_shape(lambda: make_state(0, None)), where)


def save(directory, losses, *, keep=10):
    """Save steps 1, 2, … with these validation losses."""
    with Checkpoints(directory, keep=keep) as checkpoints:
        for step, loss in enumerate(losses, start=1):
            checkpoints.save(
                make_state(step), {"next_batch": step}, validation_loss=loss
            )
    return directory


def restore(directory, where=ONE):
    with Checkpoints(directory, keep=10) as checkpoints:
        return checkpoints.restore_latest(abstract_state(where))


def best_step(directory) -> int:
    return int(restore_params(directory, abstract_state().params)["w"][0, 0])


def steps_in(directory) -> set[str]:
    return {path.name for path in directory.iterdir()}


def assert_is(restored, step):
    """Bit for bit, in the same types, keys among them."""
    expected = make_state(step)
    assert jax.tree.structure(restored.state) == jax.tree.structure(expected)
    assert restored.data == {"next_batch": step}
    for found, right in zip(
        jax.tree.leaves(restored.state), jax.tree.leaves(expected), strict=True
    ):
        assert found.dtype == right.dtype
        if jax.dtypes.issubdtype(found.dtype, jax.dtypes.prng_key):
            assert jax.random.key_impl(found) == jax.random.key_impl(right)
            found, right = jax.random.key_data(found), jax.random.key_data(right)
        np.testing.assert_array_equal(found, right)


def cut(step_directory, item):
    """Halve the files that hold an item's arrays, or its JSON."""
    files = [
        path
        for path in (step_directory / item).rglob("*")
        if path.is_file() and path.parent.name in ("d", "data", "metrics")
    ]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory):
    """Three checkpoints, the first the best."""
    return save(tmp_path_factory.mktemp("checkpoints") / "line", [1.0, 2.0, 3.0])


@pytest.fixture
def directory(three_steps, tmp_path):
    """A copy of the three checkpoints."""
    return shutil.copytree(three_steps, tmp_path / "line")


class TestRoundTrip:
    @pytest.mark.parametrize(("before", "after"), [("eight", "one"), ("one", "eight")])
    def test_on_as_many_devices_as_there_are(self, tmp_path, mesh, before, after):
        where = {"one": ONE, "eight": sharding.replicated(mesh)}
        with Checkpoints(tmp_path / "line", keep=1) as checkpoints:
            assert checkpoints.last_step is None
            assert checkpoints.restore_latest(abstract_state()) is None
            state = make_state(7, where[before])
            checkpoints.save(state, {"next_batch": 7}, validation_loss=1.0)
            checkpoints.wait()
            assert checkpoints.last_step == 7
        restored = restore(tmp_path / "line", where[after])
        assert_is(restored, 7)
        assert {x.sharding for x in jax.tree.leaves(restored.state.params)} == {
            where[after]
        }

    def test_the_last_and_the_best_are_kept(self, tmp_path):
        directory = save(tmp_path / "line", [3.0, 1.0, 2.0, 5.0, 4.0], keep=2)
        assert steps_in(directory) == {"2", "4", "5"}
        assert_is(restore(directory), 5)
        assert best_step(directory) == 2

    def test_training_can_change_the_arrays_it_has_just_saved(self, tmp_path):
        with Checkpoints(tmp_path / "line", keep=1) as checkpoints:
            state = make_state(1)
            checkpoints.save(state, {"next_batch": 1}, validation_loss=1.0)
            jax.jit(lambda w: w * 0 - 1, donate_argnums=0)(state.params["w"])
        assert_is(restore(tmp_path / "line"), 1)

    def test_there_is_nothing(self, tmp_path):
        for path in (tmp_path / "nothing", tmp_path):
            with pytest.raises(UserError, match=r"train this stage first$"):
                restore_params(path, abstract_state().params)
        assert not list(tmp_path.iterdir())


class TestDamage:
    @pytest.mark.parametrize("item", ["params", "training", "data"])
    def test_the_one_before_is_taken_and_the_step_is_free(self, directory, item):
        cut(directory / "3", item)
        with pytest.warns(UserWarning, match=r"line/3 cannot be read and is passed ov"):
            restored = restore(directory)
        assert_is(restored, 2)
        assert steps_in(directory) == {"1", "2"}
        with Checkpoints(directory, keep=10) as checkpoints:
            checkpoints.save(make_state(3), {"next_batch": 3}, validation_loss=0.0)
        assert_is(restore(directory), 3)

    def test_nothing_is_removed_if_none_can_be_read(self, directory):
        for step in "123":
            cut(directory / step, "params")
        with (
            pytest.warns(UserWarning, match="passed over"),
            pytest.raises(UserError, match=r"none of the 3 checkpoints in .*line can"),
        ):
            restore(directory)
        with (
            pytest.warns(UserWarning, match="passed over"),
            pytest.raises(UserError, match=r"no checkpoint in .*line can be read"),
        ):
            restore_params(directory, abstract_state().params)
        assert steps_in(directory) == {"1", "2", "3"}

    def test_parameters_of_the_next_best(self, directory):
        cut(directory / "1", "params")
        with pytest.warns(UserWarning, match=r"line/1 cannot be read"):
            assert best_step(directory) == 2
        assert steps_in(directory) == {"1", "2", "3"}

    @pytest.mark.parametrize("content", ["", "{", "[]"])
    def test_damaged_metadata_are_damage_too(self, directory, content):
        for file in (directory / "3" / "params").glob("_METADATA"):
            file.write_text(content)
        with pytest.warns(UserWarning, match=r"line/3 cannot be read and is passed ov"):
            restored = restore(directory)
        assert_is(restored, 2)

    def test_parameters_need_nothing_else(self, directory):
        for item in ("training", "data"):
            shutil.rmtree(directory / "1" / item)
        assert best_step(directory) == 1

    def test_a_checkpoint_without_its_loss_is_not_the_best(self, directory):
        cut(directory / "1", "metrics")
        assert best_step(directory) == 2
        assert_is(restore(directory), 3)


def full(*_, **__):
    raise OSError(28, "No space left on device")


class TestFaults:
    def test_a_full_disk_is_told_in_one_line(self, directory, monkeypatch):
        with Checkpoints(directory, keep=10) as checkpoints:
            monkeypatch.setattr(checkpoints._manager, "save", full)
            with pytest.raises(
                UserError,
                match=r"^cannot write checkpoint 4 in .*: the disk is full; earlier "
                "checkpoints are untouched, the same command goes on from them$",
            ):
                checkpoints.save(make_state(4), {}, validation_loss=1.0)
        assert_is(restore(directory), 3)

    def test_closing_hides_no_other_error(self, directory, monkeypatch):
        checkpoints = Checkpoints(directory, keep=10)
        with monkeypatch.context() as broken:
            broken.setattr(checkpoints._manager, "wait_until_finished", full)
            with pytest.raises(KeyError, match="lost"), checkpoints:
                raise KeyError("lost")
            with pytest.raises(UserError, match="the disk is full"), checkpoints:
                pass
        with checkpoints:
            assert checkpoints.last_step == 3

    def test_other_errors_keep_their_first_line(self, directory, monkeypatch):
        def denied(*_, **__):
            raise PermissionError("13: permission denied\nand a long story")

        with Checkpoints(directory, keep=10) as checkpoints:
            monkeypatch.setattr(checkpoints._manager, "save", denied)
            with pytest.raises(UserError, match="permission denied") as caught:
                checkpoints.save(make_state(4), {}, validation_loss=1.0)
            assert "\n" not in str(caught.value)


# Saves step 4 with 40 MB of noise, which takes a while, and does with it as told.
CHILD = """
import os, signal, sys
import jax, numpy as np
from vqvae_jax.errors import UserError
from vqvae_jax.training.checkpoints import Checkpoints
from vqvae_jax.training.state import TrainState
noise = np.frombuffer(os.urandom(40_000_000), np.int8)
state = jax.device_put(TrainState(np.int32(4), {"w": noise}, (), jax.random.key(0)))
try:
    with Checkpoints(sys.argv[1], keep=1) as checkpoints:
        checkpoints.save(state, {}, validation_loss=0.0)
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
except UserError as error:
    sys.exit("told: " + str(error))
"""


def child(*arguments, before=()):
    return subprocess.run(
        [*before, sys.executable, "-c", CHILD, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_killed_while_saving(directory):
    """[20] What was on disk before is read, and the remains are swept up."""
    assert child(directory, "kill").returncode == -signal.SIGKILL
    assert {"1", "2", "3"} < steps_in(directory)
    assert "4" not in steps_in(directory)
    assert_is(restore(directory), 3)
    assert steps_in(directory) == {"1", "2", "3"}


def test_large_remains_are_gone_when_it_closes(directory):
    """Orbax removes them beside the rest, and closes without waiting for that."""
    remains = directory / "4.orbax-checkpoint-tmp"
    remains.mkdir()
    for number in range(3000):
        (remains / str(number)).touch()
    assert_is(restore(directory), 3)
    assert steps_in(directory) == {"1", "2", "3"}


# A disk of 8 MB in a name space of its own, where the kernel lets anyone have one.
SMALL_DISK = """
set -e
mount -t tmpfs -o size=8m tmpfs "$0"
test $# -gt 0 || exit 0
cp -r "$1" "$0/line"
shift
code=0
"$@" || code=$?
echo "$(ls "$0/line")"
exit $code
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_disk_that_is_really_full(three_steps, tmp_path):
    """Orbax finds out while it writes, after `save` has returned."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["unshare", "-Urm", "sh", "-c", SMALL_DISK, str(disk)]
    if shutil.which("unshare") is None or subprocess.call(mounted):
        pytest.skip("no privilege to mount a tmpfs")
    result = child(disk / "line", "close", before=[*mounted, str(three_steps)])
    assert result.returncode == 1
    told = [line for line in result.stderr.splitlines() if line.startswith("told: ")]
    assert told == [
        f"told: cannot write the last checkpoint in {disk}/line: the disk is full; "
        "earlier checkpoints are untouched, the same command goes on from them"
    ]
    assert {"1", "2", "3"} <= set(result.stdout.split())
    assert "4" not in result.stdout.split()
