"""SIGTERM and SIGINT: training saves where it is, and the process ends in time.

A signal is sent to the process as a whole; so is it a fact of the process, kept in this
module, whether one has come.
"""

import contextlib
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGTERM, signal.SIGINT)

# A process that is told to end has ten seconds.
_SECONDS = 8.0

_has_come = threading.Event()
_is_deferred = threading.Event()


class Interrupted(BaseException):
    """The process was told to end; the message says what was saved.

    Like KeyboardInterrupt no Exception, which libraries take for one of their own.
    """


@contextlib.contextmanager
def handled(command: list[str]) -> Iterator[None]:
    """End the process well if a signal comes inside: exit code 0, and how to resume.

    Outside of `deferred` that is at once, for what a stage writes is there whole or not
    at all. What does not end in time, such as a long computation, is left where it is.

    Args:
      command: what resumes, in words.

    Raises:
      SystemExit: a signal has come.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    # Written by C code: Python's own handlers wait for the end of a computation.
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    line = f"resume with: {shlex.join(['python', *command])}"
    is_told = threading.Event()
    threading.Thread(
        target=_end_in_time, args=(receiver, is_told, line), daemon=True
    ).start()
    try:
        with listening():
            yield
    except Interrupted as saved:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        _tell(f"interrupted, {saved}" if str(saved) else "interrupted", line)
        is_told.set()
        sys.exit(0)
    finally:
        signal.set_wakeup_fd(-1)
        sender.close()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Raise `Interrupted` for a signal: at once, or by `check` inside of `deferred`."""
    before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _has_come.clear()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Let a signal wait, inside, until `check` is called, or until the end."""
    _is_deferred.set()
    try:
        yield
    finally:
        _is_deferred.clear()
    check()


def has_come() -> bool:
    """Return whether the process was told to end."""
    return _has_come.is_set()


def check() -> None:
    """Raise `Interrupted` if the process was told to end."""
    if has_come():
        raise Interrupted


def checked(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, and `check` before each of them."""
    for item in items:
        check()
        yield item


def _on_signal(number, frame) -> None:
    del number, frame
    # Some send it twice: the second one must not break what the first one began.
    if has_come():
        return
    _has_come.set()
    if not _is_deferred.is_set():
        raise Interrupted


def _end_in_time(receiver: socket.socket, is_told: threading.Event, line: str) -> None:
    while number := receiver.recv(1):
        if number[0] in SIGNALS:
            time.sleep(_SECONDS)
            if not is_told.is_set():
                _tell("interrupted, what was under way is left", line)
            os._exit(0)


def _tell(what: str, line: str) -> None:
    # Where nobody reads on, nobody is told.
    with contextlib.suppress(OSError, ValueError):
        print(f"{what}; {line}", flush=True)
