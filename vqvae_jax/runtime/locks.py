"""One launch per workdir."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import filelock

from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import UserError


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keep other launches from a directory; one that is killed keeps no lock.

    Of the processes of one launch the first has the lock. File systems without locks
    have none.

    Raises:
      UserError: another launch works there.
    """
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            if distributed.is_first():
                stack.enter_context(_lock_of_one(workdir))

        distributed.in_turn(lock)
        yield


@contextlib.contextmanager
def _lock_of_one(workdir: Path) -> Iterator[None]:
    lock = filelock.FileLock(workdir / ".lock", fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise UserError(
            f"--workdir={workdir} is in use by another process: wait for its end, or "
            "choose another one"
        ) from error
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise UserError(f"cannot lock {workdir}: {error}") from error
    try:
        yield
    finally:
        lock.release()
