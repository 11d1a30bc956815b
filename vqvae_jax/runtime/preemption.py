"""Handling of SIGTERM and SIGINT: training saves a checkpoint and the process exits.

A signal is sent to the process as a whole, so this module stores whether one arrived in
process-wide state.
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

# Schedulers kill a process about ten seconds after SIGTERM.
_SECONDS = 8.0

_requested = threading.Event()
# The number of the signal; 0 before one arrives.
_received = 0
_is_deferred = threading.Event()


class Preempted(BaseException):
    """The process received a signal to end; the message describes what was saved.

    Like KeyboardInterrupt it does not derive from Exception, so libraries do not catch
    it by accident.
    """


@contextlib.contextmanager
def handled(command: list[str]) -> Iterator[None]:
    """End the process on a signal, and print the command that resumes it.

    The exit code is 128 + the signal's number, as shells expect: 130 after SIGINT. In a
    process that ends because another one received a signal it is 143, as after SIGTERM.

    Outside of `deferred` it ends at once, which is safe because stages write files
    whole or not at all. Work that does not end in time, such as a long computation, is
    abandoned.

    Args:
      command: the words of the command that resumes the run.

    Raises:
      SystemExit: a signal arrived.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    # C code writes to this socket: Python's handlers wait until a computation ends.
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    hint = f"resume with: {shlex.join(command)}"
    is_reported = threading.Event()
    threading.Thread(
        target=_end_in_time, args=(receiver, is_reported, hint), daemon=True
    ).start()
    try:
        with handle_signals():
            yield
    except Preempted as saved:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        _print(f"interrupted, {saved}" if str(saved) else "interrupted", hint)
        is_reported.set()
        sys.exit(128 + (_received or signal.SIGTERM))
    finally:
        signal.set_wakeup_fd(-1)
        sender.close()


@contextlib.contextmanager
def handle_signals() -> Iterator[None]:
    """Raise `Preempted` on a signal: at once, or from `check` inside of `deferred`."""
    before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requested.clear()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Defer a signal that arrives inside to the next `check`, or to the end."""
    _is_deferred.set()
    try:
        yield
    finally:
        _is_deferred.clear()
    check()


def requested() -> bool:
    """Return whether the process received a signal to end."""
    return _requested.is_set()


def check() -> None:
    """Raise `Preempted` if the process received a signal to end."""
    if requested():
        raise Preempted


def checked(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, and `check` before each of them."""
    for item in items:
        check()
        yield item


def _on_signal(number, frame) -> None:
    global _received
    del frame
    # Some senders repeat the signal: it must not interrupt the handling of the first.
    if requested():
        return
    _received = number
    _requested.set()
    if not _is_deferred.is_set():
        raise Preempted


def _end_in_time(
    receiver: socket.socket, is_reported: threading.Event, hint: str
) -> None:
    while number := receiver.recv(1):
        if number[0] in SIGNALS:
            time.sleep(_SECONDS)
            if not is_reported.is_set():
                _print("interrupted, unfinished work is lost", hint)
            os._exit(128 + number[0])


def _print(status: str, hint: str) -> None:
    # Ignore a closed stdout.
    with contextlib.suppress(OSError, ValueError):
        print(f"{status}; {hint}", flush=True)
