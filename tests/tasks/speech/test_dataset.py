"""The `data` section, its files, and its splits, completed to three."""

import numpy as np
import pytest

from vqvae_jax.pipeline import data_files
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech import folder, tfds
from vqvae_jax.tasks.speech.dataset import SpeechDataConfig, open_speech
from vqvae_jax.tasks.speech.utterances import SpeechSplits, Utterances

GOOD = {"source": "tfds", "name": "speech", "crop_samples": 4_000}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("source", "csv", "must be one of tfds, folder, got 'csv'"),
        ("name", "", "is empty"),
        ("crop_samples", 0, "must be >= 1 and <= 16777216, got 0"),
        ("sample_rate", 3_999, "must be >= 4000 and <= 48000, got 3999"),
        ("sample_rate", 48_001, "must be >= 4000 and <= 48000, got 48001"),
        ("validation_fraction", 0.0, "must be > 0 and < 0.5, got 0.0"),
        ("validation_fraction", 0.5, "must be > 0 and < 0.5, got 0.5"),
        ("num_workers", -1, "must be >= 0 and <= 1024, got -1"),
    ],
)
def test_invalid_values_raise_with_their_key(key, value, message):
    assert SpeechDataConfig(**GOOD).sample_rate == 16_000
    with pytest.raises(UserError, match=f"^{key} {message}") as caught:
        SpeechDataConfig(**{**GOOD, key: value})
    assert "\n" not in str(caught.value)


def test_a_folder_requires_data_dir_and_no_name():
    SpeechDataConfig(source="folder", data_dir="speech", crop_samples=1)
    with pytest.raises(UserError, match=r"^data_dir is empty"):
        SpeechDataConfig(source="folder", crop_samples=1)


def facts_of(folder):
    data = SpeechDataConfig(source="folder", data_dir=str(folder), crop_samples=512)
    return data_files.facts_of(data)


def test_recordings_and_their_phones_count(tmp_path):
    folder = tmp_path / "train" / "ann"
    folder.mkdir(parents=True)
    for name in ("0.wav", "0.tsv", "1.flac", "1.txt"):
        (folder / name).write_text("x")
    facts = facts_of(tmp_path)
    assert (facts["class_names"], facts["splits"]["train"]["files"]) == (["ann"], 3)
    (folder / "0.tsv").write_text("longer")
    assert facts_of(tmp_path) != facts


class Silent:
    """Utterance i has `first` + i samples, so that no two splits share a length."""

    def __init__(self, first, size):
        self.lengths = first + np.arange(size)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        return {
            "audio": np.zeros(self.lengths[index], np.int16),
            "speaker": np.asarray(0, np.int32),
            "sentence": np.asarray(0, np.int32),
            "phones": np.zeros((0, 3), np.int32),
        }


@pytest.fixture
def opened(monkeypatch):
    """A function from split names to the opened data set and the recorded arguments."""

    def open_splits(*roles, size=100, **changes):
        arguments = {}

        def fake(*args, **options):
            arguments.update(options, first=args[0])
            sources = {r: Silent(1_000 * i + 1, size) for i, r in enumerate(roles)}
            return SpeechSplits(sources, ("ann", "tom"), ("AA",))

        monkeypatch.setattr(folder, "open_speech_folder", fake)
        monkeypatch.setattr(tfds, "open_speech_tfds", fake)
        options = {"source": "folder", "data_dir": "d", "crop_samples": 1} | changes
        return open_speech(SpeechDataConfig(**options)), arguments

    return open_splits


@pytest.mark.parametrize(
    ("roles", "sizes"),
    [
        (("train", "validation", "test"), [100, 100, 100]),
        (("train", "test"), [90, 10, 100]),
        (("train", "validation"), [90, 10, 100]),
        (("train",), [80, 10, 10]),
    ],
)
def test_missing_splits_are_cut_from_train(opened, roles, sizes):
    dataset, _ = opened(*roles, validation_fraction=0.1)
    assert [len(source) for source in dataset[:3]] == sizes
    assert all(isinstance(source, Utterances) for source in dataset[:3])
    lengths = np.concatenate([source.lengths for source in dataset[:3]])
    assert len(set(lengths.tolist())) == sum(sizes)
    for source in dataset[:3]:
        assert len(source[3]["audio"]) == source.lengths[3]


def test_cuts_are_deterministic(opened):
    cuts = [opened("train")[0].validation.lengths.tolist() for _ in range(2)]
    assert cuts[0] == cuts[1]


def test_names_and_rate(opened):
    dataset, arguments = opened("train", sample_rate=8_000, skip_corrupt=True)
    assert dataset.speaker_names == ("ann", "tom")
    assert dataset.phone_names == ("AA",)
    assert dataset.sample_rate == 8_000
    assert arguments == {"first": "d", "sample_rate": 8_000, "skip_corrupt": True}
    _, arguments = opened("train", source="tfds", name="vctk")
    assert arguments == {"first": "vctk", "sample_rate": 16_000, "data_dir": "d"}


def test_too_few_examples_to_cut(opened):
    with pytest.raises(UserError, match="train has 2 examples, too few"):
        opened("train", size=2)
