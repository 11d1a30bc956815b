"""Training that is told to end saves where it is, and goes on as if it had not been."""

import json
import signal

import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.runtime.preemption import Interrupted, listening
from vqvae_jax.training.loop import fit
from vqvae_jax.training.manager import Manager


class Telling:
    """Batches, before one of which the process is told to end."""

    def __init__(self, batches, before):
        self._batches, self._left = batches, before

    def get_state(self):
        return self._batches.get_state()

    def set_state(self, state):
        self._batches.set_state(state)

    def __next__(self):
        # Three batches are read before the first step, then one before each.
        self._left -= 1
        if self._left == -2:
            signal.raise_signal(signal.SIGTERM)
        return next(self._batches)


def told_before(run, step):
    """The run, told to end while the given step is taken."""
    return run._replace(train=Telling(run.train, step))


def told_in_validation(run, number):
    """The run, told to end in the given validation, after its first batch."""
    done = []

    def validation():
        done.append(None)
        for batch in run.validation():
            yield batch
            if len(done) == number:
                signal.raise_signal(signal.SIGINT)

    return run._replace(validation=validation)


def interrupt(model, config, run) -> str:
    """Fit, and return where it was interrupted."""
    with pytest.raises(Interrupted) as caught, listening():
        fit(model, config, run)
    return str(caught.value)


@pytest.fixture(scope="module")
def whole(line, make_config, make_run, tmp_path_factory):
    """The workdir of an undisturbed run; tests only read it."""
    workdir = tmp_path_factory.mktemp("whole")
    fit(line(), make_config(), make_run(workdir))
    return workdir


def assert_same_end(read_run, found, expected):
    """Checkpoints, parameters bit for bit, validations and the mark are the same."""
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
def test_between_validations(
    step, whole, tmp_path, line, make_config, make_run, read_run
):
    where = interrupt(line(), make_config(), told_before(make_run(tmp_path), step))
    assert where == f"line is saved at step {step} of 20"
    steps, params, log = read_run(tmp_path)
    assert steps[-1] == params["seen"] == step
    # Its steps are logged, as they were checked.
    assert log[-1]["step"] == step
    fit(line(), make_config(), make_run(tmp_path))
    assert_same_end(read_run, tmp_path, whole)


@pytest.mark.parametrize("number", [2, 4])
def test_in_a_validation_which_is_then_owed(
    number, whole, tmp_path, line, make_config, make_run, read_run
):
    """The last one too, after which no step is left to take."""
    run = told_in_validation(make_run(tmp_path), number)
    where = interrupt(line(), make_config(), run)
    assert where == f"line is saved at step {5 * number} of 20"
    last = tmp_path / "checkpoints" / "line" / str(5 * number)
    assert not (last / "metrics").exists()
    # Interrupted in it again, there is nothing to add.
    run = told_in_validation(make_run(tmp_path), 1)
    assert interrupt(line(), make_config(), run) == where
    fit(line(), make_config(), make_run(tmp_path))
    assert_same_end(read_run, tmp_path, whole)


def test_where_a_validation_is_due_it_is_owed_too(
    whole, tmp_path, line, make_config, make_run, read_run
):
    where = interrupt(line(), make_config(), told_before(make_run(tmp_path), 10))
    assert where == "line is saved at step 10 of 20"
    assert read_run(tmp_path)[2][-1]["split"] == "train"
    fit(line(), make_config(), make_run(tmp_path))
    assert_same_end(read_run, tmp_path, whole)


def test_it_takes_the_place_of_no_validated_one(
    tmp_path, line, make_config, make_run, read_run
):
    model, config = line(best_at=5), make_config(keep=1)
    interrupt(model, config, told_before(make_run(tmp_path), 13))
    assert read_run(tmp_path)[0] == [5, 10, 13]
    interrupt(model, config, told_before(make_run(tmp_path), 1))
    assert read_run(tmp_path)[0] == [5, 10, 14]
    fit(model, config, make_run(tmp_path))
    assert read_run(tmp_path)[0] == [5, 20]


def test_what_has_diverged_is_not_saved(
    tmp_path, line, make_config, make_run, read_run
):
    run = told_before(make_run(tmp_path), 8)
    with pytest.raises(UserError, match="error is nan at step 7"), listening():
        fit(line(fail_at=6), make_config(), run)
    assert read_run(tmp_path)[0] == [5]


def test_a_full_disk_is_told(tmp_path, line, make_config, make_run, monkeypatch):
    """Nothing is said to be saved that is not."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    interrupt(line(), make_config(), told_before(make_run(tmp_path), 6))
    monkeypatch.setattr(Manager, "wait_until_finished", full)
    with pytest.raises(UserError, match="the disk is full"), listening():
        fit(line(), make_config(), told_before(make_run(tmp_path), 2))
