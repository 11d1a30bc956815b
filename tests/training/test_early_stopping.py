"""When training ends, and the file that marks a finished stage."""

import json

import pytest
from line_runs import make_config

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training import early_stopping


@pytest.mark.parametrize(
    ("patience", "last", "best", "over"),
    [
        (0, 19, 5, False),
        (0, 20, 5, True),
        (0, 25, 5, True),
        # Validations count, not steps: those at 10 and 15; that at 20 is still due.
        (3, 19, 5, False),
        (3, 15, 5, False),
        (2, 15, 5, True),
        (1, 10, 10, False),
        (1, 10, 5, True),
        (1, 20, 20, True),
        (1, 0, None, False),
        (1, 10, None, False),
    ],
)
def test_training_ends_by_steps_or_patience(patience, last, best, over):
    """20 steps with a validation every 5."""
    config = make_config(patience=patience)
    assert early_stopping.is_over(config, last_step=last, best_step=best) == over


def test_the_mark_stores_the_last_and_the_best_step(tmp_path):
    assert not early_stopping.is_marked(tmp_path)
    assert not early_stopping.is_marked(tmp_path / "nothing")
    early_stopping.write_mark(tmp_path, last_step=15, best_step=5)
    assert early_stopping.is_marked(tmp_path)
    (mark,) = tmp_path.iterdir()
    assert json.loads(mark.read_text()) == {"last_step": 15, "best_step": 5}
    early_stopping.remove_mark(tmp_path)
    early_stopping.remove_mark(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_mark_is_written_atomically(tmp_path, limited_file_sizes):
    with (
        limited_file_sizes(),
        pytest.raises(UserError, match=r"cannot write .*finished.json: File too large"),
    ):
        early_stopping.write_mark(tmp_path, last_step=15, best_step=5)
    assert not early_stopping.is_marked(tmp_path)
