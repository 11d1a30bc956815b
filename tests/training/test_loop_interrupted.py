"""Preempted training saves its last step and resumes with identical results."""

import itertools
import json
import signal
from typing import ClassVar

import numpy as np
import pytest
from line_runs import Line, make_config, make_run, read_run

from vqvae_jax.data.batches import TrainBatches
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.runtime.preemption import Preempted, handle_signals
from vqvae_jax.training.checkpoints import Manager
from vqvae_jax.training.loop import fit


class Signalling:
    """Batches, before one of which the process sends itself a signal."""

    whole: ClassVar = {}
    gather = TrainBatches.gather

    def __init__(self, batches, before):
        self._batches, self._remaining = batches, before

    def get_state(self):
        return self._batches.get_state()

    def set_state(self, state):
        self._batches.set_state(state)

    def __next__(self):
        # Three batches are read before the first step, then one before each.
        self._remaining -= 1
        if self._remaining == -2:
            signal.raise_signal(signal.SIGTERM)
        return next(self._batches)


def signalled_at(run, step):
    """The run, with a signal during the given step."""
    return run._replace(train=Signalling(run.train, step))


def signalled_in_validation(run, number):
    """The run, with a signal after the first batch of the given validation."""
    numbers = itertools.count(1)

    def validation():
        current = next(numbers)
        for batch in run.validation():
            yield batch
            if current == number:
                signal.raise_signal(signal.SIGINT)

    return run._replace(validation=validation)


def interrupt(model, config, run) -> str:
    """Fit until the signal; return the message of `Preempted`."""
    with pytest.raises(Preempted) as caught, handle_signals():
        fit(model, config, run)
    return str(caught.value)


def assert_same_end(found, expected):
    """Compare checkpoints, parameters bit for bit, validations and the mark."""
    steps, params, log = read_run(found)
    expected_steps, expected_params, expected_log = read_run(expected)
    assert steps == expected_steps
    for name, value in expected_params.items():
        np.testing.assert_array_equal(params[name], value)
    validations, expected_validations = (
        [entry for entry in entries if entry["split"] == "validation"]
        for entries in (log, expected_log)
    )
    assert validations == expected_validations
    marks = [w / "checkpoints/line/finished.json" for w in (found, expected)]
    assert json.loads(marks[0].read_text()) == json.loads(marks[1].read_text())


@pytest.mark.parametrize("step", [1, 8, 19])
def test_a_signal_between_validations(step, whole, tmp_path):
    message = interrupt(Line(), make_config(), signalled_at(make_run(tmp_path), step))
    assert message == f"line is saved at step {step} of 20"
    steps, params, log = read_run(tmp_path)
    assert steps[-1] == params["seen"] == step
    # Its steps were checked, so they are logged.
    assert log[-1]["step"] == step
    fit(Line(), make_config(), make_run(tmp_path))
    assert_same_end(tmp_path, whole)


@pytest.mark.parametrize("number", [2, 4])
def test_an_interrupted_validation_is_repeated(number, whole, tmp_path):
    """Including the last one, after which no steps remain."""
    run = signalled_in_validation(make_run(tmp_path), number)
    message = interrupt(Line(), make_config(), run)
    assert message == f"line is saved at step {5 * number} of 20"
    last = tmp_path / "checkpoints" / "line" / str(5 * number)
    assert not (last / "metrics").exists()
    # A second signal in the same validation saves nothing new.
    run = signalled_in_validation(make_run(tmp_path), 1)
    assert interrupt(Line(), make_config(), run) == message
    fit(Line(), make_config(), make_run(tmp_path))
    assert_same_end(tmp_path, whole)


def test_a_signal_at_a_due_validation_defers_it(whole, tmp_path):
    message = interrupt(Line(), make_config(), signalled_at(make_run(tmp_path), 10))
    assert message == "line is saved at step 10 of 20"
    assert read_run(tmp_path)[2][-1]["split"] == "train"
    fit(Line(), make_config(), make_run(tmp_path))
    assert_same_end(tmp_path, whole)


def test_an_unvalidated_checkpoint_replaces_no_validated_one(tmp_path):
    model, config = Line(best_at=5), make_config(keep=1)
    interrupt(model, config, signalled_at(make_run(tmp_path), 13))
    assert read_run(tmp_path)[0] == [5, 10, 13]
    interrupt(model, config, signalled_at(make_run(tmp_path), 1))
    assert read_run(tmp_path)[0] == [5, 10, 14]
    fit(model, config, make_run(tmp_path))
    assert read_run(tmp_path)[0] == [5, 20]


def test_a_diverged_state_is_not_saved(tmp_path):
    run = signalled_at(make_run(tmp_path), 8)
    with pytest.raises(UserError, match="error is nan at step 7"), handle_signals():
        fit(Line(fail_at=6), make_config(), run)
    assert read_run(tmp_path)[0] == [5]


def test_a_full_disk_raises(tmp_path, monkeypatch):
    """A state that could not be saved is not reported as saved."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    interrupt(Line(), make_config(), signalled_at(make_run(tmp_path), 6))
    monkeypatch.setattr(Manager, "wait_until_finished", full)
    with pytest.raises(UserError, match="the disk is full"), handle_signals():
        fit(Line(), make_config(), signalled_at(make_run(tmp_path), 2))
