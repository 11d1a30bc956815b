"""One launch per workdir: the lock is released when its process dies."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.runtime.locks import locked

ROOT = Path(__file__).parents[2]
# Holds the lock until it is killed.
HOLDER = """
import sys
from pathlib import Path
from vqvae_jax.runtime.locks import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_while_the_holder_lives(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="is in use by another"), locked(tmp_path):
            pytest.fail("locked twice")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(tmp_path):
        pass


def test_the_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        _ = 1 / 0
    with locked(tmp_path):
        pass


def test_an_error_of_the_removal_does_not_hide_the_first_one(tmp_path, monkeypatch):
    def refuse(path, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        _ = 1 / 0


def test_failure_to_lock_is_reported(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="cannot lock"), locked(file):
        pytest.fail("locked a file")


def refuse(directory):
    """Lock a directory, fail to lock it again, and end with that error."""
    with locked(directory):
        try:
            with locked(directory):
                pytest.fail("locked twice")
        finally:
            assert (directory / ".lock").exists()


def test_an_error_removes_the_file_of_the_launch_that_created_it(tmp_path):
    """A launch that is refused because of another one leaves the lock of that one."""
    with pytest.raises(UserError, match="is in use"):
        refuse(tmp_path)
    assert not (tmp_path / ".lock").exists()
    (tmp_path / ".lock").touch()
    with pytest.raises(UserError, match="is in use"):
        refuse(tmp_path)
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass
