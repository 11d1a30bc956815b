"""Logs of training: `metrics.jsonl`, TensorBoard events and the terminal.

`weights_and_biases` adds Weights & Biases if `WANDB_PROJECT` is set.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import rich
import rich.progress
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from vqvae_jax.runtime import distributed, safe_io
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.runtime.terminal import print_line
from vqvae_jax.training.weights_and_biases import WandbRun

_FLUSH_SECONDS = 30


def run_name(workdir: str | os.PathLike) -> str:
    """Return the last part of a workdir's path, or the last two if it is a number.

    A study stores its runs in <name>/<seed>, and the seed alone does not identify one.
    """
    path = Path(workdir).resolve()
    if path.name.isdecimal() and path.parent.name:
        return f"{path.parent.name}/{path.name}"
    return path.name


class MetricsLog:
    """Writes the metrics of one stage to `metrics.jsonl` and TensorBoard.

    Only the first of several processes writes.
    """

    def __init__(self, workdir: Path, stage: str, *, start_step: int):
        """Open the logs and drop entries after `start_step` of an interrupted run.

        Raises:
          UserError: the logs cannot be written; also raised by `write` and on exit.
        """
        self._stage = stage
        self._path = Path(workdir) / "metrics.jsonl"
        tensorboard = Path(workdir) / "tensorboard" / stage
        is_first = distributed.is_first()
        with self._one_line_errors():
            self._wandb = WandbRun(workdir, stage, group=run_name(workdir))
            if is_first:
                _drop_after(self._path, stage, start_step)
            path = self._path if is_first else Path(os.devnull)
            self._file = path.open("a", encoding="utf-8")
            self._tensorboard = (
                EventFile(tensorboard, purge_step=start_step + 1) if is_first else None
            )

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Append the values of a step; `split` is "train" or "validation"."""
        self._wandb.write(step, split, values)
        line = {"stage": self._stage, "split": split, "step": step, **values}
        with self._one_line_errors():
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            for name, value in values.items() if self._tensorboard else ():
                self._tensorboard.add_scalar(f"{split}/{name}", value, step)

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, traceback):
        self._wandb.close(failed=error is not None)
        try:
            with self._one_line_errors(), contextlib.ExitStack() as both:
                both.callback(self._file.close)
                if self._tensorboard:
                    both.callback(self._tensorboard.close)
        except UserError:
            # The error that ended training is more informative than a failed close.
            if error is None:
                raise

    @contextlib.contextmanager
    def _one_line_errors(self):
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write {self._path} and its TensorBoard events: "
                f"{error.strerror}; rerun the same command to resume from the last "
                "checkpoint"
            ) from error


def read_entries(path: Path) -> list[dict]:
    """Return the complete lines of a `metrics.jsonl`.

    The last line of a killed run may be incomplete. Every entry has a "stage", a
    "split", a "step" and named numbers.

    Raises:
      UserError: the file cannot be read.
    """
    text = safe_io.read_text(path)
    return [entry for line in text.splitlines() if (entry := _entry(line)) is not None]


def _entry(line: str) -> dict | None:
    try:
        entry = json.loads(line)
        names = entry["stage"], entry["split"]
        numbers = entry.keys() - {"stage", "split"}
        is_complete = (
            all(isinstance(name, str) for name in names)
            and type(entry["step"]) is int
            and all(safe_io.is_number(entry[name]) for name in numbers)
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return entry if is_complete else None


def _drop_after(path: Path, stage: str, start_step: int) -> None:
    # A link to a missing file would have that file created.
    if not os.path.lexists(path):
        return
    kept = [
        json.dumps(entry) + "\n"
        for entry in (read_entries(path) if path.exists() else ())
        if entry["stage"] != stage or entry["step"] <= start_step
    ]
    safe_io.write_bytes(path, "".join(kept).encode())


def _duration(seconds: float) -> str:
    """Return a rounded duration, such as "40 s", "3 min" or "2 h 5 min"."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class EventFile:
    """A file of TensorBoard events, written by the calling thread.

    The writer of tensorboardX uses a thread and a queue: on a full disk the thread
    dies, and the caller waits forever for space in the queue.
    """

    def __init__(self, directory: Path, *, purge_step: int):
        """Open a new file; TensorBoard drops events of older ones from `purge_step` on.

        Raises:
          OSError: the file cannot be written; also raised by the methods.
        """
        Path(directory).mkdir(parents=True, exist_ok=True)
        # The default name has a resolution of one second; two runs can share it.
        self._writer = EventsWriter(str(directory / "events"), f".{purge_step}")
        self._flushed = time.monotonic()
        start = SessionLog(status=SessionLog.START)
        self._write(step=purge_step, file_version="brain.Event:2")
        self._write(step=purge_step, session_log=start)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Append a value of a step."""
        self._write(step=step, summary=scalar(name, value))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write buffered events to disk and close the file."""
        self._writer.close()

    def _write(self, **fields) -> None:
        self._writer.write_event(Event(wall_time=time.time(), **fields))


class Progress:
    """A progress bar with speed and remaining time; plain lines without a terminal."""

    def __init__(self, stage: str, start_step: int, steps: int, batch_size: int):
        """Show a stage that has completed `start_step` of `steps`."""
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
        """Show a step's metrics; return the examples per second since the last call."""
        now = time.monotonic()
        then, done = self._last
        self._last = (now, step)
        speed = (step - done) * self._batch_size / max(now - then, 1e-9)
        status = f"loss {values['loss']:.4f}, {speed:,.0f} examples/s"
        self._bar.update(self._task, completed=step, status=status)
        if not self._console.is_terminal:
            if step < self._steps:
                seconds = (self._steps - step) * (now - then) / (step - done)
                status += f", {_duration(seconds)} left"
            print_line(f"{self._stage} {step}/{self._steps}: {status}")
        return speed

    @contextlib.contextmanager
    def paused(self):
        """Exclude the time spent inside from the speed."""
        start = time.monotonic()
        yield
        then, done = self._last
        self._last = (then + time.monotonic() - start, done)
