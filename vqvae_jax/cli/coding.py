"""The commands encode, decode and reconstruct."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vqvae_jax import registry
from vqvae_jax.cli.coders import Coder, Codes
from vqvae_jax.cli.inputs import CODES, Input, files_of, sources_of
from vqvae_jax.cli.loaded import Loaded, load
from vqvae_jax.cli.outputs import Make, make_files
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.safe_io import npz, read_arrays


def encode(options: argparse.Namespace) -> None:
    """Write the codes of each image or recording."""
    loaded = load(options.model, "encode")
    files = _inputs(loaded, options.inputs)
    coder, fingerprint = _coder(loaded, options, files), loaded.fingerprint

    def make(paths, batch):
        del batch
        return [codes_file(codes, fingerprint) for codes in coder.encode(paths)]

    made_by = {"command": "encode", "model": fingerprint}
    _make(options, files, make, made_by=made_by, suffix=".npz")


def decode(options: argparse.Namespace) -> None:
    """Write the image or the audio of codes."""
    loaded = load(options.model, "decode")
    files = files_of(options.inputs, CODES)
    made_by = _made_by(loaded, options)
    coder, fingerprint = _coder(loaded, options, files), loaded.fingerprint
    for file in files:
        coder.require_codes(read_codes(file.path, fingerprint), where=file.path)

    def make(paths, batch):
        codes = [read_codes(Path(path), fingerprint) for path in paths]
        return coder.decode(codes, batch)

    _make(options, files, make, made_by=made_by, suffix=coder.suffix)


def reconstruct(options: argparse.Namespace) -> None:
    """Write the reconstruction of each image or recording."""
    loaded = load(options.model, "reconstruct")
    files = _inputs(loaded, options.inputs)
    made_by = _made_by(loaded, options)
    coder = _coder(loaded, options, files)
    _make(options, files, coder.reconstruct, made_by=made_by, suffix=coder.suffix)


def codes_file(codes: Codes, fingerprint: str) -> bytes:
    """Return an .npz file of codes and the fingerprint of their model."""
    smallest = np.min_scalar_type(int(codes.max(initial=0)))
    return npz(codes=codes.astype(smallest), fingerprint=np.array(fingerprint))


def read_codes(path: Path, fingerprint: str) -> Codes:
    """Return the codes of such a file.

    Raises:
      UserError: it is not such a file, damaged, or of another model.
    """
    arrays = read_arrays(path, {"fingerprint": "U"})
    codes, found = arrays.get("codes"), str(arrays["fingerprint"])
    require(codes is not None, f"{path} has no array `codes`: `encode` writes it")
    require(
        found == fingerprint,
        f"{path} contains the codes of another model ({found}, this one is "
        f"{fingerprint})",
    )
    require(
        np.issubdtype(codes.dtype, np.integer),
        f"{path} contains codes of type {codes.dtype}, expected integers",
    )
    largest = int(codes.max(initial=0))
    require(
        largest < 2**31, f"{path} contains the code {largest}, expected less than 2**31"
    )
    return codes.astype(np.int32)


def _make(
    options: argparse.Namespace,
    files: Sequence[Input],
    make: Make,
    *,
    made_by: dict[str, Any],
    suffix: str,
) -> None:
    """Make a file of each input."""
    sources = sources_of(files)
    make_files(
        options, sources, make, made_by=made_by, suffix=suffix, reads=sources.values()
    )


def _made_by(loaded: Loaded, options: argparse.Namespace) -> dict[str, Any]:
    """Return what determines decoded files."""
    decoding = registry.load(loaded.spec.coder).decoding_options(loaded, options)
    return {"command": options.command, "model": loaded.digest, **decoding}


def _inputs(loaded: Loaded, inputs: Sequence[str]) -> list[Input]:
    """Return the files to encode; all are checked before work starts."""
    coder = registry.load(loaded.spec.coder)
    files = files_of(inputs, coder.input_suffixes)
    coder.require_inputs(files, loaded)
    return files


def _coder(
    loaded: Loaded, options: argparse.Namespace, files: Sequence[Input]
) -> Coder:
    batch_size = min(options.batch_size, len(files))
    coder = registry.load(loaded.spec.coder)
    return coder.from_options(loaded, options, batch_size=batch_size)
