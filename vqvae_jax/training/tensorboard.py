"""TensorBoard's events, written by the caller and by nobody else.

tensorboardX's own writer has a thread and a queue: where the disk is full the thread
dies, and the caller waits for room in the queue for ever.
"""

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

# Between two moments at which what was written is sure to be on disk.
_FLUSH_SECONDS = 30


class EventFile:
    """A file of events in a directory, where earlier runs have left theirs."""

    def __init__(self, directory: Path, *, purge_step: int):
        """Open it; events of earlier files are not shown from `purge_step` on.

        Raises:
          OSError: it cannot be written, here as in the methods.
        """
        Path(directory).mkdir(parents=True, exist_ok=True)
        # Files are named by the second; two runs may go on within one.
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
        """Write what is left to disk."""
        self._writer.close()

    def _write(self, **fields) -> None:
        self._writer.write_event(Event(wall_time=time.time(), **fields))
