"""An untrusted workdir: files are read or raise in one line, and never executed."""

import dataclasses
import io
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from launch_checks import RUN_FILES

from vqvae_jax.pipeline.run import run
from vqvae_jax.pipeline.samples import file_name
from vqvae_jax.pretrained.card import summary
from vqvae_jax.pretrained.loading import find
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.logging import MetricsLog, read_entries
from vqvae_jax.workdir import SPLITS, Workdir


class Trap:
    """Creates a directory when it is unpickled."""

    def __init__(self, created):
        self.created = created

    def __reduce__(self):
        return os.mkdir, (str(self.created),)


def read_all(path) -> None:
    """Read every file of a workdir except its checkpoints."""
    workdir = Workdir(path)
    experiment = workdir.experiment()
    metadata = workdir.read_codes_metadata(experiment.second_stage)
    experiment.second_models(dataclasses.asdict(metadata))
    summary(find(path).metadata)
    for split in SPLITS:
        codes = workdir.codes(split)
        for number in range(0, len(codes), 50):
            assert codes[number]["codes"].shape == (4, 4, 1)
    workdir.read_samples()
    workdir.read_results()
    workdir.read_command()
    read_entries(workdir.metrics)


def error_of(path) -> str:
    """Return the error of reading a workdir, "" if there is none."""
    try:
        read_all(path)
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def copy(finished_run, tmp_path_factory):
    """A copy of a run; tests change a file and restore it."""
    run = shutil.copytree(finished_run, tmp_path_factory.mktemp("copy") / "run")
    Workdir(run).command.write_text("python launch.py\n")
    return run


def test_an_unchanged_run_is_read(copy):
    assert error_of(copy) == ""


def link_to_zero(path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        *((name, os.mkfifo) for name in RUN_FILES),
        *(("command.txt", make) for make in (os.mkfifo, os.mkdir, link_to_zero)),
    ],
)
def test_only_regular_files_are_read(copy, name, make, tmp_path):
    path = copy / name
    path.rename(tmp_path / "file")
    try:
        make(path)
        assert str(path) in error_of(copy)
    finally:
        path.rmdir() if path.is_dir() else path.unlink()
        (tmp_path / "file").rename(path)


def test_a_command_that_is_not_utf_8_is_read(copy):
    workdir = Workdir(copy)
    before = workdir.command.read_bytes()
    try:
        workdir.command.write_bytes(b"python \xff\n")
        assert workdir.read_command() == "python \ufffd"
    finally:
        workdir.command.write_bytes(before)


def test_nothing_outside_is_written(copied_run, tiny_config, tmp_path):
    """Links in place of temporary files."""
    outside = tmp_path / "outside"
    outside.write_text("before")
    names = ("config.json", "command.txt", "test_bits.npz", "results.json")
    names += ("report.html", "metrics.jsonl", "checkpoints/prior/finished.json")
    for name in names:
        path = copied_run / name
        path.with_name(f".{path.name}.tmp").symlink_to(outside)
    (copied_run / "metrics.tmp").symlink_to(outside)
    for name in ("results.json", "report.html", "checkpoints/prior/finished.json"):
        (copied_run / name).unlink()
    MetricsLog(copied_run, "prior", start_step=20).__exit__(None, None, None)
    stages = ("prior", "evaluate", "report")
    run(tiny_config, str(copied_run), stages, command="python launch.py")
    assert outside.read_text() == "before"
    assert not list(copied_run.glob(".*.tmp"))


@pytest.mark.parametrize("content", ["{}", "[]", '{"grid": 3}', '{"fingerprint": 0}'])
def test_every_reader_of_an_invalid_prior_json_raises(copy, content):
    whole = (copy / "prior.json").read_bytes()
    try:
        (copy / "prior.json").write_text(content)
        for read in (find, lambda path: Workdir(path).restore("prior")):
            with pytest.raises(UserError, match=r"prior\.json"):
                read(copy)
    finally:
        (copy / "prior.json").write_bytes(whole)


@settings(max_examples=50)
@given(
    st.sampled_from(RUN_FILES),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=4),
    st.one_of(st.just(0), st.integers(0, 3000)),
)
def test_flipped_and_truncated_files_are_read_or_raise(copy, name, flips, missing):
    whole = (copy / name).read_bytes()
    content = bytearray(whole)
    for index, bits in flips:
        content[index % len(content)] ^= bits
    try:
        (copy / name).write_bytes(content[: max(0, len(content) - missing)])
        assert len(error_of(copy).splitlines()) <= 1
    finally:
        (copy / name).write_bytes(whole)


def npz_of(content: bytes) -> bytes:
    """Return an npz file of two members with the same content, one named .npy."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("labels.npy", content)
        archive.writestr("images", content)
    return stream.getvalue()


def npz_of_objects(trap) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, images=np.array([trap], object), labels=np.array([trap], object))
    return stream.getvalue()


def test_no_pickle_is_loaded(copy, tmp_path):
    """In place of each file, including those of checkpoints, and as an array."""
    created = tmp_path / "executed"
    trap = Trap(created)
    pickled = pickle.dumps(trap)
    run = shutil.copytree(copy, tmp_path / "run")
    names = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    assert len(names) > 50
    for name in names:
        variants = [pickled]
        if name.suffix == ".npz":
            variants += [npz_of(pickled), npz_of_objects(trap)]
        for content in variants:
            (run / name).write_bytes(content)
            if name.parts[0] != "checkpoints":
                error_of(run)
                shutil.copy(copy / name, run / name)
    # All files of all checkpoints are pickles now.
    for stage in ("vqvae", "prior"):
        with (
            pytest.warns(UserWarning, match="is skipped"),
            pytest.raises(UserError, match="checkpoint"),
        ):
            Workdir(run).restore(stage)
    assert not created.exists()
    # Unpickling it does execute it.
    pickle.loads(pickled)
    assert created.exists()


@given(st.text(max_size=300))
def test_class_names_give_file_names_inside_the_directory_of_pictures(name):
    found = file_name([name], 0)
    assert os.path.basename(found) == found
    assert found.startswith("0000_")
    assert len(os.fsencode(found)) <= 100
    assert found.isprintable()
