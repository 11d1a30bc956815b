"""python -m vqvae_jax as processes: quiet, from any directory, one after the other."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture
def photos(tmp_path):
    """Forty pictures of the size that the tiny model takes, of one class."""
    folder = tmp_path / "photos" / "3"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(256, size=(8, 8)).astype("uint8")
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder.parent


def run(tmp_path, *words, **env):
    """Run a command in another directory; its output is no terminal."""
    return subprocess.run(
        [sys.executable, "-m", "vqvae_jax", *map(str, words)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""} | env,
        capture_output=True,
        text=True,
    )


def test_a_mistake_is_told_before_jax_is_imported(tmp_path):
    found = run(tmp_path, "compress", "model")
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith("error: the following arguments are required: INPUT")
    assert found.stderr.count("\n") == 1


@pytest.mark.slow
def test_what_one_process_compresses_another_decompresses(
    finished_run, photos, tmp_path
):
    """Bit for bit: the codes are those that a third one encodes."""
    file, expected = tmp_path / "a.vq", tmp_path / "encoded"
    for words in (
        ("compress", finished_run, photos, file),
        ("decompress", finished_run, file, tmp_path / "decoded", "--codes"),
        ("encode", finished_run, photos, expected),
    ):
        found = run(tmp_path, *words)
        assert (found.returncode, found.stderr) == (0, "")
        assert found.stdout.count("\n") == 1
    decoded = sorted((tmp_path / "decoded").glob("*.npz"))
    encoded = sorted(expected.rglob("*.npz"))
    assert len(decoded) == len(encoded) == 40
    for one, two in zip(decoded, encoded, strict=True):
        np.testing.assert_array_equal(np.load(one)["codes"], np.load(two)["codes"])


@pytest.mark.slow
def test_another_processors_arithmetic_is_right_or_refused(
    finished_run, photos, tmp_path
):
    """Programs as for an x86 processor without AVX and FMA, compiled for this test."""
    file = tmp_path / "a.vq"
    assert run(tmp_path, "compress", finished_run, photos, file).returncode == 0
    words = ("decompress", finished_run, file)
    assert run(tmp_path, *words, tmp_path / "here", "--codes").returncode == 0
    there = {
        "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    found = run(tmp_path, *words, tmp_path / "there", "--codes", **there)
    if found.returncode == 0:
        for path in sorted((tmp_path / "here").glob("*.npz")):
            np.testing.assert_array_equal(
                np.load(path)["codes"],
                np.load(tmp_path / "there" / path.name)["codes"],
            )
    else:
        assert found.returncode == 2
        assert "the codes that come out are not those that went in" in found.stderr
        assert found.stderr.count("\n") == 1
        assert not (tmp_path / "there").exists()


def test_a_reader_that_goes_away_hears_nothing(tmp_path):
    """As head does: no traceback, and the exit code that a shell gives such an end."""
    reading, writing = os.pipe()
    os.close(reading)
    found = subprocess.run(
        [sys.executable, "-c", _TELLS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (found.returncode, found.stderr) == (141, "")


# A command that prints before it does anything that takes long.
_TELLS = """
import sys
from vqvae_jax.commands import info, main
info.info = lambda options: print("a line")
sys.exit(main.main(["info", "runs/digits"]))
"""
