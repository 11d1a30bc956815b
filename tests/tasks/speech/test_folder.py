"""A folder of speech: `split/speaker/*.wav`, phone tables, unusable files."""

import itertools
import os
import pathlib
import pickle
import random
import shutil

import numpy as np
import pytest
from launch_checks import assert_one_error, launch

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.dataset import SpeechDataConfig, open_speech
from vqvae_jax.tasks.speech.folder import open_speech_folder
from vqvae_jax.tasks.speech.utterances import utterance_batches

pytest.importorskip("soundfile", reason="soundfile is not installed")
AN4 = pathlib.Path(__file__).parents[4] / "shared" / "data" / "an4"


@pytest.fixture
def make(tmp_path, write, tone):
    """{split/speaker: count} -> a folder; file i of a speaker lasts 0.3 s + 0.01 i."""

    def make(counts, *, suffix="wav", rate=16_000):
        for folder, count in counts.items():
            for i in range(count):
                path = tmp_path / folder / f"{i:03}.{suffix}"
                write(path, tone(0.3 + 0.01 * i, rate), rate)
        return tmp_path

    return make


def open_root(root, **options):
    return open_speech_folder(str(root), **{"sample_rate": 16_000} | options)


def dataset(root, **options):
    return open_speech(
        SpeechDataConfig(
            source="folder", data_dir=str(root), crop_samples=1_000, **options
        )
    )


def assert_raises(root, match, **options):
    with pytest.raises(UserError, match=match) as caught:
        open_root(root, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["wav", "flac", "WAV"])
def test_speakers_are_the_sorted_folders_of_train(make, suffix):
    counts = {"train/tom": 3, "train/ann": 2, "val/tom": 1, "test/eve": 1}
    splits = open_root(make(counts, suffix=suffix))
    assert splits.speaker_names == ("ann", "tom")
    assert splits.phone_names == ()
    train = splits.sources["train"]
    assert [int(train[i]["speaker"]) for i in range(5)] == [0, 0, 1, 1, 1]
    assert train.lengths.tolist() == [4_800, 4_960, 4_800, 4_960, 5_120]
    assert [len(train[i]["audio"]) for i in range(5)] == train.lengths.tolist()
    assert splits.sources["validation"][0]["speaker"] == 1
    # A speaker who is not in train.
    assert splits.sources["test"][0]["speaker"] == -1
    example = train[0]
    assert example["sentence"] == -1
    assert example["phones"].shape == (0, 3)
    assert {example[key].dtype for key in ("speaker", "sentence", "phones")} == {
        np.dtype(np.int32)
    }


def test_audio_is_resampled(make, tone):
    source = open_root(make({"train/a": 1}, rate=48_000)).sources["train"]
    assert source.lengths.tolist() == [4_800]
    inside = slice(500, -500)
    got = source[0]["audio"][inside] / 2**15
    np.testing.assert_allclose(got, tone(0.3)[inside], atol=2e-4)


def test_missing_splits_are_cut_from_train(make):
    opened = dataset(make({"train/a": 20, "test/b": 3}), validation_fraction=0.2)
    assert [len(source) for source in opened[:3]] == [16, 4, 3]
    lengths = itertools.chain(opened.train.lengths, opened.validation.lengths)
    assert sorted(lengths) == [4_800 + 160 * i for i in range(20)]
    index = int(opened.validation.lengths.argmax())
    assert len(opened.validation[index]["audio"]) == opened.validation.lengths.max()


def test_phone_tables_next_to_recordings(make):
    root = make({"train/a": 2, "test/b": 1})
    (root / "train/a/000.tsv").write_text("0.0\t0.1\tSIL\n0.1\t0.2005\tAA\tah\t0.9\n")
    (root / "test/b/000.tsv").write_text("0.1\t0.31\tS\n")
    splits = open_root(root)
    assert splits.phone_names == ("AA", "S", "SIL")
    first, second = (splits.sources["train"][i]["phones"] for i in (0, 1))
    assert first.tolist() == [[0, 1_600, 2], [1_600, 3_208, 0]]
    assert second.shape == (0, 3)
    # The aligner exceeds the recording by half a frame; the segment is cut.
    assert splits.sources["test"][0]["phones"].tolist() == [[1_600, 4_800, 1]]


def test_recordings_outside_speaker_folders_are_skipped_with_a_warning(make):
    root = make({"train/ann": 2, "train": 3, "test/ann": 1})
    with pytest.warns(
        UserWarning, match=r"skipped 3 recordings in .*train that are not in"
    ):
        splits = open_root(root)
    assert len(splits.sources["train"]) == 2


class TestErrors:
    def test_missing_and_empty_folders(self, tmp_path, make):
        assert_raises(tmp_path / "missing", "is not a folder")
        assert_raises(tmp_path, "has no folder train with one folder per speaker")
        (tmp_path / "train" / "ann").mkdir(parents=True)
        assert_raises(
            tmp_path, r"train has no recordings; expected .*<speaker>/\*\.wav"
        )
        make({"train/ann": 1})
        (tmp_path / "val").mkdir()
        assert_raises(tmp_path, "val has no recordings")
        (tmp_path / "validation").mkdir()
        assert_raises(tmp_path, "both val and validation")

    @pytest.mark.parametrize(
        ("samples", "subtype", "match"),
        [
            (np.zeros(1_600), None, "contains 0.10 s"),
            (np.zeros((9_000, 2)), None, "has 2 channels"),
            (np.full(9_000, np.nan), "FLOAT", "contains 9000 NaN or infinite samples"),
        ],
    )
    def test_unusable_file_is_named_or_skipped(
        self, make, write, samples, subtype, match
    ):
        root = make({"train/a": 3})
        write(root / "train/a/001.wav", samples, subtype=subtype)
        assert_raises(
            root, rf"1 of 3 files .*001\.wav {match}.*data\.skip_corrupt=True"
        )
        with pytest.warns(UserWarning, match=r"skipped 1 of 3 .*001\.wav"):
            splits = open_root(root, skip_corrupt=True)
        assert splits.sources["train"].lengths.tolist() == [4_800, 5_120]

    def test_damage_in_the_middle_is_skipped_or_raises(self, make, write):
        """Only decoding detects it; `skip_corrupt` decodes when opening the folder."""
        root = make({"train/a": 3}, suffix="flac")
        damaged = root / "train/a/001.flac"
        write(damaged, 0.1 * np.random.default_rng(0).normal(size=64_000))
        content = damaged.read_bytes()
        middle = len(content) // 3
        damaged.write_bytes(content[:middle] + bytes(5_000) + content[middle + 5_000 :])
        with pytest.raises(UserError, match=r"001\.flac .*data\.skip_corrupt=True"):
            open_root(root).sources["train"][1]
        with pytest.warns(UserWarning, match=r"skipped 1 of 3 .*001\.flac"):
            splits = open_root(root, skip_corrupt=True)
        assert splits.sources["train"].lengths.tolist() == [4_800, 5_120]

    @pytest.mark.parametrize("content", [b"", b"no sound"])
    def test_file_of_another_format(self, make, content):
        root = make({"train/a": 2})
        (root / "train/a/000.wav").write_bytes(content)
        assert_raises(root, r"000\.wav cannot be read")

    @pytest.mark.parametrize(
        ("table", "match"),
        [
            ("0.0 0.1 AA", r"line 1 is '0\.0 0\.1 AA'"),
            ("0.0\t0.2\tAA\n0.1\t0.3\tS", "line 2: 'S' starts at 0.1 s"),
            ("0.0\t0.5\tAA", "ends at 0.5 s, after the recording ends at 0.300 s"),
        ],
    )
    def test_invalid_phone_table(self, make, table, match):
        root = make({"train/a": 2})
        (root / "train/a/000.tsv").write_text(table)
        assert_raises(root, rf"000\.tsv, .*{match}")

    @pytest.mark.filterwarnings("ignore:skipped")
    def test_split_without_usable_recordings(self, make):
        root = make({"train/a": 1})
        (root / "train/a/000.wav").write_bytes(b"")
        assert_raises(root, "has no usable recording", skip_corrupt=True)

    def test_file_truncated_after_opening(self, make):
        root = make({"train/a": 2})
        source = open_root(root).sources["train"]
        os.truncate(root / "train/a/001.wav", 40)
        with pytest.raises(UserError, match=r"001\.wav"):
            source[1]


def test_source_can_be_pickled(make):
    source = open_root(make({"train/a": 2})).sources["train"]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[1]["audio"], source[1]["audio"])


@pytest.mark.skipif(not AN4.is_dir(), reason="AN4 is not available")
def test_an4():
    opened = dataset(AN4)
    assert [len(source) for source in opened[:3]] == [421, 22, 100]
    assert len(opened.speaker_names) == 74
    assert len(opened.phone_names) == 34
    seconds = sum(source.lengths.sum() for source in opened[:3]) / 16_000
    assert abs(seconds / 60 - 24.48) < 0.01
    labelled = total = 0
    for batch in utterance_batches(
        opened.test, batch_size=16, multiple_of=6_400, frame=640
    ):
        # The speakers of test are not in train.
        assert (batch["speaker"] == -1).all()
        labelled += (batch["phones"] >= 0).sum()
        total += batch["mask"].sum()
    # The aligner labels nearly all frames.
    assert 0.95 < labelled * 640 / total < 1.01


RECORDINGS = {
    "empty": b"",
    "noise": random.Random(0).randbytes(300),
    "header": b"RIFF\xff\xff\xff\xffWAVEfmt ",
}


@pytest.mark.slow
@pytest.mark.parametrize("content", RECORDINGS.values(), ids=list(RECORDINGS))
def test_unusable_recordings_are_named(content, speech_dir, tmp_path):
    data = shutil.copytree(speech_dir, tmp_path / "data")
    (data / "train" / "bob" / "1.wav").write_bytes(content)
    config = "experiments/an4.py:small"
    changes = {"data.data_dir": data, "evaluation.batch_size": 8}
    assert_one_error(*launch(config, tmp_path / "run", **changes), named="1.wav")
