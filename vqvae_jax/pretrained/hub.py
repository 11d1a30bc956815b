"""Files of the Hugging Face Hub, by names such as hf://user/name or hf://user/name@v1."""

import re
from pathlib import Path

from vqvae_jax.runtime.errors import UserError, require

PREFIX = "hf://"


def download(name: str, filename: str) -> Path:
    """Return the local path of a file of a Hub repository; download it if necessary.

    Raises:
      UserError: the name is invalid, huggingface_hub is not installed, or the file
        cannot be downloaded.
    """
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name[len(PREFIX) :])
    require(
        found is not None,
        f"{name} is not a name on the Hub: expected {PREFIX}user/name",
    )
    repository, revision = found.groups()
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"huggingface_hub is needed to read {name} and is not installed: "
            "pip install 'vqvae_jax[hub]', or pip install huggingface_hub"
        ) from error
    try:
        path = huggingface_hub.hf_hub_download(repository, filename, revision=revision)
    # Its errors come from several HTTP libraries, depending on its version.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{filename} of {name} cannot be downloaded: {reason}"
        ) from error
    return Path(path)
