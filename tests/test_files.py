"""Files are written whole or not at all; see test_workdir.py for a full disk."""

import pytest

from vqvae_jax.errors import UserError
from vqvae_jax.files import write_bytes


def test_folders_are_made_and_files_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_bytes(path, b"1")
    write_bytes(path, b"22")
    assert path.read_bytes() == b"22"
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/b: "):
        write_bytes(tmp_path / "file" / "b", b"1")
