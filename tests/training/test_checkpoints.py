"""Checkpoints: round trips, retention, damage, and faults while writing."""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from checkpoint_states import ONE, abstract_state, assert_is, make_state

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training import checkpoints as checkpoints_lib
from vqvae_jax.training import sharding
from vqvae_jax.training.checkpoints import (
    Checkpoints,
    on_devices,
    readable_manager,
    restore_best,
    writable_manager,
)
from vqvae_jax.training.step import TrainState

ROOT = Path(__file__).parents[2]


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
    return int(restore_best(directory, abstract_state().params).params["w"][0, 0])


def steps_in(directory) -> set[str]:
    return {path.name for path in directory.iterdir()}


def cut(step_directory, item):
    """Truncate the files of an item's arrays or JSON to half their size."""
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
    """Three checkpoints, the first of which is the best."""
    return save(tmp_path_factory.mktemp("checkpoints") / "line", [1.0, 2.0, 3.0])


@pytest.fixture
def directory(three_steps, tmp_path):
    """A copy of the three checkpoints."""
    return shutil.copytree(three_steps, tmp_path / "line")


class TestRoundTrip:
    @pytest.mark.parametrize(("before", "after"), [("eight", "one"), ("one", "eight")])
    def test_on_another_number_of_devices(self, tmp_path, mesh, before, after):
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

    def test_the_newest_and_the_best_are_kept(self, tmp_path):
        directory = save(tmp_path / "line", [3.0, 1.0, 2.0, 5.0, 4.0], keep=2)
        assert steps_in(directory) == {"2", "4", "5"}
        assert_is(restore(directory), 5)
        assert best_step(directory) == 2

    def test_saved_arrays_can_be_donated_immediately(self, tmp_path):
        with Checkpoints(tmp_path / "line", keep=1) as checkpoints:
            state = make_state(1)
            checkpoints.save(state, {"next_batch": 1}, validation_loss=1.0)
            jax.jit(lambda w: w * 0 - 1, donate_argnums=0)(state.params["w"])
        assert_is(restore(tmp_path / "line"), 1)

    def test_a_missing_or_empty_directory_raises(self, tmp_path):
        for path in (tmp_path / "nothing", tmp_path):
            with pytest.raises(UserError, match=r"train this stage first$"):
                restore_best(path, abstract_state().params)
        assert not list(tmp_path.iterdir())


class TestDamage:
    @pytest.mark.parametrize("item", ["params", "training", "data"])
    def test_the_previous_checkpoint_is_read_and_the_damaged_one_removed(
        self, directory, item
    ):
        cut(directory / "3", item)
        with pytest.warns(UserWarning, match=r"line/3 cannot be read and is skipped"):
            restored = restore(directory)
        assert_is(restored, 2)
        assert steps_in(directory) == {"1", "2"}
        with Checkpoints(directory, keep=10) as checkpoints:
            checkpoints.save(make_state(3), {"next_batch": 3}, validation_loss=0.0)
        assert_is(restore(directory), 3)

    def test_nothing_is_removed_if_all_are_damaged(self, directory):
        for step in "123":
            cut(directory / step, "params")
        with (
            pytest.warns(UserWarning, match="is skipped"),
            pytest.raises(UserError, match=r"none of the 3 checkpoints in .*line can"),
        ):
            restore(directory)
        with (
            pytest.warns(UserWarning, match="is skipped"),
            pytest.raises(UserError, match=r"no checkpoint in .*line can be read"),
        ):
            restore_best(directory, abstract_state().params)
        assert steps_in(directory) == {"1", "2", "3"}

    def test_parameters_are_read_from_the_next_best(self, directory):
        cut(directory / "1", "params")
        with pytest.warns(UserWarning, match=r"line/1 cannot be read"):
            assert best_step(directory) == 2
        assert steps_in(directory) == {"1", "2", "3"}

    @pytest.mark.parametrize("item", ["training", "data", "metrics"])
    def test_damage_to_other_items_does_not_affect_the_parameters(
        self, directory, item
    ):
        """The warning filter turns the warning of a skipped checkpoint to an error."""
        for path in filter(Path.is_file, (directory / "1" / item).rglob("*")):
            path.write_bytes(b"")
        assert best_step(directory) == (2 if item == "metrics" else 1)
        shutil.rmtree(directory / "1" / item)
        assert best_step(directory) == (2 if item == "metrics" else 1)

    @pytest.mark.parametrize("content", ["", "{", "[]"])
    def test_damaged_metadata_counts_as_damage(self, directory, content):
        for file in (directory / "3" / "params").glob("_METADATA"):
            file.write_text(content)
        with pytest.warns(UserWarning, match=r"line/3 cannot be read and is skipped"):
            restored = restore(directory)
        assert_is(restored, 2)

    def test_parameters_are_readable_without_other_items(self, directory):
        for item in ("training", "data"):
            shutil.rmtree(directory / "1" / item)
        assert best_step(directory) == 1

    def test_a_checkpoint_with_a_damaged_loss_is_not_the_best(self, directory):
        cut(directory / "1", "metrics")
        assert best_step(directory) == 2
        assert_is(restore(directory), 3)


def with_average(state: TrainState) -> TrainState:
    average = {"w": state.params["w"] + 0.5, "table": state.params["table"] * 2}
    return state._replace(average=average)


def test_users_read_the_average_and_training_restores_both(tmp_path):
    state = with_average(make_state(1))
    with Checkpoints(tmp_path / "line", keep=1) as checkpoints:
        checkpoints.save(state, {}, validation_loss=1.0)
    abstract = on_devices(
        jax.eval_shape(lambda: with_average(make_state(0, None))), ONE
    )
    with Checkpoints(tmp_path / "line", keep=1) as checkpoints:
        restored = checkpoints.restore_latest(abstract).state
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(
        np.testing.assert_array_equal, restored._replace(key=0), state._replace(key=0)
    )
    found = restore_best(tmp_path / "line", abstract_state().params).params
    np.testing.assert_array_equal(found["w"], np.full((2, 3), 1.5))


class TestSizes:
    """Arrays of another model raise immediately and do not count as damaged."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"w": (2, 5)},
                r"w has shape \(2, 3\) in the checkpoint, expected \(2, 5\)",
            ),
            ({"bias": (7,)}, r"bias of shape \(7,\) is missing in the checkpoint"),
            ({"w": None}, r"w of shape \(2, 3\) in the checkpoint is not expected"),
        ],
    )
    def test_of_parameters(self, directory, changes, message):
        abstract = abstract_state()
        for name, shape in changes.items():
            if shape is None:
                del abstract.params[name]
            else:
                abstract.params[name] = jax.ShapeDtypeStruct(shape, "f4", sharding=ONE)
        with pytest.raises(UserError, match=rf"line/1: {message}: the model's sizes"):
            restore_best(directory, abstract.params)
        with (
            pytest.raises(UserError, match=rf"line/3: {message}: the model's sizes"),
            Checkpoints(directory, keep=10) as checkpoints,
        ):
            checkpoints.restore_latest(abstract)
        assert steps_in(directory) == {"1", "2", "3"}

    def test_of_the_other_items(self, directory):
        abstract = abstract_state()._replace(opt_state=())
        with (
            pytest.raises(UserError, match=r"opt_state/.* is not expected, and 1 more"),
            Checkpoints(directory, keep=10) as checkpoints,
        ):
            checkpoints.restore_latest(abstract)


def test_the_newest_of_equal_checkpoints_is_the_best(tmp_path):
    """For retention, for reading and for `best_step`."""
    directory = save(tmp_path / "line", [3.0, 1.0, 1.0, 2.0], keep=1)
    assert steps_in(directory) == {"3", "4"}
    assert best_step(directory) == 3
    with Checkpoints(directory, keep=1) as checkpoints:
        assert (checkpoints.last_step, checkpoints.best_step) == (4, 3)
        checkpoints.save(make_state(5), {}, validation_loss=0.5)
        assert checkpoints.best_step == 5


@pytest.mark.parametrize("name", ["exp[1]", "exp*", "exp?", "in[side/line"])
def test_a_path_with_wildcards_is_refused_before_the_first_step(name, tmp_path):
    """Orbax would write checkpoints that cannot be read, even after a rename."""
    with pytest.raises(UserError, match=r"its absolute path contains \*, \? or \["):
        Checkpoints(tmp_path / name, keep=1)
    assert not list(tmp_path.iterdir())


def test_a_path_that_is_not_utf_8_is_refused(directory, tmp_path):
    renamed = directory.rename(tmp_path / os.fsdecode(b"b\xe9"))
    for read in (best_step, restore):
        with pytest.raises(UserError, match=r"its absolute path is not UTF-8; rename"):
            read(renamed)


def test_other_files_in_the_directory_are_kept(directory):
    """The mark of a finished stage, and the temporary file of a killed run."""
    for name in ("finished.json", ".finished.json.tmp"):
        (directory / name).write_text("{}")
    with Checkpoints(directory, keep=1) as checkpoints:
        assert (checkpoints.last_step, checkpoints.best_step) == (3, 1)
        checkpoints.save(make_state(4), {}, validation_loss=5.0)
    assert steps_in(directory) == {"1", "4", "finished.json", ".finished.json.tmp"}


class TestManager:
    def test_steps_are_ordered_by_loss_then_age_and_unvalidated_last(self, tmp_path):
        write_all(tmp_path, [2.0, 1.0, 2.0, 1.0, 3.0, None])
        with readable_manager(tmp_path) as manager:
            assert manager.best_first() == [4, 2, 3, 1, 5, 6]

    def test_a_modified_loss_is_ignored(self, tmp_path):
        write_all(tmp_path, [2.0, 1.0])
        file = tmp_path / "2" / "metrics" / "metrics"
        assert json.loads(file.read_text())["validation_loss"] == 1.0
        file.write_text(file.read_text().replace("1.0", "0.5"))
        with readable_manager(tmp_path) as manager:
            assert manager.best_first() == [1, 2]

    @pytest.mark.parametrize(
        ("losses", "kept"),
        [
            ([1.0, 2.0, 3.0, 4.0], {"1", "3", "4"}),
            ([4.0, 3.0, 2.0, 1.0], {"3", "4"}),
            # An unvalidated one is kept only while it is the newest, in addition.
            ([4.0, 3.0, 2.0, None], {"2", "3", "4"}),
            ([4.0, 3.0, None, 2.0], {"2", "4"}),
        ],
    )
    def test_the_newest_two_and_the_best_are_kept(self, losses, kept, tmp_path):
        write_all(tmp_path, losses, keep=2)
        assert steps_in(tmp_path) == kept

    def test_read_returns_the_requested_items(self, tmp_path):
        write_all(tmp_path, [1.0, 1.0])
        with readable_manager(tmp_path) as manager:
            found = manager.read(2, params=tree(0))
            assert found.keys() == {"params"}
            np.testing.assert_array_equal(found["params"]["w"], [2, 2, 2])
            with pytest.raises(
                UserError, match=r"w has shape \(3,\) in the checkpoint"
            ):
                manager.read(1, params=tree(0, size=4))
        with writable_manager(tmp_path, keep=2) as manager:
            found = manager.read(1, params=tree(0), training=tree(0))
            assert found["data"] == {"next": 1}
            np.testing.assert_array_equal(found["training"]["w"], [-1, -1, -1])

    def test_a_temporary_failure_is_retried_once(self, tmp_path, monkeypatch):
        monkeypatch.setattr(checkpoints_lib, "_RETRY_DELAY", 0.0)
        write_all(tmp_path, [1.0])
        with readable_manager(tmp_path) as manager:
            restore, failures = manager.restore, [OSError("Input/output error")]

            def fail_first(step, args):
                if failures:
                    raise failures.pop()
                return restore(step, args=args)

            monkeypatch.setattr(manager, "restore", fail_first)
            found = manager.read(1, params=tree(0))
            np.testing.assert_array_equal(found["params"]["w"], [1, 1, 1])
            failures += [OSError("Input/output error")] * 2
            with pytest.raises(OSError, match="Input/output error"):
                manager.read(1, params=tree(0))
            assert not failures

    def test_a_loss_that_cannot_be_read_is_retried_and_reported(
        self, tmp_path, monkeypatch
    ):
        """A network drive fails once, then twice."""
        monkeypatch.setattr(checkpoints_lib, "_RETRY_DELAY", 0.0)
        write_all(tmp_path, [1.0, 2.0])
        with readable_manager(tmp_path) as manager:
            read, failures = ocp.CheckpointManager.metrics, []

            def fail_first(self, step):
                if step == 1 and failures:
                    raise failures.pop()
                return read(self, step)

            monkeypatch.setattr(ocp.CheckpointManager, "metrics", fail_first)
            failures.append(OSError(errno.EIO, "Input/output error"))
            assert manager.best_first() == [1, 2]
            failures += [OSError(errno.ESTALE, "Stale file handle")] * 2
            match = r"loss of checkpoint .*/1 cannot be read .*Stale file handle"
            with pytest.warns(UserWarning, match=match):
                assert manager.best_first() == [2, 1]
            failures += [FileNotFoundError(errno.ENOENT, "missing")]
            assert manager.best_first() == [2, 1]
            assert not failures

    def test_a_jump_of_the_clock_exceeds_no_deadline(self, tmp_path, monkeypatch):
        """The clock advances by a year between any two readings."""
        start, years = time.time(), itertools.count()
        monkeypatch.setattr(time, "time", lambda: start + next(years) * 31_536_000)
        with writable_manager(tmp_path, keep=1) as manager:
            write(manager, 1, 1.0)
            manager.wait_until_finished()
        assert next(years) > 2
        assert (tmp_path / "1" / "metrics").exists()


def tree(step: int, size: int = 3) -> dict:
    return {"w": jnp.full(size, step, "float32")}


def write(manager, step: int, loss: float | None) -> None:
    manager.write(
        step,
        params=tree(step),
        training=tree(-step),
        data={"next": step},
        validation_loss=loss,
    )


def write_all(directory, losses, *, keep: int = 10) -> None:
    """Write steps 1, 2, … with these validation losses."""
    with writable_manager(directory, keep=keep) as manager:
        for step, loss in enumerate(losses, start=1):
            write(manager, step, loss)


def full(*_, **__):
    raise OSError(28, "No space left on device")


class TestFaults:
    def test_a_full_disk_raises_one_line(self, directory, monkeypatch):
        with Checkpoints(directory, keep=10) as checkpoints:
            monkeypatch.setattr(checkpoints._manager, "save", full)
            with pytest.raises(
                UserError,
                match=r"^cannot write checkpoint 4 in .*: the disk is full; earlier "
                "checkpoints are intact, rerun the same command to resume from them$",
            ):
                checkpoints.save(make_state(4), {}, validation_loss=1.0)
        assert_is(restore(directory), 3)

    def test_closing_does_not_hide_another_error(self, directory, monkeypatch):
        checkpoints = Checkpoints(directory, keep=10)
        with monkeypatch.context() as broken:
            broken.setattr(checkpoints._manager, "wait_until_finished", full)
            with pytest.raises(KeyError, match="lost"), checkpoints:
                raise KeyError("lost")
            with pytest.raises(UserError, match="the disk is full"), checkpoints:
                pass
        with checkpoints:
            assert checkpoints.last_step == 3

    def test_other_errors_are_reduced_to_their_first_line(self, directory, monkeypatch):
        def denied(*_, **__):
            raise PermissionError("13: permission denied\nand further lines")

        with Checkpoints(directory, keep=10) as checkpoints:
            monkeypatch.setattr(checkpoints._manager, "save", denied)
            with pytest.raises(UserError, match="permission denied") as caught:
                checkpoints.save(make_state(4), {}, validation_loss=1.0)
            assert "\n" not in str(caught.value)


# Starts to save 40 MB of noise as step 4; then kills itself or closes, as argv says.
CHILD = """
import os, signal, sys
import jax, numpy as np
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.checkpoints import Checkpoints
from vqvae_jax.training.step import TrainState
noise = np.frombuffer(os.urandom(40_000_000), np.int8)
state = jax.device_put(TrainState(np.int32(4), {"w": noise}, (), jax.random.key(0)))
try:
    with Checkpoints(sys.argv[1], keep=1) as checkpoints:
        checkpoints.save(state, {}, validation_loss=0.0)
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
except UserError as error:
    sys.exit("error: " + str(error))
"""


def child(*arguments, before=()):
    return subprocess.run(
        [*before, sys.executable, "-c", CHILD, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_killed_while_saving(directory):
    """[20] Earlier checkpoints are read, and the remains are removed."""
    assert child(directory, "kill").returncode == -signal.SIGKILL
    assert {"1", "2", "3"} < steps_in(directory)
    assert "4" not in steps_in(directory)
    assert_is(restore(directory), 3)
    assert steps_in(directory) == {"1", "2", "3"}


def test_closing_waits_for_the_removal_of_large_remains(directory):
    """Orbax removes them in a thread, for which its own `close` does not wait."""
    remains = directory / "4.orbax-checkpoint-tmp"
    remains.mkdir()
    for number in range(3000):
        (remains / str(number)).touch()
    assert_is(restore(directory), 3)
    assert steps_in(directory) == {"1", "2", "3"}


# Runs a command with a disk of 8 MB, mounted in a new namespace.
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
def test_a_real_full_disk(three_steps, tmp_path):
    """Orbax fails while it writes in the background, after `save` has returned."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["unshare", "-Urm", "sh", "-c", SMALL_DISK, str(disk)]
    if shutil.which("unshare") is None or subprocess.call(mounted):
        pytest.skip("no privilege to mount a tmpfs")
    result = child(disk / "line", "close", before=[*mounted, str(three_steps)])
    assert result.returncode == 1
    errors = [x for x in result.stderr.splitlines() if x.startswith("error: ")]
    assert errors == [
        f"error: cannot write the last checkpoint in {disk}/line: the disk is full; "
        "earlier checkpoints are intact, rerun the same command to resume from them"
    ]
    assert {"1", "2", "3"} <= set(result.stdout.split())
    assert "4" not in result.stdout.split()
