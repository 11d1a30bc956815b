"""A folder of image files: `split/class/*.jpg`."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from vqvae_jax.data import images
from vqvae_jax.data.config import SUFFIXES, DataConfig
from vqvae_jax.data.source import Example, Splits
from vqvae_jax.runtime.errors import UserError, one_line, require

_ADVICE = "replace or remove it"
_SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("val", "validation"),
    "test": ("test",),
}


def open_splits(config: DataConfig) -> Splits:
    """Open the folder of a `data` section with `open_folder`."""
    return open_folder(
        config.data_dir,
        image_size=config.image_size,
        channels=config.channels,
        skip_corrupt=config.skip_corrupt,
    )


def open_folder(
    root: str, *, image_size: int, channels: int, skip_corrupt: bool = False
) -> Splits:
    """Open the splits under `root`: `train`, and `val` or `validation`, and `test`.

    Classes are the folders in train, in alphabetical order; other splits can lack
    classes. If train has images and no folders, all splits are unlabelled. All files
    are checked first, so that a damaged file does not end a run after hours.
    `skip_corrupt` decodes every file, which also detects damage in the middle, and
    skips damaged files with a warning that counts them. EXIF orientation is applied.

    Raises:
        UserError: a folder is missing or empty, a split has a class that train lacks,
            or a file is not a readable image and `skip_corrupt` is False.
    """
    base = Path(root).expanduser()
    require(base.is_dir(), f"data.data_dir={root!r} is not a folder")
    folders = split_folders(base)
    require(
        "train" in folders,
        f"data.data_dir={root!r} has no folder train; expected "
        f"{base}/train/<class>/*.jpg",
    )
    class_names = tuple(path.name for path in subfolders(folders["train"]))
    sources = {}
    for role, path in folders.items():
        files, labels = _list_images(path, class_names)
        bad = unreadable(files, decode=skip_corrupt)
        if bad and not skip_corrupt:
            first = min(bad)
            raise UserError(
                f"{len(bad)} of {len(files)} files in {path} cannot be used, first "
                f"{files[first]}: {bad[first]}; remove them or set "
                "data.skip_corrupt=True"
            )
        if bad:
            warnings.warn(
                f"skipped {len(bad)} of {len(files)} files in {path} that cannot be "
                f"used, first {files[min(bad)]}",
                stacklevel=2,
            )
        kept = [i for i in range(len(files)) if i not in bad]
        require(bool(kept), f"{path} has no image that can be read")
        sources[role] = FolderSource(
            [files[i] for i in kept],
            [labels[i] for i in kept],
            image_size=image_size,
            channels=channels,
            advice="put back the file that the run was started with and give the same "
            "command, or start in another --workdir with data.skip_corrupt=True",
        )
    return Splits(sources, class_names)


class FolderSource:
    """Image files [n] and their labels [n], decoded on access.

    A file that cannot be decoded raises UserError with its name and `advice`.
    """

    def __init__(
        self,
        files: Sequence[str],
        labels: Sequence[int],
        *,
        image_size: int,
        channels: int,
        advice: str = _ADVICE,
    ):
        self._files = files
        self._labels = np.asarray(labels, np.int32)
        self._size = {"image_size": image_size, "channels": channels}
        self._advice = advice

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        image = read_image(self._files[index], **self._size, advice=self._advice)
        return {"image": image, "label": np.asarray(self._labels[index])}


def read_image(
    file: str,
    *,
    channels: int,
    image_size: int | None = None,
    advice: str = _ADVICE,
) -> UInt8[np.ndarray, "h w channels"]:
    """Decode an image file, upright; resized and cropped to a square if it has a size.

    Raises:
        UserError: it cannot be decoded; the message has its name and `advice`.
    """
    try:
        image = _upright(images.load(file))
        if image_size is not None:
            return images.fit(image, image_size=image_size, channels=channels)
        image = images.eight_bit(image, channels=channels)
        return np.asarray(image).reshape(image.height, image.width, channels)
    except Exception as error:
        raise UserError(
            f"{file} cannot be decoded ({one_line(error)}): {advice}"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of a loaded image; ignore unreadable EXIF data."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises SyntaxError and others.
        return image


def split_folders(base: Path) -> dict[str, Path]:
    """Return the existing folders of splits, by role.

    Raises:
        UserError: two folders have the same role.
    """
    folders = {}
    for role, names in _SPLIT_FOLDERS.items():
        found = [base / name for name in names if (base / name).is_dir()]
        require(
            len(found) <= 1,
            f"{base} has both {' and '.join(names)}; keep one of them",
        )
        if found:
            folders[role] = found[0]
    return folders


def subfolders(path: Path) -> list[Path]:
    """Return the folders in `path` that are not hidden, in alphabetical order.

    Raises:
        UserError: the name of a folder is not printable.
    """
    found = sorted(
        entry
        for entry in path.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    for entry in found:
        require(
            entry.name.isprintable(),
            f"{path} has a folder {entry.name!r}, which is not printable; rename it",
        )
    return found


def _list_images(
    split: Path, class_names: tuple[str, ...]
) -> tuple[list[str], list[int]]:
    unknown = [p.name for p in subfolders(split) if p.name not in class_names]
    if unknown:
        raise UserError(
            f"{split} has the class {unknown[0]!r}, which is not among the "
            f"{len(class_names)} classes of train; rename or remove that folder"
        )
    unlabelled = len(files_in(split, SUFFIXES)) if class_names else 0
    if unlabelled:
        warnings.warn(
            f"skipped {unlabelled} images in {split}, which are next to its class "
            "folders: move them into a class folder, or move the class folders away",
            stacklevel=3,
        )
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names or ("",)):
        found = files_in(split / name, SUFFIXES)
        require(
            bool(found) or split.name != "train",
            f"{split / name} has no images ({', '.join(SUFFIXES)}); add some or "
            "remove the folder",
        )
        files += found
        labels += [label] * len(found)
    require(bool(files), f"{split} has no images ({', '.join(SUFFIXES)})")
    return files, labels


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Return the files of a folder with these suffixes, sorted, without hidden ones.

    There are none without the folder.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(
            entry.path
            for entry in entries
            if entry.name.lower().endswith(suffixes)
            and not entry.name.startswith(".")
            and entry.is_file()
        )


def unreadable(files: Sequence[str], *, decode: bool = False) -> dict[int, str]:
    """Return the problem of each file that is not a readable image, by index.

    `decode` also detects damage in the middle of a file.
    """
    # Warning filters are global: set them once for all threads.
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        problems = pool.map(lambda file: _problem(file, decode), files)
        return {i: problem for i, problem in enumerate(problems) if problem}


def _problem(file: str, decode: bool) -> str:
    """Return the problem of a file, or ""; most files are not decoded."""
    try:
        with images.open_image(file) as image:
            form = image.format
            if form == "PNG":
                # The checksums detect damage after writing, which decoding may not.
                image.verify()
        if decode or not (form == "PNG" or (form == "JPEG" and _ends_as_jpeg(file))):
            images.load(file)
    except Exception as error:
        return one_line(error)
    return ""


def _ends_as_jpeg(file: str) -> bool:
    # A truncated JPEG lacks its end marker. Files of some cameras have data after the
    # marker; these are decoded.
    with open(file, "rb") as stream:
        stream.seek(-2, os.SEEK_END)
        return stream.read() == b"\xff\xd9"
