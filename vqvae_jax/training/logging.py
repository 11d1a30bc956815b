"""Where metrics go: `metrics.jsonl`, TensorBoard events and the terminal.

And Weights & Biases, where `WANDB_PROJECT` asks for it.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import rich
import rich.progress

from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.tensorboard import EventFile
from vqvae_jax.training.weights_and_biases import WandbRun


class MetricsLog:
    """Writes one stage's metrics to `metrics.jsonl` and to TensorBoard.

    Of several processes the first one does.
    """

    def __init__(self, workdir: Path, stage: str, *, start_step: int):
        """Open the logs and drop what an interrupted run wrote after `start_step`.

        Raises:
          UserError: they cannot be written, here as in `write` and at the end.
        """
        self._stage = stage
        self._path = Path(workdir) / "metrics.jsonl"
        tensorboard = Path(workdir) / "tensorboard" / stage
        is_kept = distributed.is_first()
        with self._told_in_one_line():
            self._wandb = WandbRun(workdir, stage)
            if is_kept:
                _drop_after(self._path, stage, start_step)
            path = self._path if is_kept else Path(os.devnull)
            self._file = path.open("a", encoding="utf-8")
            self._tensorboard = (
                EventFile(tensorboard, purge_step=start_step + 1) if is_kept else None
            )

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Append the values of a step; `split` is "train" or "validation"."""
        self._wandb.write(step, split, values)
        line = {"stage": self._stage, "split": split, "step": step, **values}
        with self._told_in_one_line():
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            for name, value in values.items() if self._tensorboard else ():
                self._tensorboard.add_scalar(f"{split}/{name}", value, step)

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, traceback):
        self._wandb.close(failed=error is not None)
        try:
            with self._told_in_one_line(), contextlib.ExitStack() as both:
                both.callback(self._file.close)
                if self._tensorboard:
                    both.callback(self._tensorboard.close)
        except UserError:
            # What ended the training says more than what it left half-written.
            if error is None:
                raise

    @contextlib.contextmanager
    def _told_in_one_line(self):
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write {self._path} and its TensorBoard events: "
                f"{error.strerror}; the same command goes on from the last checkpoint"
            ) from error


def read_entries(path: Path) -> list[dict]:
    """Return the lines of a `metrics.jsonl` that are whole.

    That is not the last line of a run that was killed while it wrote. Each of the
    others has a "stage", a "split", a "step" and numbers by name.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return [entry for line in text.splitlines() if (entry := _entry(line)) is not None]


def _entry(line: str) -> dict | None:
    try:
        entry = json.loads(line)
        names = entry["stage"], entry["split"]
        numbers = entry.keys() - {"stage", "split"}
        is_whole = (
            all(isinstance(name, str) for name in names)
            and type(entry["step"]) is int
            and all(type(entry[name]) in (int, float) for name in numbers)
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return entry if is_whole else None


class Progress:
    """A progress bar with speed and time left, or plain lines without a terminal."""

    def __init__(self, stage: str, start_step: int, steps: int, batch_size: int):
        """Show a stage that has done `start_step` of `steps`."""
        self._stage, self._steps, self._batch_size = stage, steps, batch_size
        self._console = rich.get_console()
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("[bold]{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[status]}"),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(
            stage, total=steps, completed=start_step, status=""
        )
        self._last = (time.monotonic(), start_step)

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *error):
        self._bar.stop()

    def advance(self, step: int, values: Mapping[str, float]) -> float:
        """Show a step's metrics; return examples per second since the last call."""
        now = time.monotonic()
        then, done = self._last
        self._last = (now, step)
        speed = (step - done) * self._batch_size / max(now - then, 1e-9)
        status = f"loss {values['loss']:.4f}, {speed:,.0f} examples/s"
        self._bar.update(self._task, completed=step, status=status)
        if not self._console.is_terminal:
            self._console.print(
                f"{self._stage} {step}/{self._steps}: {status}", highlight=False
            )
        return speed

    @contextlib.contextmanager
    def paused(self):
        """Leave what happens inside out of the speed."""
        start = time.monotonic()
        yield
        then, done = self._last
        self._last = (then + time.monotonic() - start, done)


def _drop_after(path: Path, stage: str, start_step: int) -> None:
    if not path.exists():
        return
    kept = [
        json.dumps(entry) + "\n"
        for entry in read_entries(path)
        if entry["stage"] != stage or entry["step"] <= start_step
    ]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)
