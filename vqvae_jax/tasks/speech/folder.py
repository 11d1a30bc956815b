"""A folder of speech: `split/speaker/*.wav|flac`, as a user brings one.

Beside `name.wav` may lie `name.tsv`, its phones: start s, end s and phone, with tabs
between them.
"""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from vqvae_jax.data.folder import split_folders, subfolders
from vqvae_jax.data.source import Example
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.tasks.speech import audio, phones
from vqvae_jax.tasks.speech.utterances import UNKNOWN, SpeechSplits

SUFFIXES = (".wav", ".flac")
PHONES_SUFFIX = ".tsv"


def open_speech_folder(
    root: str, *, sample_rate: int, skip_corrupt: bool = False
) -> SpeechSplits:
    """Open the splits under `root`: `train`, and `val` or `validation`, and `test`.

    Speakers are the folders within train, in alphabetical order; other splits may have
    speakers that train has not. Every file is looked at before this returns, so that a
    run does not end hours later at a damaged one; `skip_corrupt` decodes each, which
    also finds damage in the middle, and leaves those out with a warning that counts
    them.

    Raises:
        UserError: a folder is missing or empty, or a file or its phones cannot be used
            and `skip_corrupt` is off.
    """
    base = Path(root).expanduser()
    require(base.is_dir(), f"data.data_dir={root!r} is not a folder")
    folders = split_folders(base)
    require(
        "train" in folders and bool(subfolders(folders["train"])),
        f"data.data_dir={root!r} has no folder train with a folder for each speaker; "
        f"expected {base}/train/<speaker>/*.wav",
    )
    recordings = {
        role: _usable(path, sample_rate, skip_corrupt) for role, path in folders.items()
    }
    speaker_names = tuple(sorted({r.speaker for r in recordings["train"]}))
    tables = [r.table for found in recordings.values() for r in found if r.table]
    phone_names = tuple(sorted({name for table in tables for name in table.names}))
    sources = {
        role: SpeechFolderSource(
            [recording.file for recording in found],
            speakers=[
                speaker_names.index(r.speaker)
                if r.speaker in speaker_names
                else UNKNOWN
                for r in found
            ],
            segments=[
                r.table.segments(phone_names, rate=sample_rate, length=r.length)
                if r.table
                else phones.none()
                for r in found
            ],
            lengths=[recording.length for recording in found],
            sample_rate=sample_rate,
        )
        for role, found in recordings.items()
    }
    return SpeechSplits(sources, speaker_names, phone_names)


class SpeechFolderSource:
    """Sound files [n], decoded and resampled on access."""

    def __init__(
        self,
        files: Sequence[str],
        *,
        speakers: Sequence[int],
        segments: Sequence[Int32[np.ndarray, "_ 3"]],
        lengths: Sequence[int],
        sample_rate: int,
    ):
        self._files = files
        self._speakers = np.asarray(speakers, np.int32)
        self._segments = segments
        self._lengths = np.asarray(lengths, np.int64)
        self._sample_rate = sample_rate

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        try:
            samples = audio.read(self._files[index], rate=self._sample_rate)
        except UserError as error:
            raise UserError(
                f"{error}. A run in another --workdir with data.skip_corrupt=True "
                "leaves out what is damaged"
            ) from error
        return {
            "audio": samples,
            "speaker": np.asarray(self._speakers[index]),
            "sentence": np.asarray(UNKNOWN, np.int32),
            "phones": self._segments[index].copy(),
        }

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """The number of samples of each file, once resampled."""
        return self._lengths


class _Recording(NamedTuple):
    file: str
    speaker: str
    length: int
    table: phones.Table | None


def _usable(split: Path, rate: int, skip_corrupt: bool) -> list[_Recording]:
    files = [file for folder in subfolders(split) for file in _sound_files(folder)]
    require(
        bool(files),
        f"{split} has no recordings; expected {split}/<speaker>/*.wav or *.flac",
    )
    beside = len(_sound_files(split))
    if beside:
        warnings.warn(
            f"left out {beside} recordings of {split}, which lie beside its folders of "
            "speakers: move them into one",
            stacklevel=3,
        )
    with ThreadPoolExecutor() as pool:
        looked_at = list(
            pool.map(lambda file: _look_at(file, rate, skip_corrupt), files)
        )
    problems = [found for found in looked_at if isinstance(found, UserError)]
    if problems and not skip_corrupt:
        raise UserError(
            f"{len(problems)} of {len(files)} files in {split} cannot be used, first: "
            f"{problems[0]}; or set data.skip_corrupt=True"
        ) from problems[0]
    if problems:
        warnings.warn(
            f"skipped {len(problems)} of {len(files)} files in {split} that cannot be "
            f"used, first: {problems[0]}",
            stacklevel=3,
        )
    usable = [found for found in looked_at if isinstance(found, _Recording)]
    require(bool(usable), f"{split} has no recording that can be used")
    return usable


def _look_at(file: str, rate: int, decode: bool) -> _Recording | UserError:
    try:
        length = audio.inspect(file, rate=rate, decode=decode)
        table_file = os.path.splitext(file)[0] + PHONES_SUFFIX
        table = None
        if os.path.exists(table_file):
            table = phones.read_table(table_file, seconds=length / rate)
    except UserError as error:
        return error
    return _Recording(file, os.path.basename(os.path.dirname(file)), length, table)


def _sound_files(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.path
            for entry in entries
            if entry.name.lower().endswith(SUFFIXES)
            and not entry.name.startswith(".")
            and entry.is_file()
        )
