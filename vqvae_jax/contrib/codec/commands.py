"""The commands compress and decompress: images as one file of coded codes."""

import argparse
import itertools
import math
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
from vqvae_jax.contrib.codec.windows import Size, Windows
from vqvae_jax.runtime.checksums import sha256_of_bytes
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.runtime.safe_io import read_bytes, write_bytes
from vqvae_jax.sampling import FREE

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
    codec = codec_of(loaded)
    labels = _given_labels(codec, files, options.label)
    require_images(files)
    batch_size = min(options.batch_size, len(files))
    coder = ImageCoder(loaded, batch_size=batch_size, resize=options.resize)
    coded: list[Coded] = []
    with progress("encode", len(files)) as advance:
        for start in range(0, len(paths), options.batch_size):
            coded += coder.encode(paths[start : start + options.batch_size])
            advance(min(options.batch_size, len(paths) - start))
    codes = [one.codes for one in coded]
    sizes = sizes_of(coded, codec)
    if labels is None and codec.prior is not None and codec.prior.num_classes:
        labels = cheapest_labels(
            codec, codes, sizes=sizes, batch_size=options.batch_size
        )
    grids = len(codes)
    if sizes is not None:
        windows = Windows.of(sizes, grid=codec.grid, stride=codec.stride)
        grids = windows.num_windows
    with progress("compress", grids) as advance:
        data, bits = codec.compress(
            np.stack(codes) if sizes is None else codes,
            labels=labels,
            sizes=sizes,
            progress=advance,
        )
    write_bytes(out, data)
    print(_summary(loaded, out, len(data), bits, codes, sizes))


def decompress(options: argparse.Namespace) -> None:
    """Write the images of such a file."""
    loaded = load(options.model, "decompress")
    codec, digest = codec_of(loaded), loaded.fingerprint
    data = read_bytes(Path(options.file), limit=_MAX_BYTES)
    try:
        with progress("decompress", codec.grids_in(data)) as advance:
            found = codec.decompress(data, progress=advance)
    except UserError as error:
        raise UserError(f"{options.file}: {error}") from error
    codes, sizes = found.codes, found.sizes
    options.batch_size = min(options.batch_size, len(codes))
    coder = ImageCoder(loaded, batch_size=options.batch_size)

    def coded(number: int) -> Coded:
        size = None if sizes is None else sizes[number]
        # Only grids with room for more pixels need a size.
        is_whole = size is None or all(side % codec.stride == 0 for side in size)
        return Coded(codes[number], None if is_whole else size)

    for number in range(len(codes)):
        coder.require_codes(coded(number), where=Path(options.file))

    def make(numbers):
        wanted = {name: coded(int(number)) for name, number in numbers.items()}
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


def sizes_of(coded: Sequence[Coded], codec: Codec) -> list[Size] | None:
    """Return the sizes of images in pixels; None if all have the model's."""
    if all(size is None and codes.shape == codec.grid for codes, size in coded):
        return None
    return [
        size or (codec.stride * codes.shape[0], codec.stride * codes.shape[1])
        for codes, size in coded
    ]


def cheapest_labels(
    codec: Codec,
    codes: Sequence[Int[np.ndarray, "_ _ C"]],
    *,
    sizes: Sequence[Size] | None = None,
    batch_size: int,
) -> Int[np.ndarray, " N"]:
    """Return for each image the class under which its codes cost the fewest bits."""
    prior, params = codec.prior, codec.prior_params
    side = codec.stride * np.array(codec.grid[:2])
    windows = Windows.of(
        [tuple(side.tolist())] * len(codes) if sizes is None else sizes,
        grid=codec.grid,
        stride=codec.stride,
    )
    counts = [windows.windows_of(size) for size in windows.sizes]
    image_of, grids, masks = (
        np.repeat(np.arange(len(codes)), counts),
        windows.split(codes),
        windows.masks(),
    )
    log_prob = jax.jit(
        lambda codes, labels, given: prior.log_prob(
            params, codes, labels=labels, given=given
        )
    )
    costs = np.zeros((len(codes), prior.num_classes))
    with progress("classes", len(grids)) as advance:
        for start in range(0, len(grids), batch_size):
            batch = grids[start : start + batch_size]
            inside = np.stack(list(itertools.islice(masks, len(batch))))
            # Only codes that are free count.
            given = np.where(inside[..., None], FREE, np.zeros_like(batch))
            for label in range(prior.num_classes):
                labels = np.full(len(batch), label)
                nats = -np.asarray(log_prob(batch, labels, given))
                np.add.at(costs[:, label], image_of[start:][: len(batch)], nats)
            advance(len(batch))
    return costs.argmin(axis=1).astype(np.int32)


def codec_of(loaded: Loaded) -> Codec:
    """Return the codec of a model, with its prior if it has one."""
    model = loaded.model
    prior: dict[str, Any] = {}
    if "prior" in loaded.metadata.models:
        found, params = load_prior(loaded, "prior")
        prior = {"prior": found, "prior_params": params}
    return Codec(
        grid=model.grid,
        num_codes=model.num_codes,
        fingerprint=loaded.fingerprint,
        stride=model.stride,
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


def _summary(loaded: Loaded, out: Path, size: int, bits: float, codes, sizes) -> str:
    """Return the bytes of a file, and the mean bits of an image."""
    model, images = loaded.model, len(codes)
    channels = model.image_shape[-1]
    areas = [math.prod(each) for each in sizes or [model.image_shape[:2]] * images]
    of_codes = sum(grid.size for grid in codes) * math.log2(model.num_codes)
    pixels, of_codes = 8 * channels * sum(areas) / images, of_codes / images
    of_file = 8 * size / images
    return (
        f"{out}: {images} images in {size:,} bytes, {of_file:,.1f} bits each (prior "
        f"{bits / images:,.1f}, codes {of_codes:,.0f}, pixels {pixels:,.0f}): "
        f"{pixels / of_file:.1f} times fewer"
    )
