"""What the manager keeps, in which order it is read, and how long it waits."""

import itertools
import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training import manager


def tree(step: int, size: int = 3) -> dict:
    """Arrays that tell their step."""
    return {"w": jnp.full(size, step, "float32")}


def write(opened, step: int, loss: float | None) -> None:
    opened.write(
        step,
        params=tree(step),
        training=tree(-step),
        data={"next": step},
        validation_loss=loss,
    )


def written(directory, losses, *, keep: int = 10):
    """Save steps 1, 2, … with these validation losses."""
    with manager.to_write(directory, keep=keep) as opened:
        for step, loss in enumerate(losses, start=1):
            write(opened, step, loss)
    return directory


def test_they_are_read_by_loss_then_newest_then_those_without(tmp_path):
    written(tmp_path, [2.0, 1.0, 2.0, 1.0, 3.0, None])
    with manager.to_read(tmp_path) as opened:
        assert opened.best_first() == [4, 2, 3, 1, 5, 6]


def test_a_loss_that_was_changed_is_none(tmp_path):
    written(tmp_path, [2.0, 1.0])
    file = tmp_path / "2" / "metrics" / "metrics"
    assert json.loads(file.read_text())["validation_loss"] == 1.0
    file.write_text(file.read_text().replace("1.0", "0.5"))
    with manager.to_read(tmp_path) as opened:
        assert opened.best_first() == [1, 2]


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([1.0, 2.0, 3.0, 4.0], {"1", "3", "4"}),
        ([4.0, 3.0, 2.0, 1.0], {"3", "4"}),
        # One without a loss takes no other's place, and goes when it is not the newest.
        ([4.0, 3.0, 2.0, None], {"2", "3", "4"}),
        ([4.0, 3.0, None, 2.0], {"2", "4"}),
    ],
)
def test_two_of_the_newest_and_the_best_are_kept(losses, kept, tmp_path):
    written(tmp_path, losses, keep=2)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_what_comes_back_is_what_was_asked_for(tmp_path):
    written(tmp_path, [1.0, 1.0])
    with manager.to_read(tmp_path) as opened:
        found = opened.read(2, params=tree(0))
        assert found.keys() == {"params"}
        np.testing.assert_array_equal(found["params"]["w"], [2, 2, 2])
        found = opened.read(1, params=tree(0), training=tree(0))
        assert found["data"] == {"next": 1}
        np.testing.assert_array_equal(found["training"]["w"], [-1, -1, -1])
        with pytest.raises(UserError, match=r"w has shape \(3,\) in the checkpoint"):
            opened.read(1, params=tree(0, size=4))


def test_what_fails_for_a_moment_is_no_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(manager, "_PAUSE", 0.0)
    written(tmp_path, [1.0])
    with manager.to_read(tmp_path) as opened:
        restore, failures = opened.restore, [OSError("Input/output error")]

        def fail_first(step, args):
            if failures:
                raise failures.pop()
            return restore(step, args=args)

        monkeypatch.setattr(opened, "restore", fail_first)
        found = opened.read(1, params=tree(0))
        np.testing.assert_array_equal(found["params"]["w"], [1, 1, 1])
        failures += [OSError("Input/output error")] * 2
        with pytest.raises(OSError, match="Input/output error"):
            opened.read(1, params=tree(0))
        assert not failures


def test_a_leap_of_the_clock_is_no_time_that_passed(tmp_path, monkeypatch):
    """A year goes by between any two looks at the clock."""
    start, years = time.time(), itertools.count()
    monkeypatch.setattr(time, "time", lambda: start + next(years) * 31_536_000)
    with manager.to_write(tmp_path, keep=1) as opened:
        write(opened, 1, 1.0)
        opened.wait_until_finished()
    assert next(years) > 2
    assert (tmp_path / "1" / "metrics").exists()
