"""A workdir from anyone: whatever is in its files is read or told, and nothing runs."""

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

from vqvae_jax.pipeline.samples import file_name
from vqvae_jax.pretrained.loading import find
from vqvae_jax.pretrained.summary import facts as facts_of
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.logging import read_entries
from vqvae_jax.workdir import (
    SPLITS,
    Workdir,
    restore,
    restore_prior,
)

FILES = (
    "config.json",
    "prior.json",
    "metrics.jsonl",
    "samples.npz",
    "results.json",
    "codes/test/metadata.json",
    "codes/test/codes.array_record",
)


class Trap:
    """Makes a directory where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def read_all(path) -> None:
    """Read what a workdir has, but for its checkpoints."""
    workdir = Workdir(path)
    experiment = workdir.experiment()
    facts = dataclasses.asdict(workdir.read_facts(experiment.second))
    experiment.make_second(facts)
    facts_of(find(path).about)
    for split in SPLITS:
        codes = workdir.codes(split)
        for number in range(0, len(codes), 50):
            assert codes[number]["codes"].shape == (4, 4, 1)
    workdir.read_samples()
    workdir.read_results()
    read_entries(workdir.metrics)


def told(path) -> str:
    """Return why a workdir cannot be read, "" if it can."""
    try:
        read_all(path)
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def copy(finished_run, tmp_path_factory):
    """A copy of a run, of which a test changes a file and puts it back."""
    return shutil.copytree(finished_run, tmp_path_factory.mktemp("copy") / "run")


def test_a_run_as_it_is_can_be_read(copy):
    assert told(copy) == ""


@pytest.mark.parametrize("content", ["{}", "[]", '{"grid": 3}', '{"fingerprint": 0}'])
def test_a_prior_json_of_anything_else_is_told_wherever_it_is_read(copy, content):
    whole = (copy / "prior.json").read_bytes()
    try:
        (copy / "prior.json").write_text(content)
        for read in (find, restore_prior):
            with pytest.raises(UserError, match=r"prior\.json"):
                read(copy)
    finally:
        (copy / "prior.json").write_bytes(whole)


@settings(max_examples=50)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=4),
    st.one_of(st.just(0), st.integers(0, 3000)),
)
def test_flipped_and_truncated_files_are_read_or_told(copy, name, flips, missing):
    whole = (copy / name).read_bytes()
    content = bytearray(whole)
    for place, bits in flips:
        content[place % len(content)] ^= bits
    try:
        (copy / name).write_bytes(content[: max(0, len(content) - missing)])
        assert len(told(copy).splitlines()) <= 1
    finally:
        (copy / name).write_bytes(whole)


def npz_of(content: bytes) -> bytes:
    """An npz file with an array of objects, pickled, and a pickle as it is."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("labels.npy", content)
        archive.writestr("images", content)
    return stream.getvalue()


def objects(trap) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, images=np.array([trap], object), labels=np.array([trap], object))
    return stream.getvalue()


def test_no_pickle_is_loaded(copy, tmp_path):
    """In place of each file, of those inside of checkpoints too, and as an array."""
    mark = tmp_path / "executed"
    trap = Trap(mark)
    pickled = pickle.dumps(trap)
    run = shutil.copytree(copy, tmp_path / "run")
    names = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    assert len(names) > 50
    for name in names:
        variants = [pickled]
        if name.suffix == ".npz":
            variants += [npz_of(pickled), objects(trap)]
        for content in variants:
            (run / name).write_bytes(content)
            if name.parts[0] != "checkpoints":
                told(run)
                shutil.copy(copy / name, run / name)
    # All files of all checkpoints are pickles now.
    for read in (restore, restore_prior):
        with (
            pytest.warns(UserWarning, match="passed over"),
            pytest.raises(UserError, match="checkpoint"),
        ):
            read(run)
    assert not mark.exists()
    # The trap works.
    pickle.loads(pickled)
    assert mark.exists()


@given(st.text(max_size=300))
def test_no_name_of_a_class_leads_out_of_the_folder_of_pictures(name):
    found = file_name([name], 0)
    assert os.path.basename(found) == found
    assert found.startswith("0000_")
    assert len(os.fsencode(found)) <= 100
    assert found.isprintable()
