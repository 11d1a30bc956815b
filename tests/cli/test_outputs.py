"""Resumption of interrupted work, and protection of existing files."""

import argparse
import contextlib
import errno
import json
from pathlib import Path

import pytest

from vqvae_jax.cli.outputs import make_files, progress, require_new
from vqvae_jax.runtime.errors import UserError

SOURCES = {f"{folder}/{i}": f"of {i}" for folder in "ab" for i in range(4)}


class Interrupted(Exception):
    """Raised instead of a power failure."""


class Maker:
    """Makes a file of each source, which tells it; raises before batch `stop`."""

    def __init__(self, stop=None):
        self.batches, self._stop = [], stop

    def __call__(self, sources):
        if len(self.batches) == self._stop:
            raise Interrupted
        self.batches.append(list(sources))
        return [source.encode() for source in sources.values()]


def run(folder, maker, *, made_by=None, sources=SOURCES, force=False):
    options = argparse.Namespace(
        command="test", out=str(folder), force=force, batch_size=3
    )
    make_files(
        options,
        sources,
        maker,
        made_by={"model": "m"} if made_by is None else made_by,
        suffix=".txt",
    )


def contents(folder):
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path.read_text()
        for path in folder.rglob("*.txt")
    }


def test_an_interrupted_folder_is_completed_with_the_same_files(tmp_path, capsys):
    run(tmp_path / "whole", Maker())
    assert len(contents(tmp_path / "whole")) == len(SOURCES)
    with pytest.raises(Interrupted):
        run(tmp_path / "half", Maker(stop=1))
    assert len(contents(tmp_path / "half")) == 3
    again = Maker()
    run(tmp_path / "half", again)
    names = list(SOURCES)
    assert again.batches == [names[3:6], names[6:]]
    assert contents(tmp_path / "half") == contents(tmp_path / "whole")
    assert capsys.readouterr().out == (
        f"{tmp_path / 'whole'}: 8 files\n{tmp_path / 'half'}: 8 files (3 existed)\n"
    )


@pytest.mark.parametrize("out", ["out", "new/out", "."])
@pytest.mark.parametrize("force", [False, True])
def test_a_command_that_makes_nothing_leaves_nothing(tmp_path, out, force):
    with pytest.raises(Interrupted):
        run(tmp_path / out, Maker(stop=0), force=force)
    assert not list(tmp_path.iterdir())
    # The folder is not reserved for that command.
    run(tmp_path / out, Maker(), made_by={"model": "n"})


def test_a_failed_write_leaves_no_subfolder(tmp_path, limited_file_sizes):
    (tmp_path / "out" / "b").mkdir(parents=True)
    sources = {"a/x/0": "of 0", "b/y/1": "of 1"}

    def make(sources):
        # The record is written, the results are not.
        limited.enter_context(limited_file_sizes())
        return [b"content"] * len(sources)

    with (
        contextlib.ExitStack() as limited,
        pytest.raises(UserError, match=r"cannot write .*0\.txt: File too large"),
    ):
        run(tmp_path / "out", make, sources=sources)
    assert list((tmp_path / "out").rglob("*")) == [tmp_path / "out" / "b"]


def test_an_error_of_the_removal_does_not_hide_the_first_one(tmp_path, monkeypatch):
    def refuse(path, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    class Refusing(Maker):
        def __call__(self, sources):
            monkeypatch.setattr(Path, "unlink", refuse)
            raise Interrupted

    with pytest.raises(Interrupted):
        run(tmp_path / "out", Refusing())


def test_a_command_that_adds_nothing_leaves_the_folder_as_it_was(tmp_path):
    first = dict(list(SOURCES.items())[:3])
    run(tmp_path, Maker(), sources=first)
    with pytest.raises(Interrupted):
        run(tmp_path, Maker(stop=0))
    assert contents(tmp_path) == first
    run(tmp_path, Maker())
    assert len(contents(tmp_path)) == len(SOURCES)


@pytest.mark.parametrize("length", [247, 250, 252, 256, 5_000])
def test_names_that_are_too_long_raise_before_work_starts(tmp_path, length):
    maker = Maker()
    with pytest.raises(UserError, match=r"cannot write .* more than 250 bytes; rename"):
        run(tmp_path / "out", maker, sources={"x" * length: "a", "b": "b"})
    if length > 255:
        with pytest.raises(UserError, match=r"cannot write .* too long"):
            run(tmp_path / ("x" * length), maker)
    assert not maker.batches
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("force", [False, True])
def test_a_single_result_that_cannot_be_written_raises(tmp_path, force):
    (tmp_path / "file").write_text("")
    for name in ("x" * 251, "x" * 256 + "/y", "file/y"):
        with pytest.raises(UserError, match=r"^cannot write"):
            require_new(tmp_path / name, force=force)
    require_new(tmp_path / "new" / "y", force=force)


def test_the_longest_names_are_written(tmp_path):
    run(tmp_path, Maker(), sources={"x" * 246: "a", "b": "b"})
    assert len(contents(tmp_path)) == 2


def test_existing_files_are_kept_and_more_are_added(tmp_path):
    first = dict(list(SOURCES.items())[:4])
    run(tmp_path, Maker(), sources=first)
    # The other files of its batch are missing.
    kept = tmp_path / "a" / "3.txt"
    kept.write_text("edited")
    run(tmp_path, Maker())
    assert kept.read_text() == "edited"
    assert len(contents(tmp_path)) == len(SOURCES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"made_by": {"model": "n"}}, "results of another command .*model: 'm', not"),
        ({"sources": {"a/0": "of 9"}}, "results of another command .*a/0: 'of 0', not"),
    ],
)
def test_the_folder_of_another_command_is_replaced_only_with_force(
    tmp_path, changes, message
):
    run(tmp_path, Maker())
    before = contents(tmp_path)
    with pytest.raises(UserError, match=message):
        run(tmp_path, Maker(), **changes)
    assert contents(tmp_path) == before
    maker = Maker()
    run(tmp_path, maker, force=True, **changes)
    assert maker.batches
    assert json.loads((tmp_path / "made_by.json").read_text())["made_by"] == (
        changes.get("made_by", {"model": "m"})
    )


def test_a_file_of_another_program_is_replaced_only_with_force(tmp_path):
    (tmp_path / "a").mkdir()
    other = tmp_path / "a" / "2.txt"
    other.write_text("other")
    with pytest.raises(UserError, match=r"a/2\.txt exists already: .* --force"):
        run(tmp_path, Maker())
    assert contents(tmp_path) == {"a/2": "other"}
    run(tmp_path, Maker(), force=True)
    assert other.read_text() == "of 2"


@pytest.mark.parametrize("content", ["{", "[]", '{"made_by": 3, "sources": {}}', "{}"])
def test_a_damaged_record_raises(tmp_path, content):
    (tmp_path / "made_by.json").write_text(content)
    with pytest.raises(UserError, match=r"made_by\.json is damaged: .* --force"):
        run(tmp_path, Maker())
    run(tmp_path, Maker(), force=True)
    assert len(contents(tmp_path)) == len(SOURCES)


def test_a_folder_that_cannot_be_written_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        run(tmp_path / "file" / "out", Maker())


def test_progress_prints_nothing_without_a_terminal(capsys):
    with progress("work", 3) as advance:
        advance(2)
        advance(1)
    assert capsys.readouterr() == ("", "")
