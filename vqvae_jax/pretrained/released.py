"""The trained models that come with the package, by name."""

from pathlib import Path

from vqvae_jax.runtime import resources

# The file of a trained model.
FILE = "model.safetensors"


def names() -> tuple[str, ...]:
    """Return the names of the released models."""
    folders = (path.parent for path in resources.folder("weights").glob(f"*/{FILE}"))
    return tuple(sorted(folder.name for folder in folders))


def path_of(name: str) -> Path | None:
    """Return the file of a released model, None if there is none of this name."""
    if name not in names():
        return None
    return resources.folder("weights") / name / FILE
