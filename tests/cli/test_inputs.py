"""Inputs of commands: files, folders and patterns."""

import pytest

from vqvae_jax.cli.inputs import files_of, sources_of
from vqvae_jax.runtime.errors import UserError

SUFFIXES = (".png", ".jpg")


@pytest.fixture
def folder(tmp_path):
    """Images at two depths, a text file and a hidden file."""
    for name in ("b.png", "a.JPG", "in/c.jpg", "in/b.jpg", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(*inputs):
    return [file.name for file in files_of(list(map(str, inputs)), SUFFIXES)]


def test_a_folder_contributes_all_matching_files_in_it(folder):
    assert names(folder) == ["a", "b", "in/b", "in/c"]


def test_a_pattern_contributes_matching_files(folder):
    assert names(folder / "*") == ["a", "b"]
    assert names(folder / "in" / "*.jpg", folder / "a*") == ["b", "c", "a"]


def test_an_explicit_file_may_have_any_suffix(folder):
    assert names(folder / "notes.txt", folder / "b.png") == ["notes", "b"]


def test_repeated_files_are_read_once(folder):
    assert names(folder / "b.png", folder / "b.png", folder) == [
        "b",
        "a",
        "in/b",
        "in/c",
    ]


def test_sources_are_absolute_paths(folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = sources_of(files_of(["in"], SUFFIXES))
    assert found == {"b": f"{folder}/in/b.jpg", "c": f"{folder}/in/c.jpg"}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["*.gif"], r"no file in .*\*\.gif that ends in \.png, \.jpg"),
        (["empty"], r"no file in .*empty that ends in"),
        (["b.png", "in/*.jpg"], r"b\.png and .*in/b\.jpg would both become b"),
    ],
)
def test_invalid_inputs_raise(folder, inputs, message):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        names(*(folder / text for text in inputs))
