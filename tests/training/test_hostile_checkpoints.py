"""Random damage to a checkpoint: nothing is read that was not written.

Either the checkpoint is read unchanged, or the previous one with a warning, or an error
of one line is raised.
"""

import os
import shutil
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from checkpoint_states import abstract_state, assert_is, make_state
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training import checkpoints as checkpoints_lib
from vqvae_jax.training.checkpoints import Checkpoints, restore_best


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """Two checkpoints, the second of which is the best; tests modify copies."""
    directory = tmp_path_factory.mktemp("checkpoints") / "line"
    with Checkpoints(directory, keep=10) as checkpoints:
        for step in (1, 2):
            checkpoints.save(
                make_state(step), {"next_batch": step}, validation_loss=1.0 / step
            )
    return directory


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """The directory of copies."""
    return tmp_path_factory.mktemp("copies")


def apply_damage(directory, which, damage, position, bits) -> None:
    """Damage one file of the second checkpoint."""
    files = sorted(path for path in (directory / "2").rglob("*") if path.is_file())
    path = files[which % len(files)]
    content = bytearray(path.read_bytes())
    position %= max(1, len(content))
    match damage:
        case "flip":
            if content:
                content[position] ^= bits
            path.write_bytes(content)
        case "truncate":
            path.write_bytes(content[:position])
        case "empty":
            path.write_bytes(b"")
        case "grow":
            path.write_bytes(bytes(content) + bytes(bits))
        case "remove":
            path.unlink()


def read(read_one):
    """Return the result, None for an error of one line, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return read_one(), caught
        except UserError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
            return None, caught


DAMAGE = ("flip", "truncate", "empty", "grow", "remove")


@settings(max_examples=20)
@given(
    which=st.integers(0, 100),
    damage=st.sampled_from(DAMAGE),
    position=st.integers(0, 2000),
    bits=st.integers(1, 255),
)
@example(which=0, damage="flip", position=0, bits=1)
def test_damaged_values_are_never_read(
    two_steps, copies, which, damage, position, bits
):
    directory = copies / "line"
    shutil.copytree(two_steps, directory)
    try:
        apply_damage(directory, which, damage, position, bits)
        params, _ = read(
            lambda: restore_best(directory, abstract_state().params).params
        )
        if params is not None:
            step = int(params["w"][0, 0])
            jax.tree.map(np.testing.assert_array_equal, params, make_state(step).params)
        with Checkpoints(directory, keep=10) as checkpoints:
            restored, caught = read(
                lambda: checkpoints.restore_latest(abstract_state())
            )
        assert restored is not None
        step = int(restored.state.step)
        assert_is(restored, step)
        messages = [str(warning.message) for warning in caught]
        skipped = [message for message in messages if "is skipped" in message]
        assert len(skipped) == (0 if step == 2 else 1)
        assert all(len(message.splitlines()) == 1 for message in skipped)
    finally:
        shutil.rmtree(directory)


def files_in(directory) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def readers(directory):
    """Return the functions that read the parameters and the training state."""

    def restore_latest():
        with Checkpoints(directory, keep=10) as checkpoints:
            return checkpoints.restore_latest(abstract_state())

    return lambda: restore_best(directory, abstract_state().params), restore_latest


def link_to_zero(path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [os.mkfifo, link_to_zero])
def test_a_fifo_or_a_device_is_not_opened(two_steps, copies, make):
    directory = shutil.copytree(two_steps, copies / "fifo", dirs_exist_ok=True)
    paths = files_in(directory / "2")
    assert len(paths) > 10
    for path in paths:
        content = path.read_bytes()
        path.unlink()
        make(path)
        for read_one in readers(directory):
            with pytest.raises(UserError, match="is not a regular file") as caught:
                read_one()
            assert str(path) in str(caught.value)
        path.unlink()
        path.write_bytes(content)


def test_a_directory_in_place_of_a_file_is_damage(two_steps, copies, monkeypatch):
    monkeypatch.setattr(checkpoints_lib, "_RETRY_DELAY", 0.0)
    for number in range(len(files_in(two_steps / "2"))):
        directory = shutil.copytree(two_steps, copies / "directory")
        path = files_in(directory / "2")[number]
        path.unlink()
        path.mkdir()
        for read_one in readers(directory):
            found, _ = read(read_one)
            assert found is not None, path
        shutil.rmtree(directory)


def test_huge_metadata_are_not_read(two_steps, copies):
    directory = shutil.copytree(two_steps, copies / "huge")
    os.truncate(directory / "2" / "params" / "_METADATA", 2**40)
    for read_one in readers(directory):
        with pytest.raises(UserError, match="_METADATA has 1099511627776 bytes"):
            read_one()
