"""A lock that allows one launch per workdir."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import filelock

from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import UserError


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keep other launches out of a directory; the lock of a killed launch is released.

    The first process of a launch holds the lock. File systems that do not support locks
    go without. The lock file is removed if an error ends the launch that created it.

    Raises:
      UserError: another launch uses the directory.
    """
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            if distributed.is_first():
                stack.enter_context(_lock_file(workdir))

        distributed.in_turn(lock)
        yield


@contextlib.contextmanager
def _lock_file(workdir: Path) -> Iterator[None]:
    path = workdir / ".lock"
    is_new = not path.exists()
    lock = filelock.FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise UserError(
            f"--workdir={workdir} is in use by another process: wait until it ends or "
            "choose another directory"
        ) from error
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise UserError(f"cannot lock {workdir}: {error}") from error
    try:
        yield
    except Exception:
        # While it is held: filelock tries again if it locked a removed file.
        if is_new:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        raise
    finally:
        lock.release()
