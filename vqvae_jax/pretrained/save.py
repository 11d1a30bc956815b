"""Export of a trained model: one file and a card."""

import os
from pathlib import Path
from typing import Any

from vqvae_jax.models.base import fingerprint
from vqvae_jax.pretrained import card, file
from vqvae_jax.pretrained.loading import FILE, find
from vqvae_jax.pretrained.metadata import metadata_of
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.safe_io import write_bytes


def save_pretrained(
    source: str | os.PathLike | tuple[Any, ...],
    folder: str | os.PathLike,
    *,
    sample_rate: int | None = None,
) -> Path:
    """Write a trained model to `folder`, from which `restore` loads it.

    `model.safetensors` holds the arrays of the best checkpoints, those of the second
    stage too, with options, class names, config and results. `README.md` is its card.
    Existing files are replaced.

    Args:
      source: a source of `restore`; or (model, params), or (model, params, prior,
        prior_params), from your own training loop.
      folder: created if missing.
      sample_rate: Hz, for models of speech whose source does not record it.

    Returns the path of the file.

    Raises:
      UserError: there is no trained model, its prior was trained on the codes of
        another one, or the folder cannot be written to.
    """
    if isinstance(source, tuple):
        metadata, params = metadata_of(*source)
    else:
        found = find(source)
        metadata = found.metadata
        stages = (metadata.kind, *metadata.models)
        params = {stage: found.params(stage) for stage in stages}
    if metadata.models:
        digest = fingerprint(metadata.model, params[metadata.kind])
        require(
            metadata.codes_of == digest,
            f"the {metadata.second_stage} of {source} was trained on the codes of "
            f"another model ({metadata.codes_of}, not {digest}): train it again first",
        )
    if sample_rate is not None:
        metadata = metadata._replace(sample_rate=sample_rate)
    path = Path(folder) / FILE
    file.write(path, metadata, params)
    write_bytes(path.with_name("README.md"), card.of(metadata, path.parent).encode())
    return path
