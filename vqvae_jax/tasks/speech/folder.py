"""Read a user's folder of speech: `split/speaker/*.wav|flac`.

The phones of `name.wav` can be given in `name.tsv` next to it, with the tab-separated
columns start (s), end (s) and phone.
"""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from vqvae_jax.data.folder import files_in, split_folders, subfolders
from vqvae_jax.data.source import Example
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.tasks.speech import audio, phones
from vqvae_jax.tasks.speech.dataset import SpeechDataConfig
from vqvae_jax.tasks.speech.utterances import UNKNOWN, SpeechSplits


def open_splits(config: SpeechDataConfig) -> SpeechSplits:
    """Open the folder of a `data` section with `open_speech_folder`."""
    return open_speech_folder(
        config.data_dir,
        sample_rate=config.sample_rate,
        skip_corrupt=config.skip_corrupt,
    )


def open_speech_folder(
    root: str, *, sample_rate: int, skip_corrupt: bool = False
) -> SpeechSplits:
    """Open the splits `train`, `val` or `validation`, and `test` under `root`.

    Speakers are the subfolders of train, in alphabetical order; other splits can have
    speakers who are not in train. All files are checked before this function returns,
    so that a run does not fail hours later at a damaged one. With `skip_corrupt`, each
    file is decoded completely, which also detects damage in the middle, and damaged
    files are skipped with a warning that counts them.

    Raises:
        UserError: if a folder is missing or empty, or if a file or its phone table is
            unusable and `skip_corrupt` is off.
    """
    base = Path(root).expanduser()
    require(base.is_dir(), f"data.data_dir={root!r} is not a folder")
    folders = split_folders(base)
    require(
        "train" in folders and bool(subfolders(folders["train"])),
        f"data.data_dir={root!r} has no folder train with one folder per speaker; "
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
    """Audio files [n], decoded and resampled on access."""

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
                f"{error}. To skip damaged files, start a run in another --workdir "
                "with data.skip_corrupt=True"
            ) from error
        return {
            "audio": samples,
            "speaker": np.asarray(self._speakers[index]),
            "sentence": np.asarray(UNKNOWN, np.int32),
            "phones": self._segments[index].copy(),
        }

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """The number of samples of each file, after resampling."""
        return self._lengths


class _Recording(NamedTuple):
    file: str
    speaker: str
    length: int
    table: phones.Table | None


def _usable(split: Path, rate: int, skip_corrupt: bool) -> list[_Recording]:
    files = [
        file
        for folder in subfolders(split)
        for file in files_in(folder, audio.SUFFIXES)
    ]
    require(
        bool(files),
        f"{split} has no recordings; expected {split}/<speaker>/*.wav or *.flac",
    )
    outside = len(files_in(split, audio.SUFFIXES))
    if outside:
        warnings.warn(
            f"skipped {outside} recordings in {split} that are not in a speaker's "
            "folder; move them into one",
            stacklevel=3,
        )
    with ThreadPoolExecutor() as pool:
        checked = list(pool.map(lambda file: _check(file, rate, skip_corrupt), files))
    problems = [found for found in checked if isinstance(found, UserError)]
    if problems and not skip_corrupt:
        raise UserError(
            f"{len(problems)} of {len(files)} files in {split} are unusable, first: "
            f"{problems[0]}; or set data.skip_corrupt=True"
        ) from problems[0]
    if problems:
        warnings.warn(
            f"skipped {len(problems)} of {len(files)} files in {split} that are "
            f"unusable, first: {problems[0]}",
            stacklevel=3,
        )
    usable = [found for found in checked if isinstance(found, _Recording)]
    require(bool(usable), f"{split} has no usable recording")
    return usable


def _check(file: str, rate: int, decode: bool) -> _Recording | UserError:
    try:
        length = audio.inspect(file, rate=rate, decode=decode)
        table_file = os.path.splitext(file)[0] + phones.SUFFIX
        table = None
        if os.path.exists(table_file):
            table = phones.read_table(table_file, seconds=length / rate)
    except UserError as error:
        return error
    return _Recording(file, os.path.basename(os.path.dirname(file)), length, table)
