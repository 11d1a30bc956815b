"""TensorBoard's events: what is in the file, and who is told that it is full."""

import struct
import threading

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from vqvae_jax.training.tensorboard import EventFile


def events(directory):
    """Read all events by the format: length, checksum, message, checksum."""
    found = []
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def test_values_come_back_and_earlier_ones_are_purged(tmp_path):
    file = EventFile(tmp_path / "new", purge_step=11)
    file.add_scalar("train/loss", 0.5, 12)
    file.close()
    _, _, start, value = events(tmp_path / "new")
    assert start.step == 11
    assert start.session_log.status == SessionLog.START
    assert (value.step, value.summary.value[0].tag) == (12, "train/loss")
    assert value.summary.value[0].simple_value == 0.5


def test_two_files_of_one_second_are_two(tmp_path):
    for step in (1, 2):
        EventFile(tmp_path, purge_step=step).close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_the_callers_error_and_nobody_waits(tmp_path, monkeypatch):
    threads = threading.active_count()
    file = EventFile(tmp_path, purge_step=1)
    assert threading.active_count() == threads
    for step in range(1000):
        file.add_scalar("loss", 0.5, step)

    def full():
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(file._writer._py_recordio_writer._writer, "close", full)
        with pytest.raises(OSError, match="No space left"):
            file.close()
    file.close()
