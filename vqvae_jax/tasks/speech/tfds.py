"""Speech data sets of TFDS, read from array_record without TensorFlow.

Supports VCTK, LibriSpeech, other sets with a feature `speech` or `audio`, and the
project's synthetic set `speech`. TFDS needs TensorFlow, pydub and ffmpeg to prepare
VCTK and LibriSpeech; `speech` needs none of them.
"""

import functools
import io
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int16, Int64

from vqvae_jax.data.source import Example
from vqvae_jax.data.tfds import (
    name_of,
    prepared_builder,
    readable,
    records,
)
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.extras import imported
from vqvae_jax.tasks.speech import audio, phones
from vqvae_jax.tasks.speech.dataset import SpeechDataConfig
from vqvae_jax.tasks.speech.utterances import UNKNOWN, SpeechSplits, Utterances

_AUDIO = ("speech", "audio")
_SPEAKER = ("speaker", "speaker_id")
_SAMPLE_SIZE = np.dtype(np.int16).itemsize
# For each split, use the first entry that the set provides completely. LibriSpeech uses
# only its clean speech: 460 hours of train.
_SPLITS = {
    "train": (("train",), ("train_clean100", "train_clean360"), ("train_clean100",)),
    "validation": (("validation",), ("dev_clean",)),
    "test": (("test",), ("test_clean",)),
}


def open_splits(config: SpeechDataConfig) -> SpeechSplits:
    """Open the set of a `data` section with `open_speech_tfds`."""
    return open_speech_tfds(
        config.name, data_dir=config.data_dir, sample_rate=config.sample_rate
    )


def open_speech_tfds(name: str, *, data_dir: str, sample_rate: int) -> SpeechSplits:
    """Open the TFDS set `name` in `data_dir`, preparing it as array_record if needed.

    Raises:
        UserError: if the set does not exist, cannot be prepared or read, or contains
            no speech.
    """
    builder = prepared_builder(
        name, data_dir, instead="choose data.name='speech' for eSpeak's voices"
    )
    splits = {}
    for role, choices in _SPLITS.items():
        for choice in choices:
            if role not in splits and set(choice) <= set(builder.info.splits):
                splits[role] = choice
    require(
        "train" in splits,
        f"data.name={name!r} has no train split, only "
        f"{', '.join(map(str, builder.info.splits))}; choose another set",
    )
    speaker_names = _speaker_names(builder, splits["train"])
    metadata = builder.info.metadata or {}
    phone_names = tuple(metadata.get("phone_names", ()))
    sources: dict[str, Utterances] = {}
    for role, choice in splits.items():
        names = "+".join(choice)
        sources[role] = SpeechTfdsSource(
            records(builder, names),
            name=name_of(builder, names),
            audio_key=_key(builder, _AUDIO),
            speaker_key=_speaker_key(builder),
            speakers=_labels(builder, speaker_names),
            from_rate=_rate(builder),
            sample_rate=sample_rate,
        )
        # Fail now if the records are unreadable.
        sources[role][0]
    return SpeechSplits(sources, speaker_names, phone_names)


class SpeechTfdsSource:
    """One split of serialised `tf.train.Example` records, decoded on access."""

    def __init__(
        self,
        records: Any,
        *,
        name: str,
        audio_key: str,
        speaker_key: str | None,
        speakers: Mapping[int, int],
        from_rate: int,
        sample_rate: int,
    ):
        self._records = records
        self._name = name
        self._audio_key = audio_key
        self._speaker_key = speaker_key
        self._speakers = speakers
        self._from_rate = from_rate
        self._sample_rate = sample_rate

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        with readable(self._name):
            return self._read(index)

    def _read(self, index: int) -> Example:
        features = _features(self._records[index])
        samples = _decoded(features[self._audio_key])
        require(
            len(samples) >= audio.MIN_SECONDS * self._from_rate,
            f"{self._name}: utterance {index} contains {len(samples)} samples at "
            f"{self._from_rate} Hz; expected at least {audio.MIN_SECONDS} s",
        )
        if self._from_rate != self._sample_rate or samples.dtype != np.int16:
            samples = audio.to_int16(
                audio.resample(
                    samples, from_rate=self._from_rate, to_rate=self._sample_rate
                )
            )
        speaker = 0
        if self._speaker_key is not None:
            value = features[self._speaker_key].int64_list.value[0]
            speaker = self._speakers.get(value, UNKNOWN)
        return {
            "audio": samples,
            "speaker": np.asarray(speaker, np.int32),
            "sentence": np.asarray(_sentence(features), np.int32),
            "phones": self._segments(features),
        }

    @functools.cached_property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """The number of samples of each utterance, after resampling.

        The first access reads all records.
        """
        with readable(self._name):
            lengths = [
                audio.resampled_length(
                    _num_samples(_features(self._records[index])[self._audio_key]),
                    self._from_rate,
                    self._sample_rate,
                )
                for index in range(len(self))
            ]
        return np.array(lengths, np.int64)

    def _segments(self, features: Any) -> np.ndarray:
        if "phones" not in features:
            return phones.none()
        segments = np.array(features["phones"].int64_list.value, np.int32)
        segments = segments.reshape(-1, 3)
        ratio = self._sample_rate / self._from_rate
        segments[:, :2] = np.round(segments[:, :2] * ratio)
        return segments[segments[:, 0] < segments[:, 1]]


def _features(record: bytes) -> Any:
    from tensorflow_datasets.proto import tf_example_pb2

    # TFDS's decoder processes every feature and needs TensorFlow for audio.
    return tf_example_pb2.Example.FromString(record).features.feature


def _decoded(
    feature: Any,
) -> Int16[np.ndarray, " t"] | Float[np.ndarray, " t"]:
    """Decode the samples of an audio feature as TFDS stores it.

    An Audio feature stores integers, or a whole file if it is decoded lazily; an
    encoded tensor stores compressed bytes.
    """
    if not feature.bytes_list.value:
        return np.array(feature.int64_list.value, np.int64).astype(np.int16)
    content = feature.bytes_list.value[0]
    if _is_flac(content):
        soundfile = imported("soundfile", purpose="to decode recordings")
        return soundfile.read(io.BytesIO(content), dtype="int16")[0]
    return np.frombuffer(zlib.decompress(content), np.int16)


def _num_samples(feature: Any) -> int:
    if not feature.bytes_list.value:
        return len(feature.int64_list.value)
    content = feature.bytes_list.value[0]
    if _is_flac(content):
        soundfile = imported("soundfile", purpose="to decode recordings")
        return soundfile.info(io.BytesIO(content)).frames
    return len(zlib.decompress(content)) // _SAMPLE_SIZE


def _is_flac(content: bytes) -> bool:
    return content[:4] == b"fLaC"


def _sentence(features: Any) -> int:
    if "sentence" in features:
        return features["sentence"].int64_list.value[0]
    if "text" in features:
        # A hash gives equal texts the same number without a list of all texts.
        return zlib.crc32(features["text"].bytes_list.value[0].strip()) >> 1
    return UNKNOWN


def _key(builder: Any, names: tuple[str, ...]) -> str:
    features = builder.info.features
    found = [name for name in names if name in features]
    require(
        bool(found),
        f"data.name={builder.name!r} has no feature {' or '.join(names)}, only "
        f"{', '.join(sorted(features))}; choose a speech data set",
    )
    return found[0]


def _speaker_key(builder: Any) -> str | None:
    found = [name for name in _SPEAKER if name in builder.info.features]
    return found[0] if found else None


def _rate(builder: Any) -> int:
    feature = builder.info.features[_key(builder, _AUDIO)]
    rate = (builder.info.metadata or {}).get("sample_rate")
    rate = rate or getattr(feature, "sample_rate", None)
    require(
        rate is not None,
        f"data.name={builder.name!r} has no sample rate in its metadata; choose "
        "another set, or a folder of audio files",
    )
    return int(rate)


def _speaker_names(builder: Any, train: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of train's speakers, or one name if the set has no speakers."""
    key = _speaker_key(builder)
    if key is None:
        return ("speaker",)
    names = getattr(builder.info.features[key], "names", None)
    if names is not None:
        return tuple(names)
    listed = (builder.info.metadata or {}).get("speakers")
    if listed is not None:
        # LibriSpeech lists all its speakers with the subset of each.
        subsets = {_normalised(split) for split in train}
        ids = {int(i) for i, s in listed.items() if _normalised(s["subset"]) in subsets}
    else:
        names = "+".join(train)
        split = records(builder, names)
        with readable(name_of(builder, names)):
            ids = {
                _features(split[index])[key].int64_list.value[0]
                for index in range(len(split))
            }
    return tuple(str(i) for i in sorted(ids))


def _labels(builder: Any, speaker_names: tuple[str, ...]) -> dict[int, int]:
    """Map speaker numbers in the records to indices into `speaker_names`."""
    key = _speaker_key(builder)
    if key is None or getattr(builder.info.features[key], "names", None) is not None:
        return {index: index for index in range(len(speaker_names))}
    return {int(name): index for index, name in enumerate(speaker_names)}


def _normalised(name: str) -> str:
    return name.strip().replace("-", "").replace("_", "")
