"""Files of the Hugging Face Hub, by names such as hf://user/name or hf://user/name@v1."""

import re
from pathlib import Path

from vqvae_jax.runtime.errors import UserError, require

PREFIX = "hf://"


def download(name: str, filename: str) -> Path:
    """Return where a file of a repository of the Hub lies here, fetched if need be.

    Raises:
      UserError: the name is none, huggingface_hub is not installed, or the file cannot
        be fetched.
    """
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name[len(PREFIX) :])
    require(
        found is not None, f"{name} is no name of the Hub: expected {PREFIX}user/name"
    )
    repository, revision = found.groups()
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"huggingface_hub is needed to read {name} and is not installed: "
            "pip install -e '.[hub]', or pip install huggingface_hub"
        ) from error
    try:
        path = huggingface_hub.hf_hub_download(repository, filename, revision=revision)
    # What it raises comes from three HTTP libraries and its own, by version.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{filename} of {name} cannot be fetched: {reason}") from error
    return Path(path)
