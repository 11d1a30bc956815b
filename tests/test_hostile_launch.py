"""launch.py as a process, given unusable files: it names the file or finishes.

Other tests read many more such files in this process. These check the whole way to the
terminal.
"""

import io
import json
import os
import random
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from launch_checks import RUN_FILES, assert_one_error, launch, python
from PIL import Image

pytestmark = pytest.mark.slow


def png(side: int = 24) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def claiming(content: bytes, side: int) -> bytes:
    """A PNG whose header says that it has other sides; Pillow checks no checksum."""
    sides = side.to_bytes(4, "big") * 2
    return content[:16] + sides + content[24:]


def damaged(content: bytes) -> bytes:
    """A PNG with damaged pixels under a valid checksum, found when they are decoded."""
    start = content.index(b"IDAT")
    end = start + 4 + int.from_bytes(content[start - 4 : start], "big")
    pixels = content[start : start + 60] + bytes(9) + content[start + 69 : end]
    return (
        content[:start] + pixels + zlib.crc32(pixels).to_bytes(4) + content[end + 4 :]
    )


NOISE = random.Random(0).randbytes(300)
IMAGES = {
    "empty": b"",
    "noise": NOISE,
    "truncated": png()[:200],
    "damaged": damaged(png()),
    "a bomb": claiming(png(), 60_000),
    "markup": b"<script>alert(1)</script>",
}


@pytest.mark.parametrize("content", IMAGES.values(), ids=list(IMAGES))
def test_unusable_images_are_named(content, tiny_changes, tmp_path):
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
    assert_one_error(*launch(config, tmp_path / "run", **changes), named="5.png")


@pytest.mark.parametrize("name", RUN_FILES)
def test_noise_in_files_of_a_workdir(
    name, finished_run, tiny_changes, digits_dir, tmp_path
):
    """Stages from `samples` on run again, and read everything that they need."""
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
        assert_one_error(code, stderr, named=(run / name).parent)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.quantizer.num_codes", "-1"),
        ("model.quantizer.num_codes", "9" * 400),
        ("model.encoder.channels", "0"),
        ("training.learning_rate", "nan"),
        ("training.batch_size", "1e300"),
        ("data.image_size", "2147483648"),
        ("data.name", "../../../etc/passwd"),
        ("data.source", "\x1b[2J"),
        ("samples.num_samples", "''"),
        ("no.such.key", "1"),
    ],
)
def test_invalid_values_of_keys_raise(key, value, tmp_path):
    code, stderr = launch("experiments/digits.py", tmp_path / "run", **{key: value})
    assert code == 2, stderr
    assert "Traceback" not in stderr
    assert "\x1b[2J" not in stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [(b"exp[1]", "contains *, ? or [; choose"), (b"b\xe9", "is not UTF-8; rename")],
)
def test_paths_that_checkpoints_cannot_have_are_refused(name, message, tmp_path):
    """A terminal of ASCII prints the path too; reading a config needs no such path."""
    workdir = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    code, stderr = launch("experiments/digits.py", workdir)
    assert_one_error(code, stderr, named=message)
    assert not Path(workdir).exists()


def test_paths_of_any_bytes_are_printed(finished_run, tmp_path):
    env = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    for name in ("é".encode(), b"b\xe9"):
        workdir = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
        shutil.copytree(finished_run, workdir)
        found = python("-m", "vqvae_jax", "info", workdir, env=env)
        assert found.returncode == 0, found.stderr
        out = os.fsdecode(os.fsencode(tmp_path) + b"/out" + name)
        words = ("-m", "vqvae_jax", "sample", finished_run, out, "--num=1")
        found = python(*words, env=env)
        assert found.returncode == 0, found.stderr
        assert found.stdout.isascii()
        assert "\\" in found.stdout


@pytest.mark.parametrize("item", ["params", "training"])
def test_an_emptied_checkpoint_is_one_warning(item, copied_run, photos, tmp_path):
    checkpoints = copied_run / "checkpoints" / "vqvae"
    best = json.loads((checkpoints / "finished.json").read_text())["best_step"]
    for path in (checkpoints / str(best) / item / "d").iterdir():
        path.write_bytes(b"")
    words = ("-m", "vqvae_jax", "encode", copied_run, photos, tmp_path / "out")
    found = python(*words)
    assert found.returncode == 0, found.stderr
    # The second line of a warning is its place in the code.
    assert found.stderr.count("\n") == (2 if item == "params" else 0), found.stderr
