"""TensorFlow Datasets (TFDS) read from array_record without TensorFlow."""

import contextlib
import difflib
import io
import os
import socket
import sys
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vqvae_jax.data import images
from vqvae_jax.data.config import DataConfig
from vqvae_jax.data.source import FRAME_COLUMNS, Example, Source, Splits
from vqvae_jax.registry import EMBEDDED_SETS, load
from vqvae_jax.runtime.errors import UserError, one_line, require
from vqvae_jax.runtime.safe_io import MAX_JSON_BYTES, require_files

_MAX_RECORDS_BYTES = 2**42
_SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


def open_splits(config: DataConfig) -> Splits:
    """Open the set of a `data` section with `open_tfds`."""
    return open_tfds(
        config.name,
        data_dir=config.data_dir,
        image_size=config.image_size,
        channels=config.channels,
    )


def open_tfds(name: str, *, data_dir: str, image_size: int, channels: int) -> Splits:
    """Open the TFDS set `name`; prepare it as array_record in `data_dir` if necessary.

    A test split without labels (-1, as in ImageNet) is ignored. Image and label are
    found by the types of their features, whatever their names.

    Raises:
        UserError: the set does not exist, cannot be prepared or read, or has no images.
    """
    builder = prepared_builder(name, data_dir)
    image_key, label_key = _image_key(builder), _label_key(builder)
    sources: dict[str, Source] = {}
    for role, split_names in _SPLIT_NAMES.items():
        found = [s for s in split_names if s in builder.info.splits]
        if not found:
            continue
        source = TfdsSource(
            records(builder, found[0]),
            features=builder.info.features,
            image_key=image_key,
            label_key=label_key,
            image_size=image_size,
            channels=channels,
            name=name_of(builder, found[0]),
        )
        label = source[0]["label"]
        if role != "test" or label >= 0:
            sources[role] = source
    require(
        "train" in sources,
        f"data.name={name!r} has no train split, only "
        f"{', '.join(map(str, builder.info.splits))}; choose another set",
    )
    names = builder.info.features[label_key].names if label_key is not None else ()
    actions = (builder.info.metadata or {}).get("action_names", ())
    return Splits(sources, tuple(names), tuple(actions))


class TfdsSource:
    """One split: serialised `tf.train.Example` records, decoded on access."""

    def __init__(
        self,
        records: Any,
        *,
        features: Any,
        image_key: str,
        label_key: str | None,
        image_size: int,
        channels: int,
        name: str,
    ):
        self._records, self._name = records, name
        self._encoded = _is_image(features[image_key])
        self._shape = features[image_key].shape
        self._columns = tuple(name for name in FRAME_COLUMNS if name in features)
        self._image_key = image_key
        self._label_key = label_key
        self._size = {"image_size": image_size, "channels": channels}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        with readable(self._name):
            return self._decode(self._records[index])

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        with readable(self._name):
            return [self._decode(r) for r in self._records.__getitems__(list(indices))]

    def _decode(self, record: bytes) -> Example:
        from tensorflow_datasets.proto import tf_example_pb2

        # TFDS decodes every feature, which doubles the time.
        features = tf_example_pb2.Example.FromString(record).features.feature
        image = features[self._image_key]
        if self._encoded:
            array = images.decode(image.bytes_list.value[0], **self._size)
        else:
            values = _values(image).reshape(self._shape)
            array = images.fit_array(values, **self._size)
        label = features[self._label_key].int64_list.value[0] if self._label_key else 0
        columns = {
            name: np.asarray(features[name].int64_list.value[0], np.int32)
            for name in self._columns
        }
        return {"image": array, "label": np.asarray(label, np.int32), **columns}


def _values(feature: Any) -> UInt8[np.ndarray, " n"]:
    """Return a uint8 tensor, which TFDS stores as numbers or compressed bytes."""
    if feature.int64_list.value:
        return np.array(feature.int64_list.value, np.uint8)
    return np.frombuffer(zlib.decompress(feature.bytes_list.value[0]), np.uint8)


def prepared_builder(
    name: str, data_dir: str, *, instead: str = "run experiments/digits.py"
) -> Any:
    """Return the TFDS builder of a set; prepare the set in `data_dir` if necessary.

    Args:
        name: name of the set.
        data_dir: directory of prepared sets, "" for the default.
        instead: an alternative without network and TensorFlow, for error messages.

    Raises:
        UserError: the set does not exist, cannot be prepared, was prepared in a format
            without random access, or its folder has a file that `require_files`
            refuses.
    """
    # A name is NAME[:VERSION][/CONFIG[:VERSION]].
    folder = name.partition("/")[0].partition(":")[0]
    if data_dir and folder:
        require_files(Path(data_dir, folder).expanduser(), limit=_limit_of)
    builder = _builder(name, data_dir)
    if not builder.data_path.exists():
        try:
            _prepare(builder)
        except UserError:
            raise
        except Exception as error:
            # Ignore the error if another process of the run has prepared the set.
            if not _builder(name, data_dir).data_path.exists():
                raise UserError(
                    f"the TFDS set {builder.info.full_name} is not in "
                    f"{builder.data_path} and cannot be prepared there "
                    f"({one_line(error, limit=400)}); prepare it on a machine with "
                    "network and TensorFlow (pip install 'vqvae_jax[prepare]') as "
                    "file_format='array_record' and point data.data_dir or "
                    "TFDS_DATA_DIR to the folder that holds "
                    f"{builder.name}/, or {instead}, which needs neither"
                ) from error
        builder = _builder(name, data_dir)
    formats = {f.value for f in builder.info.available_file_formats()}
    require(
        "array_record" in formats,
        f"the TFDS set in {builder.data_path} was prepared as "
        f"{', '.join(sorted(formats))}, which has no random access; choose another "
        "data.data_dir, where it is prepared as array_record",
    )
    return builder


def _builder(name: str, data_dir: str) -> Any:
    import tensorflow_datasets as tfds

    directory = data_dir or None
    stem, _, config = name.partition("/")
    try:
        if stem in EMBEDDED_SETS:
            embedded = load(EMBEDDED_SETS[stem])
            return embedded(data_dir=directory, config=config or None)
        return tfds.builder(name, data_dir=directory)
    except ModuleNotFoundError as error:
        raise UserError(
            f"data.name={name!r} needs the module {error.name}, which is missing; "
            "restore or install it, or choose another set"
        ) from error
    except Exception as error:
        known = [*tfds.list_builders(with_community_datasets=False), *EMBEDDED_SETS]
        stem = stem.split(":")[0]
        close = difflib.get_close_matches(stem, known) if stem not in known else []
        reason = (
            "TFDS has no set of that name"
            if isinstance(error, tfds.core.DatasetNotFoundError)
            else one_line(error, limit=400)
        )
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise UserError(f"data.name={name!r}: {reason}{hint}") from error


def _limit_of(path: Path) -> int:
    """Return the largest size of a file: of a description, or of examples."""
    is_description = path.suffix in (".json", ".txt")
    return MAX_JSON_BYTES if is_description else _MAX_RECORDS_BYTES


def _prepare(builder: Any) -> None:
    import tensorflow_datasets as tfds

    _check_reachable(builder)
    # Show progress bars only for downloads, and only on a terminal.
    quiet = builder.name == "digits"
    with (
        contextlib.redirect_stdout(io.StringIO() if quiet else sys.stdout),
        _silent_tensorflow(),
    ):
        tfds.display_progress_bar(not quiet and sys.stderr.isatty())
        try:
            builder.download_and_prepare(
                file_format="array_record",
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
        finally:
            tfds.display_progress_bar(True)


@contextlib.contextmanager
def _silent_tensorflow() -> Iterator[None]:
    """Suppress the messages that TensorFlow prints when it is imported inside."""
    values = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}
    added = {name: v for name, v in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _check_reachable(builder: Any) -> None:
    # Without network, TFDS retries for minutes.
    urls = list(builder.url_infos or ())
    if urls and not urllib.request.getproxies():
        host = urllib.parse.urlsplit(urls[0]).hostname
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            raise OSError(f"no network: {host} cannot be found") from error


def records(builder: Any, split: str) -> Any:
    """Return the serialised examples of a split, as a random-access source of bytes."""
    import tensorflow_datasets as tfds

    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    # The inner source yields bytes, and its pickle has a few paths, not the builder.
    source = builder.as_data_source(
        split, deserialize_method=raw, file_format="array_record"
    )
    return source.data_source


@contextlib.contextmanager
def readable(name: str) -> Iterator[None]:
    """Convert any error to a UserError that names the split, as `name_of` does."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{name} cannot be read ({one_line(error, limit=400)}); delete that "
            "folder to prepare the set again"
        ) from error


def name_of(builder: Any, split: str) -> str:
    """Return the name of a split in messages: its set, split and folder."""
    return f"{builder.info.full_name}, split {split} in {builder.data_path}"


def _is_image(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Image)


def _image_key(builder: Any) -> str:
    features = builder.info.features

    def readable(feature: Any) -> bool:
        shape = feature.shape
        return (
            isinstance(shape, tuple)
            and len(shape) == 3
            and shape[-1] in (1, 3, 4)
            and feature.np_dtype == np.uint8
            and (_is_image(feature) or None not in shape)
        )

    keys = [key for key in features if readable(features[key])]
    # Encoded images first: other uint8 tensors can be masks, for example.
    keys.sort(key=lambda key: (key != "image", not _is_image(features[key])))
    require(
        bool(keys),
        f"data.name={builder.name!r} has no uint8 image feature, only "
        f"{', '.join(sorted(features))}; choose a set of images",
    )
    return keys[0]


def _label_key(builder: Any) -> str | None:
    import tensorflow_datasets as tfds

    features = builder.info.features
    keys = [k for k in features if isinstance(features[k], tfds.features.ClassLabel)]
    return min(keys, key=lambda key: key != "label", default=None)
