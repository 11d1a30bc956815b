"""The loop with a tiny model: results, resuming, early stopping, faults, devices."""

import itertools
import json
import re
import shutil
import signal
from typing import ClassVar

import numpy as np
import pytest
from line_runs import Line, Points, make_config, make_run, read_run

from vqvae_jax.data.batches import TrainBatches
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.runtime.preemption import Preempted, handle_signals
from vqvae_jax.training import loop
from vqvae_jax.training.checkpoints import Manager
from vqvae_jax.training.loop import checkpoint_directory, fit


@pytest.fixture(scope="module")
def ten_steps(tmp_path_factory):
    """Workdir of a run of 10 steps; tests copy it."""
    workdir = tmp_path_factory.mktemp("ten")
    fit(Line(), make_config(steps=10), make_run(workdir))
    return workdir


class Stopping:
    """Batches of a process that receives a signal in the step after `after`."""

    whole: ClassVar = {}
    gather = TrainBatches.gather

    def __init__(self, batches, after):
        self._batches, self._remaining = batches, after
        self.get_state, self.set_state = batches.get_state, batches.set_state

    def __next__(self):
        # Three batches are read before the first step, then one before each.
        self._remaining -= 1
        if self._remaining == -3:
            signal.raise_signal(signal.SIGTERM)
        return next(self._batches)


@pytest.fixture
def half(ten_steps, tmp_path):
    """A copy of a run of 10 steps."""
    return shutil.copytree(ten_steps, tmp_path / "half")


def test_fit_trains_validates_and_logs(whole):
    steps, params, log = read_run(whole)
    assert steps == [15, 20]
    assert params["seen"] == 20
    validation = {e["step"]: e["loss"] for e in log if e["split"] == "validation"}
    assert [e["step"] for e in log if e["split"] == "train"] == [5, 10, 15, 20]
    assert sorted(validation) == [5, 10, 15, 20]
    assert validation[20] < validation[5]
    assert {"loss", "error", "gradient_norm", "examples_per_second"} <= log[0].keys()
    # The error over the whole set, computed in NumPy.
    source = Points()
    expected = np.mean((source.x @ params["w"] - source.y) ** 2)
    assert validation[20] == pytest.approx(expected, rel=1e-4)
    assert list((whole / "tensorboard" / "line").iterdir())


def assert_same_run(found, expected):
    """Compare parameters bit for bit, and all logged values except the speed."""
    (_, params, log), (_, expected_params, expected_log) = map(
        read_run, (found, expected)
    )
    for name, value in expected_params.items():
        np.testing.assert_array_equal(params[name], value)
    for entry in log + expected_log:
        entry.pop("examples_per_second", None)
    assert log == expected_log


def test_ten_and_ten_steps_equal_twenty(whole, half):
    """[20] Optimiser, key, data position and parameters are restored bit for bit.

    Log entries of lost steps are dropped.
    """
    with (half / "metrics.jsonl").open("a") as file:
        lost = {"stage": "line", "split": "train", "step": 15, "loss": 1e9}
        file.write(json.dumps(lost) + "\n" + '{"stage": "li')
    fit(Line(), make_config(), make_run(half))
    assert_same_run(half, whole)


@pytest.mark.parametrize("on_device", [False, True])
def test_several_steps_per_call_and_data_on_the_device_equal_single_steps(
    on_device, whole, tmp_path
):
    """Bit for bit, and every step is logged and checked."""
    run = make_run(tmp_path)
    batches = TrainBatches(Points(), batch_size=16, seed=1, on_device=on_device)
    config = make_config(steps_per_call=5)
    fit(Line(), config, run._replace(train=batches))
    assert_same_run(tmp_path, whole)


def test_steps_per_call_may_change_when_a_run_resumes(whole, tmp_path):
    """From step 12, single steps lead to 15, then five are one call."""
    run = make_run(tmp_path)
    with pytest.raises(Preempted), handle_signals():
        fit(Line(), make_config(), run._replace(train=Stopping(run.train, after=12)))
    batches = TrainBatches(Points(), batch_size=16, seed=1, on_device=True)
    config = make_config(steps_per_call=5)
    fit(Line(), config, make_run(tmp_path)._replace(train=batches))
    _, params, log = read_run(tmp_path)
    _, expected, expected_log = read_run(whole)
    assert params["seen"] == 20
    np.testing.assert_array_equal(params["w"], expected["w"])
    assert log[-1]["loss"] == expected_log[-1]["loss"]


def test_a_diverged_step_inside_a_call_is_named(tmp_path):
    config = make_config(steps_per_call=5)
    with pytest.raises(UserError, match=r"is nan at step 8; .*line/5"):
        fit(Line(fail_at=7), config, make_run(tmp_path))


class TestCalls:
    @pytest.mark.parametrize(
        ("step", "expected"),
        [(0, [5, 5, 5, 5, 1, 1]), (3, [1, 1, 5, 5, 5, 1, 1]), (21, [1, 1])],
    )
    def test_calls_end_at_multiples(self, step, expected):
        config = make_config(steps=22, steps_per_call=5)
        calls = itertools.islice(loop._steps_of_calls(config, step), len(expected))
        assert list(calls) == expected

    @pytest.mark.parametrize("name", ["log_every", "checkpoint_every"])
    def test_logs_and_checkpoints_are_between_calls(self, name):
        message = rf"{name}=7 must be a multiple of steps_per_call=5"
        with pytest.raises(UserError, match=message):
            make_config(**{name: 7}, steps_per_call=5)


def test_a_damaged_checkpoint_does_not_change_the_results(whole, half):
    """[20] The data resume from the older checkpoint, too."""
    last = checkpoint_directory(half, "line") / "10"
    for file in last.glob("*/d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"line/10 cannot be read and is skipped"):
        fit(Line(), make_config(), make_run(half))
    assert_same_run(half, whole)


def test_ten_and_ten_steps_equal_twenty_with_an_average(tmp_path):
    """[20] Both the average and the parameters, from another item, are restored."""
    for name, ends in (("whole", (20,)), ("half", (10, 20))):
        for steps in ends:
            config = make_config(steps=steps, params_ema_decay=0.9)
            fit(Line(), config, make_run(tmp_path / name))
    assert_same_run(tmp_path / "half", tmp_path / "whole")
    # The average is validated, and read by users.
    _, average, log = read_run(tmp_path / "whole")
    source = Points()
    expected = np.mean((source.x @ average["w"] - source.y) ** 2)
    (loss,) = (e["loss"] for e in log if (e["split"], e["step"]) == ("validation", 20))
    assert loss == pytest.approx(expected, rel=1e-4)
    # seen is t after t steps; compute the weighted mean of 1 ... 20.
    seen = 0.0
    for t in range(20):
        decay = min(0.9, (1 + t) / (10 + t))
        seen = decay * seen + (1 - decay) * (t + 1)
    assert average["seen"] == pytest.approx(seen, rel=1e-5)


def mark(workdir):
    return json.loads((workdir / "checkpoints/line/finished.json").read_text())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Workdir of a run that stopped early; tests do not modify it."""
    workdir = tmp_path_factory.mktemp("stopped")
    fit(Line(best_at=10), make_config(steps=40, patience=2), make_run(workdir))
    return workdir


class TestPatience:
    """A model that is best at step 10, validated every 5 steps, with patience 2."""

    def test_training_ends_after_two_worse_validations(self, stopped):
        steps, params, log = read_run(stopped)
        assert steps == [10, 15, 20]
        assert params["seen"] == 20
        assert [e["step"] for e in log if e["split"] == "validation"] == [5, 10, 15, 20]
        assert mark(stopped) == {"last_step": 20, "best_step": 10}

    @pytest.mark.parametrize("killed_at", [5, 10, 15])
    def test_a_resumed_run_ends_at_the_same_step(self, stopped, killed_at, tmp_path):
        model, run = Line(best_at=10), make_run(tmp_path)
        fit(model, make_config(steps=killed_at), run)
        fit(model, make_config(steps=40, patience=2), make_run(tmp_path))
        assert mark(tmp_path) == mark(stopped)
        assert_same_run(tmp_path, stopped)

    def test_resuming_after_the_last_step_only_writes_the_mark(
        self, stopped, tmp_path, capsys
    ):
        workdir = shutil.copytree(stopped, tmp_path / "run")
        (workdir / "checkpoints/line/finished.json").unlink()
        before = (workdir / "metrics.jsonl").read_bytes()
        fit(Line(best_at=10), make_config(steps=40, patience=2), make_run(workdir))
        assert mark(workdir) == mark(stopped)
        assert (workdir / "metrics.jsonl").read_bytes() == before
        printed = " ".join(capsys.readouterr().out.split())
        assert printed == (
            "line stopped early at step 20 of 40: no validation was better than the "
            "one at step 10"
        )

    def test_further_training_removes_the_mark(self, stopped, tmp_path):
        workdir = shutil.copytree(stopped, tmp_path / "run")
        config = make_config(steps=40, patience=3)
        with pytest.raises(UserError, match="nan at step 23"):
            fit(Line(fail_at=22), config, make_run(workdir))
        assert not (workdir / "checkpoints/line/finished.json").exists()

    def test_without_patience_all_steps_are_taken(self, whole, capsys):
        assert mark(whole)["last_step"] == 20
        assert "early" not in capsys.readouterr().out


def test_a_finished_run_is_unchanged(whole):
    before = (whole / "metrics.jsonl").read_bytes()
    fit(Line(), make_config(), make_run(whole))
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_the_best_by_validation_is_kept(tmp_path):
    config = make_config(keep=1, checkpoint_every=4, log_every=20)
    fit(Line(best_at=8), config, make_run(tmp_path))
    assert read_run(tmp_path)[0] == [8, 20]


def test_nan_raises_with_term_step_and_last_good_checkpoint(half):
    expected = re.escape(f"{checkpoint_directory(half, 'line')}/10")
    with pytest.raises(UserError, match=f"line: error is nan at step 13.*{expected}"):
        fit(Line(fail_at=12), make_config(), make_run(half))
    assert read_run(half)[0] == [5, 10]


def full(*_, **__):
    raise OSError(28, "No space left on device")


def test_nan_is_reported_even_if_the_disk_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(Manager, "wait_until_finished", full)
    with pytest.raises(UserError, match=r"error is nan at step 2; .* is none yet"):
        fit(Line(fail_at=1), make_config(), make_run(tmp_path))


def test_a_full_disk_raises_and_keeps_earlier_checkpoints(half, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(Manager, "save", full)
        with pytest.raises(
            UserError, match=r"checkpoint 15 .*the disk is full.*intact"
        ):
            fit(Line(), make_config(), make_run(half))
    assert read_run(half)[0] == [5, 10]


def test_an_indivisible_batch_size_raises(tmp_path):
    with pytest.raises(
        UserError, match=r"^training.batch_size=12 must be a multiple of the 8"
    ):
        fit(Line(), make_config(batch_size=12), make_run(tmp_path))
    assert not list(tmp_path.iterdir())
