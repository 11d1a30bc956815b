"""Work that is interrupted goes on, and nothing is replaced that is not to be."""

import argparse
import json

import pytest

from vqvae_jax.cli import progress
from vqvae_jax.cli.batches import make_files
from vqvae_jax.runtime.errors import UserError

SOURCES = {f"{place}/{number}": f"of {number}" for place in "ab" for number in range(4)}


class Interrupted(Exception):
    """As if the power had failed."""


class Maker:
    """Makes a file of each source, told of its batch; stops before a batch."""

    def __init__(self, stop=None):
        self.batches, self._stop = [], stop

    def __call__(self, sources, number):
        if number == self._stop:
            raise Interrupted
        self.batches.append(number)
        return [f"{source} in {number}".encode() for source in sources]


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


def test_an_interrupted_folder_is_finished_as_if_nothing_had_been(tmp_path, capsys):
    run(tmp_path / "whole", Maker())
    assert len(contents(tmp_path / "whole")) == len(SOURCES)
    with pytest.raises(Interrupted):
        run(tmp_path / "half", Maker(stop=1))
    assert len(contents(tmp_path / "half")) == 3
    again = Maker()
    run(tmp_path / "half", again)
    assert again.batches == [1, 2]
    assert contents(tmp_path / "half") == contents(tmp_path / "whole")
    assert capsys.readouterr().out == (
        f"{tmp_path / 'whole'}: 8 files\n"
        f"{tmp_path / 'half'}: 8 files (3 were there already)\n"
    )


def test_files_that_are_there_are_kept_and_more_are_added(tmp_path):
    first = dict(list(SOURCES.items())[:4])
    run(tmp_path, Maker(), sources=first)
    # In a batch of which the rest is missing.
    kept = tmp_path / "a" / "3.txt"
    kept.write_text("changed by hand")
    run(tmp_path, Maker())
    assert kept.read_text() == "changed by hand"
    assert len(contents(tmp_path)) == len(SOURCES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"made_by": {"model": "n"}}, "results of another command .*model: 'm', not"),
        ({"sources": {"a/0": "of 9"}}, "results of another command .*a/0: 'of 0', not"),
    ],
)
def test_another_commands_folder_is_left_alone_without_force(
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


def test_a_file_of_somebody_else_is_left_alone_without_force(tmp_path):
    (tmp_path / "a").mkdir()
    theirs = tmp_path / "a" / "2.txt"
    theirs.write_text("theirs")
    with pytest.raises(UserError, match=r"a/2\.txt exists already: .* --force"):
        run(tmp_path, Maker())
    assert contents(tmp_path) == {"a/2": "theirs"}
    run(tmp_path, Maker(), force=True)
    assert theirs.read_text() == "of 2 in 0"


@pytest.mark.parametrize("content", ["{", "[]", '{"made_by": 3, "sources": {}}', "{}"])
def test_a_damaged_record_is_told(tmp_path, content):
    (tmp_path / "made_by.json").write_text(content)
    with pytest.raises(UserError, match=r"made_by\.json is damaged: .* --force"):
        run(tmp_path, Maker())
    run(tmp_path, Maker(), force=True)
    assert len(contents(tmp_path)) == len(SOURCES)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        run(tmp_path / "file" / "out", Maker())


def test_progress_is_silent_where_nobody_watches(capsys):
    with progress.shown("work", 3) as advance:
        advance(2)
        advance(1)
    assert capsys.readouterr() == ("", "")
