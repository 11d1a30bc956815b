"""Codes on disk: round trips, replacement, interrupted writes, damage."""

import json
import pickle
import resource
import signal

import numpy as np
import pytest
from launch_checks import python

from vqvae_jax.data import TrainBatches, eval_batches, first_examples
from vqvae_jax.data.codes import CodesSource, write_codes
from vqvae_jax.runtime.errors import UserError


def draw(n=100, grid=(4, 5, 2), num_codes=512):
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, num_codes, (n, *grid), np.int32),
        rng.integers(0, 10, n, np.int32),
    )


def batches_of(codes, labels, size=32):
    for start in range(0, len(codes), size):
        part = slice(start, start + size)
        yield codes[part], {"label": labels[part]}


def write(directory, codes=None, labels=None, **kwargs):
    """Write these codes, or other `batches`, with options that tests change."""
    options = {"num_codes": 512, "class_names": ["cat", "dog"], "fingerprint": "abc"}
    if codes is not None:
        options["batches"] = batches_of(codes, labels)
    return write_codes(directory, **options | kwargs)


def test_round_trip(tmp_path):
    codes, labels = draw()
    metadata = write(tmp_path / "run" / "codes", codes, labels)
    source = CodesSource(tmp_path / "run" / "codes")
    assert source.metadata == metadata
    assert metadata.grid == (4, 5, 2)
    assert metadata.class_names == ("cat", "dog")
    assert metadata.num_examples == len(source) == 100
    batch = first_examples(source, 100)
    np.testing.assert_array_equal(batch["codes"], codes)
    np.testing.assert_array_equal(batch["label"], labels)
    assert batch["codes"].dtype == batch["label"].dtype == np.int32
    example = source[7]
    assert example["label"].shape == ()
    np.testing.assert_array_equal(example["codes"], codes[7])
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["codes"]


@pytest.mark.parametrize(("num_codes", "bytes_each"), [(2**16, 2), (2**16 + 1, 4)])
def test_codes_have_two_bytes_if_they_fit(tmp_path, num_codes, bytes_each):
    codes, labels = draw(4)
    codes[0, 0, 0] = num_codes - 1
    metadata = write(tmp_path / "codes", codes, labels, num_codes=num_codes)
    assert metadata.dtype.itemsize == bytes_each
    batch = first_examples(CodesSource(tmp_path / "codes"), 4)
    np.testing.assert_array_equal(batch["codes"], codes)


def test_codes_are_batched_and_pickled(tmp_path):
    codes, labels = draw()
    write(tmp_path / "codes", codes, labels)
    source = pickle.loads(pickle.dumps(CodesSource(tmp_path / "codes")))
    got = [b["codes"][b["mask"]] for b in eval_batches(source, batch_size=32)]
    np.testing.assert_array_equal(np.concatenate(got), codes)
    batches = TrainBatches(source, batch_size=8, seed=0)
    assert next(batches)["codes"].shape == (8, 4, 5, 2)
    batches.close()


def test_codes_of_another_codebook_raise(tmp_path):
    write(tmp_path / "codes", *draw())
    source = CodesSource(tmp_path / "codes")
    source.require_fingerprint("abc")
    with pytest.raises(UserError, match="another codebook"):
        source.require_fingerprint("abd")


def test_existing_codes_are_replaced(tmp_path):
    write(tmp_path / "codes", *draw())
    write(tmp_path / "codes", *draw(7), fingerprint="new")
    assert len(CodesSource(tmp_path / "codes")) == 7
    assert [p.name for p in tmp_path.iterdir()] == ["codes"]


def test_a_failed_write_keeps_the_old_codes_and_no_remains(tmp_path):
    codes, labels = draw()
    write(tmp_path / "codes", codes, labels)

    def failing():
        yield codes, {"label": labels}
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "codes", batches=failing(), fingerprint="new")
    assert CodesSource(tmp_path / "codes").metadata.fingerprint == "abc"
    assert [p.name for p in tmp_path.iterdir()] == ["codes"]


def test_a_killed_write_is_incomplete_and_removed_by_the_next(tmp_path):
    script = f"""
import os, signal
import numpy as np
from vqvae_jax.data.codes import write_codes

def batches():
    for _ in range(100):
        yield np.zeros((64, 8, 8, 1), np.int32), {{"label": np.zeros(64, np.int32)}}
    os.kill(os.getpid(), signal.SIGKILL)

write_codes(
    {str(tmp_path / "codes")!r},
    batches=batches(),
    num_codes=512,
    class_names=[],
    fingerprint="abc",
)
"""
    result = python("-c", script)
    assert result.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UserError, match="no finished codes"):
        CodesSource(tmp_path / "codes")
    write(tmp_path / "codes", *draw())
    assert [p.name for p in tmp_path.iterdir()] == ["codes"]


def test_a_full_disk_raises(tmp_path):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 512, (2_000, 32, 32, 1), np.int32)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(UserError, match="disk has space"):
            write(tmp_path / "codes", codes, np.zeros(2_000, np.int32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_writable_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path / "file" / "codes", *draw())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"codes": np.full((4, 2, 2, 1), 512)}, r"\[0, 512\)"),
        ({"codes": np.full((4, 2, 2, 1), -1)}, r"\[0, 512\)"),
        ({"labels": np.zeros(3, np.int32)}, "a label of"),
        (
            {"codes": np.zeros((0, 2, 2, 1), int), "labels": np.zeros(0, int)},
            "no codes",
        ),
    ],
)
def test_invalid_codes_raise(tmp_path, change, match):
    good = {"codes": np.zeros((4, 2, 2, 1), int), "labels": np.zeros(4, int)}
    with pytest.raises(UserError, match=match):
        write(tmp_path / "codes", **good | change)
    assert list(tmp_path.iterdir()) == []


def test_different_grids_raise(tmp_path):
    batches = [
        (np.zeros((2, 4, 4, 1), int), {"label": np.zeros(2, int)}),
        (np.zeros((2, 4, 5, 1), int), {"label": np.zeros(2, int)}),
    ]
    with pytest.raises(UserError, match=r"expected \[b, 4, 4, 1\]"):
        write(tmp_path / "codes", batches=batches, num_codes=8)


def columns_of(n):
    return {"label": np.zeros(n, int), "action": np.arange(n), "step": -np.arange(n)}


def test_columns_round_trip(tmp_path):
    codes, _ = draw(50)
    batches = [(codes[:30], columns_of(30)), (codes[30:], columns_of(20))]
    names = ["go", "stay"]
    metadata = write(tmp_path / "codes", batches=batches, action_names=names)
    assert metadata.columns == ("label", "action", "step")
    assert metadata.action_names == ("go", "stay")
    source = CodesSource(tmp_path / "codes")
    assert source.metadata == metadata
    found = first_examples(source, 50)
    np.testing.assert_array_equal(found["codes"], codes)
    for name in metadata.columns:
        expected = np.concatenate([columns_of(30)[name], columns_of(20)[name]])
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].dtype == np.int32


def test_metadata_of_an_earlier_version_without_columns_is_read(tmp_path):
    codes, labels = draw(4)
    write(tmp_path / "codes", codes, labels)
    path = tmp_path / "codes" / "metadata.json"
    fields = json.loads(path.read_text())
    del fields["columns"], fields["action_names"]
    path.write_text(json.dumps(fields))
    batch = first_examples(CodesSource(tmp_path / "codes"), 4)
    np.testing.assert_array_equal(batch["label"], labels)
    np.testing.assert_array_equal(batch["codes"], codes)


def test_different_columns_raise(tmp_path):
    codes, _ = draw(8)
    batches = [(codes[:4], columns_of(4)), (codes[4:], {"label": np.zeros(4, int)})]
    with pytest.raises(UserError, match="columns label; earlier batches have label, a"):
        write(tmp_path / "codes", batches=batches)


def test_damage_raises(tmp_path):
    directory = tmp_path / "codes"
    write(directory, *draw())
    (tmp_path / "intact").mkdir()
    kept = {p.name: p.read_bytes() for p in directory.iterdir()}

    def restore():
        for name, content in kept.items():
            (directory / name).write_bytes(content)

    fields = json.loads(kept["metadata.json"])
    for name, content in (("metadata.json", b"{"), ("codes.array_record", b"")):
        (directory / name).write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            CodesSource(directory)
        restore()
    fields["num_examples"] += 1
    (directory / "metadata.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match="100 records, expected 101"):
        CodesSource(directory)
    restore()
    (directory / "codes.array_record").unlink()
    with pytest.raises(UserError, match="damaged"):
        CodesSource(directory)
    restore()
    (directory / "metadata.json").unlink()
    with pytest.raises(UserError, match="no finished codes"):
        CodesSource(directory)
