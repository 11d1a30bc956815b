"""The commands compress and decompress: images as one file of coded codes."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from vqvae_jax.cli.coding import Coded, ImageCoder, codes_file, require_images
from vqvae_jax.cli.inputs import Input, files_of
from vqvae_jax.cli.loaded import Loaded, label_of, load, load_prior
from vqvae_jax.cli.outputs import make_files, progress, require_apart, require_new
from vqvae_jax.contrib.codec.grids import Codec
from vqvae_jax.runtime.checksums import sha256_of_bytes
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.runtime.safe_io import read_bytes, write_bytes

# Of a file of compressed images, which is read whole.
_MAX_BYTES = 1 << 32


def compress(options: argparse.Namespace) -> None:
    """Write the codes of images to one file."""
    loaded = load(options.model, "compress")
    files = files_of(options.inputs, ImageCoder.input_suffixes, named=False)
    out = Path(options.out)
    require_new(out, force=options.force)
    paths = [str(file.path) for file in files]
    require_apart([out], paths)
    codec = _codec(loaded)
    labels = _given_labels(codec, files, options.label)
    require_images(files)
    batch_size = min(options.batch_size, len(files))
    coder = ImageCoder(loaded, batch_size=batch_size, resize=True)
    parts = []
    with progress("encode", len(files)) as advance:
        for start in range(0, len(paths), options.batch_size):
            found = coder.encode(paths[start : start + options.batch_size])
            parts += [each.codes for each in found]
            advance(min(options.batch_size, len(paths) - start))
    codes = np.stack(parts)
    if labels is None and codec.prior is not None and codec.prior.num_classes:
        labels = cheapest_labels(codec, codes, batch_size=options.batch_size)
    with progress("compress", len(files)) as advance:
        data, bits = codec.compress(codes, labels=labels, progress=advance)
    write_bytes(out, data)
    print(_summary(loaded, out, len(data), bits, len(files)))


def decompress(options: argparse.Namespace) -> None:
    """Write the images of such a file."""
    loaded = load(options.model, "decompress")
    codec, digest = _codec(loaded), loaded.fingerprint
    data = read_bytes(Path(options.file), limit=_MAX_BYTES)
    try:
        with progress("decompress", codec.images_in(data)) as advance:
            codes = codec.decompress(data, progress=advance).codes
    except UserError as error:
        raise UserError(f"{options.file}: {error}") from error
    options.batch_size = min(options.batch_size, len(codes))
    coder = ImageCoder(loaded, batch_size=options.batch_size)

    def make(numbers):
        wanted = {name: Coded(codes[int(n)]) for name, n in numbers.items()}
        if options.codes:
            return [codes_file(one, digest) for one in wanted.values()]
        return coder.decode(wanted)

    make_files(
        options,
        {f"{number:06d}": str(number) for number in range(len(codes))},
        make,
        made_by={
            "command": "decompress",
            "model": loaded.digest,
            # The path alone does not identify the file.
            "file": sha256_of_bytes(data),
        },
        suffix=".npz" if options.codes else coder.suffix,
    )


def cheapest_labels(
    codec: Codec, codes: Int[np.ndarray, "N H W C"], *, batch_size: int
) -> Int[np.ndarray, " N"]:
    """Return for each image the class under which its codes cost the fewest bits."""
    prior, params = codec.prior, codec.prior_params
    classes = range(prior.num_classes)
    log_prob = jax.jit(
        lambda codes, labels: prior.log_prob(params, codes, labels=labels)
    )
    chosen = []
    with progress("classes", len(codes)) as advance:
        for start in range(0, len(codes), batch_size):
            batch = codes[start : start + batch_size]
            nats = [log_prob(batch, np.full(len(batch), k)) for k in classes]
            chosen.append(np.argmax(nats, axis=0))
            advance(len(batch))
    return np.concatenate(chosen).astype(np.int32)


def _codec(loaded: Loaded) -> Codec:
    model = loaded.model
    prior: dict[str, Any] = {}
    if "prior" in loaded.metadata.models:
        found, params = load_prior(loaded, "prior")
        prior = {"prior": found, "prior_params": params}
    return Codec(
        grid=model.grid,
        num_codes=model.num_codes,
        fingerprint=loaded.fingerprint,
        **prior,
    )


def _given_labels(
    codec: Codec, files: Sequence[Input], label: str | None
) -> Int[np.ndarray, " N"] | None:
    """Return the classes named by --label or by folders; None if neither does."""
    names = () if codec.prior is None else codec.prior.class_names
    if label is not None:
        return np.full(len(files), label_of(names, label), np.int32)
    folders = [file.path.parent.name for file in files]
    if not set(folders) <= set(names):
        return None
    return np.array([names.index(folder) for folder in folders], np.int32)


def _summary(loaded: Loaded, out: Path, size: int, bits: float, images: int) -> str:
    model = loaded.model
    pixels, of_file = 8 * model.num_dims, 8 * size / images
    return (
        f"{out}: {images} images in {size:,} bytes, {of_file:,.1f} bits each (prior "
        f"{bits / images:,.1f}, codes {model.code_bits:,.0f}, pixels {pixels:,}): "
        f"{pixels / of_file:.1f} times fewer"
    )
