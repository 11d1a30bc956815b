"""Codes extracted by stage 1: stored as one array_record file, and their usage.

Metadata beside the file describe the codes. Their counts show whether a codebook has
collapsed.
"""

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_data_source, array_record_module
from jaxtyping import Float, Int

from vqvae_jax import metrics
from vqvae_jax.data.batches import eval_batches
from vqvae_jax.data.source import Example, cached, read_many
from vqvae_jax.runtime.errors import CollapsedError, UserError, require
from vqvae_jax.runtime.safe_io import read_json, require_file, write_json

_RECORDS = "codes.array_record"
_METADATA = "metadata.json"
_MAX_RECORDS_BYTES = 2**42
# A smaller fraction of codes in use suggests a failed run.
_FEW = 0.05

# One integer per example of a batch, by name.
Columns = Mapping[str, Int[np.ndarray, " b"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodesMetadata:
    """Description of stored codes, from which priors are built.

    Attributes:
        num_codes: size of the codebook; codes are in [0, num_codes).
        grid: shape of the codes of one example, such as (H, W, C).
        class_names: one name per label, or empty.
        fingerprint: identifies the codebook of the codes.
        num_examples: number of examples.
        columns: names of the integers stored with the codes of each example.
        action_names: one name per value of the column "action", or empty.
    """

    num_codes: int
    grid: tuple[int, ...]
    class_names: tuple[str, ...]
    fingerprint: str
    num_examples: int
    columns: tuple[str, ...] = ("label",)
    action_names: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any], *, where: Path) -> "CodesMetadata":
        """Build from JSON values, stored with codes or with a prior.

        Raises:
            UserError: a field is missing, unknown or invalid; the message names
                `where`.
        """
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            metadata = cls(**fields)
        except TypeError as error:
            raise UserError(f"{where} is damaged: {error}") from error
        for name, is_valid in (
            ("num_codes", _is_count(metadata.num_codes, 1)),
            ("grid", _is_tuple_of(metadata.grid, lambda size: _is_count(size, 1))),
            ("class_names", _is_tuple_of(metadata.class_names, _is_string)),
            ("fingerprint", _is_string(metadata.fingerprint)),
            ("num_examples", _is_count(metadata.num_examples, 0)),
            ("columns", _is_tuple_of(metadata.columns, _is_string)),
            ("action_names", _is_tuple_of(metadata.action_names, _is_string)),
        ):
            require(is_valid, f"{where} is damaged: its {name} is invalid")
        return metadata

    @property
    def dtype(self) -> np.dtype:
        """The type of the codes on disk."""
        return np.dtype("<u2" if self.num_codes <= 2**16 else "<i4")


def write_codes(
    directory: str | Path,
    *,
    # The last batch can be smaller; `_check_batch` compares codes with their columns.
    batches: Iterable[
        tuple[Int[np.ndarray, "_ ..."], Mapping[str, Int[np.ndarray, " _"]]]
    ],
    num_codes: int,
    class_names: Sequence[str],
    fingerprint: str,
    action_names: Sequence[str] = (),
) -> CodesMetadata:
    """Write codes [b, *grid] and columns [b], batch by batch, to `directory`.

    All batches have the same columns, usually including "label". Memory holds one batch
    at a time. Files are written next to `directory` and renamed when complete, so
    that a killed write leaves no incomplete `directory`; the next write removes its
    remains. Existing codes are replaced.

    Raises:
        UserError: there are no batches, their shapes or columns differ, a code is
            outside [0, num_codes), or the disk is full or not writable.
    """
    directory = Path(directory)
    partial = directory.with_name(f".{directory.name}.partial")
    old = directory.with_name(f".{directory.name}.old")
    with _one_line_errors(directory):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        with _one_line_errors(directory):
            writer = array_record_module.ArrayRecordWriter(
                str(partial / _RECORDS), "group_size:1"
            )
        metadata = CodesMetadata(
            num_codes=num_codes,
            grid=(),
            class_names=tuple(class_names),
            fingerprint=fingerprint,
            num_examples=0,
            action_names=tuple(action_names),
        )
        for codes, columns in batches:
            codes = np.asarray(codes)
            if metadata.num_examples == 0:
                metadata = dataclasses.replace(
                    metadata, grid=codes.shape[1:], columns=tuple(columns)
                )
            _check_batch(codes, columns, metadata)
            with _one_line_errors(directory):
                _write_batch(writer, codes.astype(metadata.dtype), columns)
            metadata = dataclasses.replace(
                metadata, num_examples=metadata.num_examples + len(codes)
            )
        require(metadata.num_examples > 0, f"there are no codes to write: {directory}")
        with _one_line_errors(directory):
            writer.close()
            write_json(partial / _METADATA, dataclasses.asdict(metadata))
            shutil.rmtree(old, ignore_errors=True)
            if directory.exists():
                directory.rename(old)
            partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return metadata


class CodesSource:
    """Codes in `directory`: `{"codes": int32 [*grid], "label": int32 []}` by index.

    An example has all columns that were written, each int32 [].

    Attributes:
        metadata: the metadata written with the codes.

    Raises:
        UserError: `directory` is missing, incomplete or damaged.
    """

    def __init__(self, directory: str | Path):
        self._directory = Path(directory)
        self.metadata = _read_metadata(self._directory)
        self._examples = cached(_Records(self._directory, self.metadata))

    def __len__(self) -> int:
        return self.metadata.num_examples

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        return read_many(self._examples, indices)

    def require_fingerprint(self, fingerprint: str) -> None:
        """Raise unless the codes belong to the codebook with this fingerprint.

        Raises:
            UserError: the fingerprints differ.
        """
        require(
            self.metadata.fingerprint == fingerprint,
            f"the codes in {self._directory} belong to another codebook "
            f"({self.metadata.fingerprint}) than the model's ({fingerprint}); delete "
            "that folder and extract the codes again",
        )


def count_codes(source: CodesSource, *, num_codes: int) -> Float[np.ndarray, "G K"]:
    """Count the uses of each code of each codebook in a whole set."""
    counts = np.zeros((source.metadata.grid[-1], num_codes))
    for batch in eval_batches(source, batch_size=256):
        kept = batch["mask"]
        if "length" in batch:
            # Codes after an utterance's end are padding.
            places = np.arange(batch["codes"].shape[1])
            kept = kept[:, None] & (places < batch["length"][:, None])
        codes = batch["codes"][kept]
        for group, row in zip(
            codes.reshape(-1, codes.shape[-1]).T, counts, strict=True
        ):
            row += np.bincount(group, minlength=num_codes)
    return counts


def marginal_bits_per_code(counts: Float[np.ndarray, "G K"]) -> float:
    """Return the entropy of the codes, the bits of a prior without context.

    Averaged over the codebooks.
    """
    return float(metrics.entropy(counts).mean()) / math.log(2)


def collapse(counts: Float[np.ndarray, "G K"]) -> str:
    """Return a warning if under 5 % of all codes are in use, otherwise "".

    Raises:
      CollapsedError: no codebook has two codes in use, so that codes carry no bits.
    """
    active = np.count_nonzero(counts, axis=-1)
    fraction = active.sum() / counts.size
    message = (
        f"the codebook has collapsed: {active.sum()} of {counts.size} codes "
        f"({100 * fraction:.1f} %) are in use in the training set; train the VQ-VAE in "
        "another workdir with model.quantizer.codebook_init=kmeans, "
        "model.quantizer.dead_code_threshold above 0 or "
        "model.quantizer.codebook_update=ema"
    )
    if active.max() < 2:
        raise CollapsedError(message)
    return message if fraction < _FEW else ""


class _Records:
    """The records of `CodesSource`, decoded on access."""

    def __init__(self, directory: Path, metadata: CodesMetadata):
        self._directory = directory
        self._metadata = metadata
        records = directory / _RECORDS
        try:
            require_file(records, limit=_MAX_RECORDS_BYTES)
            self._records = array_record_data_source.ArrayRecordDataSource(str(records))
            found = len(self._records)
        except (OSError, RuntimeError, ValueError) as error:
            raise _damaged(directory, str(error)) from error
        if found != metadata.num_examples:
            raise _damaged(
                directory, f"{found} records, expected {metadata.num_examples}"
            )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        try:
            records = self._records.__getitems__(list(indices))
        except (OSError, RuntimeError, ValueError) as error:
            raise _damaged(self._directory, str(error)) from error
        return [self._decode(record) for record in records]

    def _decode(self, record: bytes) -> Example:
        names = self._metadata.columns
        dtype, size = self._metadata.dtype, math.prod(self._metadata.grid)
        if len(record) != 4 * len(names) + dtype.itemsize * size:
            raise _damaged(self._directory, f"a record has {len(record)} bytes")
        values = np.frombuffer(record, "<i4", count=len(names))
        codes = np.frombuffer(record, dtype, offset=values.nbytes)
        if size and not 0 <= codes.min() <= codes.max() < self._metadata.num_codes:
            raise _damaged(self._directory, f"a code is {codes.max()}")
        return {
            "codes": codes.astype(np.int32).reshape(self._metadata.grid),
            **{name: values[i].reshape(()) for i, name in enumerate(names)},
        }


def _check_batch(codes: np.ndarray, columns: Columns, metadata: CodesMetadata) -> None:
    require(
        tuple(columns) == metadata.columns,
        f"a batch has the columns {', '.join(columns)}; earlier batches have "
        f"{', '.join(metadata.columns)}",
    )
    for name, values in columns.items():
        require(
            codes.shape[1:] == metadata.grid and values.shape == codes.shape[:1],
            f"a batch has codes of shape {codes.shape} and a {name} of {values.shape}; "
            f"expected [b, {', '.join(map(str, metadata.grid))}] and [b]",
        )
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    require(
        low >= 0 and high < metadata.num_codes,
        f"codes must lie in [0, {metadata.num_codes}); a batch has {low} to {high}",
    )


def _write_batch(writer: Any, codes: np.ndarray, columns: Columns) -> None:
    rows = np.stack([*columns.values()], axis=1).astype("<i4")
    for code, row in zip(codes, rows, strict=True):
        writer.write(row.tobytes() + code.tobytes())


def _read_metadata(directory: Path) -> CodesMetadata:
    path = directory / _METADATA
    require(
        path.exists(),
        f"there are no finished codes in {directory}; run the stage that extracts them",
    )
    try:
        return CodesMetadata.from_json(read_json(path), where=path)
    except UserError as error:
        raise _damaged(directory, str(error)) from error


def _is_count(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < 2**31


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_tuple_of(values: Any, is_valid: Callable[[Any], bool]) -> bool:
    return isinstance(values, tuple) and all(map(is_valid, values))


def _damaged(directory: Path, why: str) -> UserError:
    return UserError(
        f"the codes in {directory} are damaged ({why}); delete that folder and extract "
        "them again"
    )


@contextlib.contextmanager
def _one_line_errors(directory: Path) -> Iterator[None]:
    # array_record reports errors of the operating system as RuntimeError.
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the codes cannot be written to {directory} ({error}); check that the "
            "disk has space and the folder is writable"
        ) from error
