"""Give a trained model away: a file and a card that says what is in it."""

import os
from pathlib import Path
from typing import Any

from vqvae_jax.pretrained import card, file
from vqvae_jax.pretrained.loading import FILE, find
from vqvae_jax.pretrained.metadata import about_models
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.safe_io import write_bytes
from vqvae_jax.workdir import fingerprint


def save_pretrained(
    source: str | os.PathLike | tuple[Any, ...],
    folder: str | os.PathLike,
    *,
    sample_rate: int | None = None,
) -> Path:
    """Write all of a trained model to `folder`, to be given away and restored.

    `model.safetensors` is the model: the arrays of the best checkpoints, those of the
    prior or what else follows, options, class names, config and results. `README.md`
    is its card, written from the same. Both are replaced if they were there.

    Args:
      source: what `restore` reads; or (model, params), or (model, params, prior,
        prior_params), of your own training loop.
      folder: made if it does not exist.
      sample_rate: Hz, of speech whose source does not say it.

    Returns the path of the file.

    Raises:
      UserError: there is no trained model, its prior belongs to the codes of another
        one, or the folder cannot be written to.
    """
    if isinstance(source, tuple):
        about, params = about_models(*source)
    else:
        place = find(source)
        about = place.about
        params = {stage: place.params(stage) for stage in (about.kind, *about.models)}
    if about.models:
        ours = fingerprint(params[about.kind])
        require(
            about.codes_of == ours,
            f"the {about.second} of {source} was trained on the codes of another model "
            f"({about.codes_of}, not {ours}): train it again first",
        )
    if sample_rate is not None:
        about = about._replace(sample_rate=sample_rate)
    path = Path(folder) / FILE
    file.write(path, about, params)
    write_bytes(path.with_name("README.md"), card.of(about, path.parent).encode())
    return path
