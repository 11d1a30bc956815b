"""launch.py as a process, given hostile files: code 2 and one line, or it finishes.

The files are those of the tests that read them in this process, where there are many
more; here it is seen that nothing on the way to the terminal adds to what they say.
"""

import io
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def launch(config: str, workdir, **changes) -> tuple[int, str]:
    """Run an experiment; return its exit code and what it wrote about errors."""
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    found = subprocess.run(
        [
            sys.executable,
            "launch.py",
            f"--config={config}",
            f"--workdir={workdir}",
            *overrides,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return found.returncode, found.stderr


def assert_told(code: int, stderr: str, named: str | Path) -> None:
    """One line says what is wrong with the file or folder of a name, and no other."""
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert code == 2, stderr
    assert len(errors) == 1, stderr
    assert str(named) in errors[0]
    assert "Traceback" not in stderr


def png(side: int = 24) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def claiming(content: bytes, side: int) -> bytes:
    """A PNG whose header says that it has other sides; Pillow checks no checksum."""
    sides = side.to_bytes(4, "big") * 2
    return content[:16] + sides + content[24:]


NOISE = random.Random(0).randbytes(300)
IMAGES = {
    "empty": b"",
    "noise": NOISE,
    "truncated": png()[:200],
    "a bomb": claiming(png(), 60_000),
    "markup": b"<script>alert(1)</script>",
}


@pytest.mark.parametrize("content", IMAGES.values(), ids=list(IMAGES))
def test_an_image_that_is_none(content, tiny_changes, tmp_path):
    folder = tmp_path / "data" / "train" / "ünï .. x"
    folder.mkdir(parents=True)
    for number in range(8):
        (folder / f"{number}.png").write_bytes(png())
    (folder / "5.png").write_bytes(content)
    changes = tiny_changes | {
        "data.source": "folder",
        "data.data_dir": tmp_path / "data",
        "data.image_size": 16,
        "training.batch_size": 8,
    }
    config = "experiments/imagenet.py:small"
    assert_told(*launch(config, tmp_path / "run", **changes), named="5.png")


RECORDINGS = {"empty": b"", "noise": NOISE, "a header": b"RIFF\xff\xff\xff\xffWAVEfmt "}


@pytest.mark.parametrize("content", RECORDINGS.values(), ids=list(RECORDINGS))
def test_a_recording_that_is_none(content, speech_dir, tmp_path):
    data = shutil.copytree(speech_dir, tmp_path / "data")
    (data / "train" / "bob" / "1.wav").write_bytes(content)
    config = "experiments/an4.py:small"
    changes = {"data.data_dir": data, "evaluation.batch_size": 8}
    assert_told(*launch(config, tmp_path / "run", **changes), named="1.wav")


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "prior.json",
        "metrics.jsonl",
        "samples.npz",
        "results.json",
        "codes/test/metadata.json",
        "codes/test/codes.array_record",
    ],
)
def test_a_file_of_a_workdir_that_is_noise(
    name, finished_run, tiny_changes, digits_dir, tmp_path
):
    """The samples are made again, so all is read that they and the page need."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / name).write_bytes(NOISE)
    for path in (run / "samples", run / "results.json", run / "report.html"):
        if path != run / name:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    changes = tiny_changes | {"data.data_dir": digits_dir}
    code, stderr = launch("experiments/digits.py", run, **changes)
    if code == 0:
        assert (run / "report.html").exists()
    else:
        assert_told(code, stderr, named=(run / name).parent)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.num_codes", "-1"),
        ("model.num_codes", "9" * 400),
        ("model.units", "0"),
        ("training.learning_rate", "nan"),
        ("training.batch_size", "1e300"),
        ("data.image_size", "2147483648"),
        ("data.name", "../../../etc/passwd"),
        ("data.source", "\x1b[2J"),
        ("samples.num_samples", "''"),
        ("no.such.key", "1"),
    ],
)
def test_a_value_that_no_config_has(key, value, tmp_path):
    code, stderr = launch("experiments/digits.py", tmp_path / "run", **{key: value})
    assert code == 2, stderr
    assert "Traceback" not in stderr
    assert "\x1b[2J" not in stderr
    assert not (tmp_path / "run" / "checkpoints").exists()
