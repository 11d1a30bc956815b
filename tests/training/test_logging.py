"""What a run writes down and shows, and what a resumed run takes back."""

import json
import os
import re
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training import logging
from vqvae_jax.training.logging import MetricsLog, Progress


def entries(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def events(directory):
    """The records of TFRecord files: length, its checksum, an event, its checksum."""
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
            # Whoever follows the file sees each line at once.
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

    def test_what_was_lost_is_dropped(self, tmp_path):
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
        # TensorBoard is told to forget the same steps.
        found = list(events(tmp_path / "tensorboard" / "vqvae"))
        assert [e.step for e in found if e.HasField("session_log")] == [11]

    def test_a_full_disk(self, tmp_path):
        """Told in one line, when it is written and when it is closed."""
        log = MetricsLog(tmp_path, "vqvae", start_step=0)
        fill(log)
        match = r"^cannot write .*metrics.jsonl .*: No space left on device; [^\n]*$"
        with pytest.raises(UserError, match=match), log:
            log.write(1, "train", {"loss": 1.0})
        log = MetricsLog(tmp_path, "vqvae", start_step=0)
        log._file.write("what was not flushed")
        fill(log)
        with pytest.raises(UserError, match=match), log:
            pass

    def test_a_full_disk_hides_no_other_error(self, tmp_path):
        log = MetricsLog(tmp_path, "vqvae", start_step=0)
        log._file.write("what was not flushed")
        fill(log)
        with pytest.raises(KeyError, match="lost"), log:
            raise KeyError("lost")

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(UserError, match="No such file or directory"):
            MetricsLog(tmp_path / "nothing", "vqvae", start_step=0)


def fill(log):
    """Let the log's file be on a disk that is full."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._file.fileno())
    os.close(full)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is moved: `clock[0]` in seconds."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    now = [100.0]
    monkeypatch.setattr(logging.time, "monotonic", lambda: now[0])
    return now


class TestProgress:
    def test_plain_lines_without_a_terminal(self, clock, capsys):
        with Progress("line", 10, 1000, 16) as progress:
            clock[0] += 2
            # From step 10 on, not from 0: 40 steps of 16 examples in two seconds.
            assert progress.advance(50, {"loss": 0.25}) == pytest.approx(320)
            clock[0] += 0.5
            assert progress.advance(1000, {"loss": 1e-5}) == pytest.approx(30_400)
        assert capsys.readouterr().out == (
            "line 50/1000: loss 0.2500, 320 examples/s\n"
            "line 1000/1000: loss 0.0000, 30,400 examples/s\n"
        )

    def test_pauses_do_not_count(self, clock):
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

    def test_a_clock_that_stands_still(self, clock):
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
