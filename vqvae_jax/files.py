"""Files that are written whole or not at all."""

from pathlib import Path

from vqvae_jax.errors import UserError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, and the folders it is in, whole or not at all.

    Raises:
      UserError: the disk is full or the like.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error
