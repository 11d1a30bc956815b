"""Crops and whole utterances in batches, and windows of codes, with known samples."""

import itertools
import json
import pickle

import numpy as np
import pytest

from vqvae_jax.data import TrainBatches
from vqvae_jax.data.codes import CodesSource, write_codes
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.utterances import (
    UNKNOWN,
    Crop,
    Utterances,
    UtteranceSubset,
    WindowsSource,
    _padded,
    utterance_batches,
)

LENGTHS = (7, 30, 12, 55, 9, 31, 8)
CROP = 10


class Counting:
    """Utterance i has the samples 100 i + 1, 100 i + 2, … and phones of 4 samples."""

    def __init__(self, lengths=LENGTHS):
        self.lengths = np.array(lengths, np.int64)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        length = int(self.lengths[index])
        starts = np.arange(0, length, 4)
        ends = np.minimum(starts + 4, length)
        return {
            "audio": (100 * index + 1 + np.arange(length)).astype(np.int16),
            "speaker": np.asarray(index % 3, np.int32),
            "sentence": np.asarray(index, np.int32),
            "phones": np.stack([starts, ends, starts // 4], 1).astype(np.int32),
        }


def crops(n=50, *, seed=0, source=None, batch_size=6, **options):
    batches = TrainBatches(
        source or Counting(),
        batch_size=batch_size,
        seed=seed,
        augment=Crop(CROP),
        **options,
    )
    got = list(itertools.islice(batches, n))
    batches.close()
    return got


def joined(batches, key):
    return np.concatenate([batch[key] for batch in batches])


def assert_same(left, right):
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


class TestCrop:
    def test_shapes(self):
        batch = crops(1)[0]
        assert {key: (v.shape, v.dtype) for key, v in batch.items()} == {
            "audio": ((6, CROP), np.int16),
            "mask": ((6, CROP), bool),
            "speaker": ((6,), np.int32),
            "sentence": ((6,), np.int32),
        }

    def test_crops_are_consecutive_samples_of_their_utterance(self):
        batches = crops()
        for audio, mask, sentence, speaker in zip(
            *(joined(batches, k) for k in ("audio", "mask", "sentence", "speaker")),
            strict=True,
        ):
            length = LENGTHS[sentence]
            first = audio[0] - 100 * sentence - 1
            kept = min(length, CROP)
            assert 0 <= first <= length - kept
            np.testing.assert_array_equal(mask, np.arange(CROP) < kept)
            np.testing.assert_array_equal(audio[:kept], audio[0] + np.arange(kept))
            assert not audio[kept:].any()
            assert speaker == sentence % 3

    def test_all_starts_are_equally_likely(self):
        batches = crops(60, source=Counting([13]), batch_size=20)
        firsts = joined(batches, "audio")[:, 0] - 1
        counts = np.bincount(firsts)
        assert len(counts) == 4
        # Within six standard deviations of a binomial.
        spread = np.sqrt(1_200 * 0.25 * 0.75)
        assert np.abs(counts - 300).max() < 6 * spread

    @pytest.mark.parametrize(
        ("number", "first"), [(0, 0), (2**62 - 1, 0), (2**62, 1), (2**64 - 1, 3)]
    )
    def test_number_determines_the_start(self, number, first):
        crop = Crop(CROP)(Counting([13])[0], number)
        assert crop["audio"].tolist() == list(range(first + 1, first + 1 + CROP))

    def test_seeds_and_epochs_differ(self):
        starts = [
            {int(c[0]) for c in joined(crops(7, seed=s), "audio")} for s in (0, 1)
        ]
        assert starts[0] != starts[1]
        one_long = joined(crops(20, source=Counting([500])), "audio")[:, 0]
        assert len(set(one_long.tolist())) > 60

    @pytest.mark.parametrize("stop", [1, 5, 13])
    def test_resuming_continues_exactly(self, stop):
        def start():
            return TrainBatches(Counting(), batch_size=6, seed=3, augment=Crop(CROP))

        whole = start()
        expected = list(itertools.islice(whole, 20))
        whole.close()
        first = start()
        got = list(itertools.islice(first, stop))
        state = json.loads(json.dumps(first.get_state()))
        first.close()
        second = start()
        second.set_state(state)
        got += itertools.islice(second, 20 - stop)
        second.close()
        assert_same(got, expected)

    def test_processes_split_the_global_batches(self):
        parts = [crops(8, process_index=p, process_count=3) for p in range(3)]
        for step, whole in enumerate(crops(8)):
            for p, part in enumerate(parts):
                rows = slice(2 * p, 2 * p + 2)
                assert_same([part[step]], [{k: v[rows] for k, v in whole.items()}])

    def test_crop_can_be_pickled(self):
        assert pickle.loads(pickle.dumps(Crop(CROP))) == Crop(CROP)


class TestWhole:
    @pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 20])
    def test_each_utterance_is_whole_and_in_one_batch(self, batch_size):
        source = Counting()
        batches = list(
            utterance_batches(source, batch_size=batch_size, multiple_of=8, frame=2)
        )
        assert len(batches) == -(-len(LENGTHS) // batch_size)
        seen = []
        for batch in batches:
            samples = batch["audio"].shape[1]
            rows = batch["index"] != UNKNOWN
            longest = max(LENGTHS[i] for i in batch["index"][rows])
            assert samples % 8 == 0
            assert 0 <= samples - longest < 8
            for row, index in enumerate(batch["index"]):
                if index == UNKNOWN:
                    assert not batch["mask"][row].any()
                    assert not batch["audio"][row].any()
                    assert batch["speaker"][row] == batch["sentence"][row] == UNKNOWN
                    assert (batch["phones"][row] == -1).all()
                    continue
                example, length = source[int(index)], LENGTHS[index]
                np.testing.assert_array_equal(
                    batch["mask"][row], np.arange(samples) < length
                )
                np.testing.assert_array_equal(
                    batch["audio"][row][:length], example["audio"]
                )
                assert not batch["audio"][row][length:].any()
                assert batch["speaker"][row] == example["speaker"]
                assert batch["sentence"][row] == example["sentence"]
                middles = np.arange(samples // 2) * 2 + 1
                np.testing.assert_array_equal(
                    batch["phones"][row],
                    np.where(middles < length, middles // 4, -1),
                )
                seen.append(int(index))
        assert sorted(seen) == list(range(len(LENGTHS)))
        # Sorted by length, which keeps padding small.
        assert [LENGTHS[i] for i in seen] == sorted(LENGTHS)

    def test_types(self):
        (batch,) = utterance_batches(Counting([3]), batch_size=2, multiple_of=4)
        assert {key: (v.shape, v.dtype) for key, v in batch.items()} == {
            "audio": ((2, 4), np.int16),
            "mask": ((2, 4), bool),
            "speaker": ((2,), np.int32),
            "sentence": ((2,), np.int32),
            "index": ((2,), np.int32),
        }

    def test_padding_is_small(self):
        lengths = np.random.default_rng(0).integers(1_000, 50_000, 200)
        source = Counting(lengths)
        batches = utterance_batches(source, batch_size=8, multiple_of=100)
        computed = sum(batch["audio"].size for batch in batches)
        assert computed < 1.1 * lengths.sum()
        assert len(lengths) * lengths.max() > 1.8 * lengths.sum()

    def test_processes_yield_the_same_shapes_and_cover_all_utterances(self):
        options = {"batch_size": 4, "multiple_of": 8, "frame": 4}
        parts = [
            list(
                utterance_batches(
                    Counting(), **options, process_index=p, process_count=2
                )
            )
            for p in range(2)
        ]
        whole = list(utterance_batches(Counting(), **options))
        assert [len(part) for part in parts] == [2, 2]
        together = [
            {key: np.concatenate([a[key], b[key]]) for key in a}
            for a, b in zip(*parts, strict=True)
        ]
        assert_same(together, whole)

    def test_empty_source_has_no_batches(self):
        empty = UtteranceSubset(Counting(), np.array([], int))
        assert list(utterance_batches(empty, batch_size=4, multiple_of=8)) == []

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"batch_size": 0, "multiple_of": 8}, "batch_size is 0"),
            ({"batch_size": 1, "multiple_of": 0}, "multiple_of is 0"),
            ({"batch_size": 1, "multiple_of": 8, "frame": 3}, "not a multiple of"),
            ({"batch_size": 3, "multiple_of": 8, "process_count": 2}, "divisible"),
        ],
    )
    def test_invalid_sizes_raise_immediately(self, options, match):
        with pytest.raises(UserError, match=match):
            utterance_batches(Counting(), **options)


def test_subset_has_its_lengths():
    subset = UtteranceSubset(Counting(), np.array([3, 0]))
    assert isinstance(subset, Utterances)
    assert subset.lengths.tolist() == [55, 7]
    assert len(subset) == 2
    assert subset[1]["audio"][0] == 1
    assert pickle.loads(pickle.dumps(subset)).lengths.tolist() == [55, 7]


def test_padding_truncates_longer_audio():
    row = _padded(np.arange(1, 6, dtype=np.int16), 3)
    assert row["audio"].tolist() == [1, 2, 3]
    assert row["mask"].all()


# The code of utterance u at position n is 10 u + n, which identifies windows.
CODE_LENGTHS = (7, 2, 5)
LONGEST = 7


@pytest.fixture
def codes(tmp_path) -> CodesSource:
    positions = np.arange(LONGEST)
    padded = np.stack([10 * u + positions for u in range(3)])
    # Fill the padding with another code, which windows must not contain.
    padded[positions >= np.array(CODE_LENGTHS)[:, None]] = 99
    columns = {"length": np.array(CODE_LENGTHS), "speaker": np.array([4, 5, 6])}
    write_codes(
        tmp_path / "codes",
        batches=[(padded[..., None], columns)],
        num_codes=100,
        class_names=[],
        fingerprint="0",
    )
    return CodesSource(tmp_path / "codes")


def all_of(source: WindowsSource) -> list[dict]:
    return [source[i] for i in range(len(source))]


def test_each_code_is_in_one_window_if_stride_equals_length(codes):
    windows = all_of(WindowsSource(codes, length=3, stride=3))
    kept = [w["codes"][w["mask"]].tolist() for w in windows]
    assert kept == [[0, 1, 2], [3, 4, 5], [6], [10, 11], [20, 21, 22], [23, 24]]
    assert [int(w["speaker"]) for w in windows] == [4, 4, 4, 5, 6, 6]
    assert all(w["codes"].shape == w["mask"].shape == (3,) for w in windows)
    assert not any((w["codes"] == 99).any() for w in windows)


def test_windows_of_stride_one_start_everywhere_and_are_full(codes):
    windows = all_of(WindowsSource(codes, length=3))
    kept = [w["codes"][w["mask"]].tolist() for w in windows]
    assert kept == [
        *([n, n + 1, n + 2] for n in range(5)),
        [10, 11],
        *([20 + n, 21 + n, 22 + n] for n in range(3)),
    ]


def test_short_utterances_give_one_padded_window(codes):
    windows = all_of(WindowsSource(codes, length=20))
    assert [int(w["mask"].sum()) for w in windows] == list(CODE_LENGTHS)


def test_batched_access_matches_single_access(codes):
    source = WindowsSource(codes, length=3)
    for batched, single in zip(
        source.__getitems__([4, 0, 4]), [source[4], source[0], source[4]], strict=True
    ):
        for name, value in single.items():
            np.testing.assert_array_equal(batched[name], value)


def test_invalid_sizes_and_codes_of_images_raise(codes, tmp_path):
    with pytest.raises(UserError, match=r"stride must be in 1 \.\.\. 3, got 4"):
        WindowsSource(codes, length=3, stride=4)
    with pytest.raises(UserError, match="length must be at least 1"):
        WindowsSource(codes, length=0)
    write_codes(
        tmp_path / "images",
        batches=[(np.zeros((1, 2, 2, 1), int), {"label": np.zeros(1, int)})],
        num_codes=2,
        class_names=[],
        fingerprint="0",
    )
    with pytest.raises(
        UserError, match="no column length and no column speaker; windows need"
    ):
        WindowsSource(CodesSource(tmp_path / "images"), length=2)
