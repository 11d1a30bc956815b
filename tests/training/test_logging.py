"""Metrics in `metrics.jsonl`, TensorBoard and the terminal; names of runs."""

import json
import os
import re
import struct
import threading

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training import logging
from vqvae_jax.training.logging import (
    EventFile,
    MetricsLog,
    Progress,
    read_entries,
    run_name,
)


def entries(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def events(directory):
    """Yield the events of TFRecord files: length, checksum, event, checksum."""
    for path in sorted(directory.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


class TestMetricsLog:
    def test_lines_and_tensorboard_events(self, tmp_path):
        with MetricsLog(tmp_path, "vqvae", start_step=0) as log:
            log.write(5, "train", {"loss": 0.5, "error": 0.25})
            # Each line is flushed immediately.
            assert len(entries(tmp_path)) == 1
            log.write(5, "validation", {"loss": 0.75})
        train = {"stage": "vqvae", "split": "train", "step": 5}
        assert entries(tmp_path) == [
            {**train, "loss": 0.5, "error": 0.25},
            {**train, "split": "validation", "loss": 0.75},
        ]
        scalars = {
            (value.tag, event.step): value.simple_value
            for event in events(tmp_path / "tensorboard" / "vqvae")
            for value in event.summary.value
        }
        assert scalars == {
            ("train/loss", 5): 0.5,
            ("train/error", 5): 0.25,
            ("validation/loss", 5): 0.75,
        }

    def test_entries_after_the_start_step_are_dropped(self, tmp_path):
        def line(stage, step):
            return json.dumps({"stage": stage, "split": "train", "step": step}) + "\n"

        kept = line("prior", 30) + line("vqvae", 5) + line("vqvae", 10)
        lost = line("vqvae", 11) + line("vqvae", 30) + '{"stage": "vq'
        (tmp_path / "metrics.jsonl").write_text(kept + lost)
        with MetricsLog(tmp_path, "vqvae", start_step=10) as log:
            log.write(11, "train", {})
        text = (tmp_path / "metrics.jsonl").read_text()
        assert text == kept + line("vqvae", 11)
        assert [p.name for p in tmp_path.glob("metrics*")] == ["metrics.jsonl"]
        # TensorBoard drops the same steps.
        found = list(events(tmp_path / "tensorboard" / "vqvae"))
        assert [e.step for e in found if e.HasField("session_log")] == [11]

    def test_a_full_disk_raises_one_line(self, tmp_path):
        """When a line is written and when the log is closed."""
        log = MetricsLog(tmp_path, "vqvae", start_step=0)
        fill_disk(log)
        match = r"^cannot write .*metrics.jsonl .*: No space left on device; [^\n]*$"
        with pytest.raises(UserError, match=match), log:
            log.write(1, "train", {"loss": 1.0})
        log = MetricsLog(tmp_path, "vqvae", start_step=0)
        log._file.write("not flushed")
        fill_disk(log)
        with pytest.raises(UserError, match=match), log:
            pass

    def test_a_full_disk_does_not_hide_another_error(self, tmp_path):
        log = MetricsLog(tmp_path, "vqvae", start_step=0)
        log._file.write("not flushed")
        fill_disk(log)
        with pytest.raises(KeyError, match="lost"), log:
            raise KeyError("lost")

    def test_links_are_replaced_and_not_followed(self, tmp_path):
        """Also one to a file that opening it would create."""
        outside = tmp_path / "outside"
        for content in (None, "before"):
            if content is not None:
                outside.write_text(content)
            (tmp_path / "metrics.jsonl").symlink_to(outside)
            (tmp_path / "metrics.tmp").unlink(missing_ok=True)
            (tmp_path / "metrics.tmp").symlink_to(outside)
            with MetricsLog(tmp_path, "vqvae", start_step=0) as log:
                log.write(1, "train", {"loss": 0.5})
            (entry,) = read_entries(tmp_path / "metrics.jsonl")
            assert entry["loss"] == 0.5
            assert outside.exists() == (content is not None)
            (tmp_path / "metrics.jsonl").unlink()
        assert outside.read_text() == "before"

    def test_a_missing_workdir_raises(self, tmp_path):
        with pytest.raises(UserError, match="No such file or directory"):
            MetricsLog(tmp_path / "nothing", "vqvae", start_step=0)


def fill_disk(log):
    """Redirect the file of the log to /dev/full."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._file.fileno())
    os.close(full)


class TestEventFile:
    def test_events_are_written_and_earlier_ones_purged(self, tmp_path):
        file = EventFile(tmp_path / "new", purge_step=11)
        file.add_scalar("train/loss", 0.5, 12)
        file.close()
        _, _, start, value = events(tmp_path / "new")
        assert start.step == 11
        assert start.session_log.status == SessionLog.START
        assert (value.step, value.summary.value[0].tag) == (12, "train/loss")
        assert value.summary.value[0].simple_value == 0.5

    def test_files_of_the_same_second_have_different_names(self, tmp_path):
        for step in (1, 2):
            EventFile(tmp_path, purge_step=step).close()
        assert len(list(tmp_path.iterdir())) == 2

    def test_a_full_disk_raises_in_the_caller_without_a_thread(
        self, tmp_path, monkeypatch
    ):
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


@pytest.fixture
def clock(monkeypatch):
    """A clock that only tests advance: `clock[0]` in seconds."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    now = [100.0]
    monkeypatch.setattr(logging.time, "monotonic", lambda: now[0])
    return now


class TestProgress:
    def test_plain_lines_without_a_terminal(self, clock, capsys):
        with Progress("line", 10, 1000, 16) as progress:
            clock[0] += 2
            # From step 10, not from 0: 40 steps of 16 examples in two seconds.
            assert progress.advance(50, {"loss": 0.25}) == pytest.approx(320)
            clock[0] += 0.5
            assert progress.advance(1000, {"loss": 1e-5}) == pytest.approx(30_400)
        assert capsys.readouterr().out == (
            "line 50/1000: loss 0.2500, 320 examples/s, 48 s left\n"
            "line 1000/1000: loss 0.0000, 30,400 examples/s\n"
        )

    @pytest.mark.parametrize(
        ("seconds", "left"),
        [(0.4, "0 s"), (59.4, "59 s"), (95, "2 min"), (7_500, "2 h 5 min")],
    )
    def test_the_time_that_is_left(self, clock, capsys, seconds, left):
        with Progress("line", 0, 2, 16) as progress:
            clock[0] += seconds
            progress.advance(1, {"loss": 1.0})
        assert capsys.readouterr().out.endswith(f", {left} left\n")

    def test_pauses_do_not_affect_the_speed(self, clock):
        with Progress("line", 0, 100, 16) as progress:
            clock[0] += 1
            with progress.paused():
                clock[0] += 1000
            clock[0] += 1
            assert progress.advance(10, {"loss": 1.0}) == pytest.approx(80)
            with progress.paused():
                clock[0] += 1000
            clock[0] += 2
            assert progress.advance(20, {"loss": 1.0}) == pytest.approx(80)

    def test_speed_is_finite_if_no_time_has_passed(self, clock):
        with Progress("line", 0, 100, 16) as progress:
            assert progress.advance(1, {"loss": 1.0}) > 0

    def test_a_bar_on_a_terminal(self, clock, capsys, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "120")
        with Progress("line", 10, 100, 16) as progress:
            clock[0] += 1
            progress.advance(50, {"loss": 0.25})
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
        assert "50/100" in shown
        assert "loss 0.2500, 640 examples/s" in shown
        assert "line 50/100:" not in shown


@pytest.mark.parametrize(
    ("workdir", "name"),
    [
        ("runs/cifar", "cifar"),
        ("runs/cifar/", "cifar"),
        ("runs/robustness/beta=0.5/1", "beta=0.5/1"),
        ("runs/comparison/vqvae/12", "vqvae/12"),
        ("/3", "3"),
    ],
)
def test_run_name_has_the_parent_of_a_number(workdir, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_name(workdir) == name


def test_run_name_resolves_relative_paths(tmp_path, monkeypatch):
    (tmp_path / "gan" / "0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "gan" / "0")
    assert run_name(".") == "gan/0"
    assert run_name("..") == "gan"
