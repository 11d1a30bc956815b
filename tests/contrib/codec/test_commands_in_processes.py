"""compress and decompress as processes, on this and on another processor."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]


@pytest.fixture
def many_photos(tmp_path):
    """Forty random images of the size of the tiny digits model, all of one class."""
    folder = tmp_path / "photos" / "3"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(256, size=(8, 8)).astype("uint8")
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder.parent


def run(tmp_path, *words, **env):
    """Run a command in another directory; its output is not a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "vqvae_jax", *map(str, words)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""} | env,
        capture_output=True,
        text=True,
    )


def test_invalid_arguments_are_reported_before_jax_is_imported(tmp_path):
    found = run(tmp_path, "compress", "model")
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith("error: the following arguments are required: INPUT")
    assert found.stderr.count("\n") == 1


@pytest.mark.slow
def test_another_process_restores_the_codes(finished_run, many_photos, tmp_path):
    """Compare bit for bit with the codes that a third process encodes."""
    file, expected = tmp_path / "a.vq", tmp_path / "encoded"
    for words in (
        ("compress", finished_run, many_photos, file),
        ("decompress", finished_run, file, tmp_path / "decoded", "--codes"),
        ("encode", finished_run, many_photos, expected),
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
def test_another_processor_restores_the_codes_or_raises(
    finished_run, many_photos, tmp_path
):
    """Compile as for an x86 processor without AVX and FMA."""
    file = tmp_path / "a.vq"
    assert run(tmp_path, "compress", finished_run, many_photos, file).returncode == 0
    words = ("decompress", finished_run, file)
    assert run(tmp_path, *words, tmp_path / "here", "--codes").returncode == 0
    other = {
        "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    found = run(tmp_path, *words, tmp_path / "other", "--codes", **other)
    if found.returncode == 0:
        for path in sorted((tmp_path / "here").glob("*.npz")):
            np.testing.assert_array_equal(
                np.load(path)["codes"],
                np.load(tmp_path / "other" / path.name)["codes"],
            )
    else:
        assert found.returncode == 2
        assert "the decoded codes do not match the original ones" in found.stderr
        assert found.stderr.count("\n") == 1
        assert not (tmp_path / "other").exists()
