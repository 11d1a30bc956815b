"""encode, decode and reconstruct: between data and codes, batch by batch."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vqvae_jax.cli.batches import Make, make_files
from vqvae_jax.cli.coders import (
    Codes,
    ImageCoder,
    SpeechCoder,
    each_image,
)
from vqvae_jax.cli.inputs import (
    CODES,
    IMAGES,
    RECORDINGS,
    Input,
    files_of,
    require_images,
    require_recordings,
    sources_of,
)
from vqvae_jax.cli.models import (
    CODING,
    Loaded,
    load,
    rate_of,
    speaker_of,
)
from vqvae_jax.cli.outputs import npz, png
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.safe_io import read_arrays


def encode(options: argparse.Namespace) -> None:
    """Write the codes of each image or recording."""
    loaded = load(options.model, "encode", kinds=CODING)
    files = _data(loaded, options.inputs)
    coder, digest = _coder(loaded, options, files), loaded.fingerprint

    def make(paths, number):
        del number
        return [codes_file(codes, digest) for codes in coder.codes_of(paths)]

    made_by = {"command": "encode", "model": digest}
    _make(options, files, make, made_by=made_by, suffix=".npz")


def decode(options: argparse.Namespace) -> None:
    """Write the image or the sound of codes."""
    loaded = load(options.model, "decode", kinds=CODING)
    files = files_of(options.inputs, CODES)
    made_by = _said_by(loaded, options)
    coder, digest = _coder(loaded, options, files), loaded.fingerprint
    for file in files:
        coder.require_codes(read_codes(file.path, digest), where=file.path)

    def make(paths, number):
        return coder.made_of([read_codes(Path(path), digest) for path in paths], number)

    _make(options, files, make, made_by=made_by, suffix=coder.suffix)


def reconstruct(options: argparse.Namespace) -> None:
    """Write what the model makes of images or recordings."""
    loaded = load(options.model, "reconstruct", kinds=(*CODING, "vae", "vimco"))
    files = _data(loaded, options.inputs)
    made_by = _said_by(loaded, options)
    if loaded.about.kind == "speech":
        coder = _coder(loaded, options, files)

        def make(paths, number):
            return coder.made_of(coder.codes_of(paths), number)

        _make(options, files, make, made_by=made_by, suffix=coder.suffix)
        return
    model, size = loaded.model, _at_once(options, files)
    of_batch = jax.jit(model.reconstruct)

    def make_images(paths, number):
        del number
        images = each_image(
            lambda images: of_batch(loaded.params, images),
            paths,
            model.image_shape,
            batch_size=size,
        )
        return [png(image) for image in images]

    _make(options, files, make_images, made_by=made_by, suffix=".png")


def _make(
    options: argparse.Namespace,
    files: Sequence[Input],
    make: Make,
    *,
    made_by: dict[str, Any],
    suffix: str,
) -> None:
    """Make a file of each file."""
    sources = sources_of(files)
    make_files(
        options, sources, make, made_by=made_by, suffix=suffix, reads=sources.values()
    )


def codes_file(codes: Codes, fingerprint: str) -> bytes:
    """Return an .npz file of codes that says which model they belong to."""
    smallest = np.min_scalar_type(int(codes.max(initial=0)))
    return npz(codes=codes.astype(smallest), fingerprint=np.array(fingerprint))


def read_codes(path: Path, fingerprint: str) -> Codes:
    """Return the codes of such a file.

    Raises:
      UserError: it is none, damaged, or of another model.
    """
    arrays = read_arrays(path, {"fingerprint": "U"})
    codes, theirs = arrays.get("codes"), str(arrays["fingerprint"])
    require(codes is not None, f"{path} has no array `codes`: `encode` writes it")
    require(
        theirs == fingerprint,
        f"{path} has the codes of another model ({theirs}, this one is {fingerprint})",
    )
    require(
        np.issubdtype(codes.dtype, np.integer),
        f"{path} has codes of type {codes.dtype}, expected integers",
    )
    most = int(codes.max(initial=0))
    require(most < 2**31, f"{path} has codes up to {most}")
    return codes.astype(np.int32)


def _said_by(loaded: Loaded, options: argparse.Namespace) -> dict[str, Any]:
    """Return what decides the results; UserError if nobody is named to speak."""
    made_by = {"command": options.command, "model": loaded.digest}
    if loaded.about.kind == "speech":
        speaker_of(loaded, options.speaker)
        made_by |= {"speaker": options.speaker, "seed": options.seed}
    return made_by


def _data(loaded: Loaded, inputs: Sequence[str]) -> list[Input]:
    """Return the files of a model's kind, looked at before work starts."""
    if loaded.about.kind == "speech":
        files = files_of(inputs, RECORDINGS)
        require_recordings(files, rate=rate_of(loaded))
    else:
        files = files_of(inputs, IMAGES)
        require_images(files)
    return files


def _coder(
    loaded: Loaded, options: argparse.Namespace, files: Sequence[Input]
) -> ImageCoder | SpeechCoder:
    size = _at_once(options, files)
    if loaded.about.kind != "speech":
        return ImageCoder(loaded, batch_size=size)
    if not hasattr(options, "speaker"):
        return SpeechCoder(loaded, batch_size=size)
    speaker = speaker_of(loaded, options.speaker)
    return SpeechCoder(loaded, batch_size=size, speaker=speaker, seed=options.seed)


def _at_once(options: argparse.Namespace, files: Sequence[Input]) -> int:
    return min(options.batch_size, len(files))
