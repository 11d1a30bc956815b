"""A command as a function, and pictures to give it."""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from absl import logging
from PIL import Image

import vqvae_jax
from vqvae_jax.cli.main import main
from vqvae_jax.runtime import compilation


class Ended(NamedTuple):
    """How a command ended.

    code: the exit code.
    out: what it said.
    err: what it complained about.
    """

    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys, monkeypatch):
    """The function that runs a command in this process; words may be paths."""
    # Programs compiled by tests are no concern of the user's cache.
    monkeypatch.setattr(compilation, "keep_programs", lambda: None)
    verbosity = logging.get_verbosity()

    def run(*words) -> Ended:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit:
            code = exit.code
        return Ended(code, *capsys.readouterr())

    yield run
    logging.set_verbosity(verbosity)


@pytest.fixture
def refused(command):
    """The function that sees a command refused in one line, which it returns."""

    def run(*words) -> str:
        found = command(*words)
        assert found.code == 2
        assert found.out == ""
        assert found.err.startswith("error: ")
        assert found.err.count("\n") == 1
        return found.err

    return run


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Five pictures of the size that the tiny model takes."""
    return np.random.default_rng(0).integers(256, size=(5, 8, 8, 1)).astype("uint8")


@pytest.fixture(scope="session")
def photos(images, tmp_path_factory) -> Path:
    """Those pictures as files, in folders named as two classes of digits."""
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(images):
        place = folder / ("3" if number < 2 else "7")
        place.mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / f"{number}.png")
    return folder


@pytest.fixture
def own_photos(photos, tmp_path) -> Path:
    """A copy of the photos, to be changed."""
    return shutil.copytree(photos, tmp_path / "photos")


@pytest.fixture(scope="session")
def digits(finished_run, tmp_path_factory) -> Path:
    """The model and prior of the tiny digits run as one file."""
    folder = tmp_path_factory.mktemp("pretrained")
    return vqvae_jax.save_pretrained(finished_run, folder)


@pytest.fixture(scope="session")
def other(finished_run, tmp_path_factory) -> Path:
    """A model as that one, but for a nudge of its embeddings; it has no prior."""
    model, params = vqvae_jax.restore(finished_run)
    codebook = params.codebook
    nudged = codebook._replace(embeddings=codebook.embeddings + 1e-3)
    folder = tmp_path_factory.mktemp("other")
    return vqvae_jax.save_pretrained((model, params._replace(codebook=nudged)), folder)


@pytest.fixture(scope="session")
def read_images():
    """The function that reads all .png files of a folder, in order of name."""

    def read(folder: Path) -> dict[str, np.ndarray]:
        files = sorted(folder.rglob("*.png"))
        return {
            f.relative_to(folder).as_posix(): np.asarray(Image.open(f)) for f in files
        }

    return read
