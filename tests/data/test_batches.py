"""Training batches: order, resuming, processes, flips; evaluation batches."""

import itertools
import json
from collections import Counter

import jax
import numpy as np
import pytest

from vqvae_jax.data import TrainBatches, eval_batches
from vqvae_jax.runtime.errors import UserError


class Numbers:
    """Example i is an image with i + 1 on the left and 0 on the right, with label i."""

    def __init__(self, n):
        self._n = n

    def __len__(self):
        return self._n

    def __getitem__(self, index):
        image = np.zeros((1, 2, 1), np.int32)
        image[:, 0] = index + 1
        return {"image": image, "label": np.asarray(index, np.int32)}


def take(batches, n):
    got = list(itertools.islice(batches, n))
    if hasattr(batches, "close"):
        batches.close()
    return got


def labels(batches):
    return np.concatenate([b["label"] for b in batches])


def assert_equal_batches(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_a_batch_stacks_all_keys_and_adds_a_mask():
    (batch,) = take(TrainBatches(Numbers(10), batch_size=4, seed=0), 1)
    assert batch["image"].shape == (4, 1, 2, 1)
    assert batch["label"].dtype == np.int32
    assert batch["mask"].dtype == bool
    assert batch["mask"].all()


def test_each_epoch_is_a_new_permutation_of_all_examples():
    got = labels(take(TrainBatches(Numbers(103), batch_size=10, seed=3), 31))
    epochs = [got[i * 103 : (i + 1) * 103] for i in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(103))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_seeds_have_different_orders():
    orders = [
        labels(take(TrainBatches(Numbers(50), batch_size=50, seed=seed), 3))
        for seed in range(3)
    ]
    epochs = [tuple(o[i * 50 : (i + 1) * 50]) for o in orders for i in range(3)]
    assert len(set(epochs)) == 9


@pytest.mark.parametrize("n", [1, 3])
def test_a_source_smaller_than_a_batch(n):
    (batch,) = take(TrainBatches(Numbers(n), batch_size=8, seed=0), 1)
    counts = Counter(batch["label"].tolist())
    assert set(counts) == set(range(n))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_resuming_gives_the_same_batches():
    def start():
        return TrainBatches(Numbers(103), batch_size=16, seed=5, random_flip=True)

    unbroken = start()
    take_first = list(itertools.islice(unbroken, 7))
    state = json.loads(json.dumps(unbroken.get_state()))
    rest = take(unbroken, 20)

    resumed = start()
    assert_equal_batches(take_first[:2], [next(resumed), next(resumed)])
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert_equal_batches(rest, take(resumed, 20))


def test_resuming_on_another_number_of_processes():
    single = TrainBatches(Numbers(103), batch_size=16, seed=5)
    take(single, 7)
    state = single.get_state()
    same = {"batch_size": 16, "seed": 5, "process_count": 2}
    halves = [TrainBatches(Numbers(103), process_index=p, **same) for p in range(2)]
    for half in halves:
        half.set_state(state)
    together = labels([next(half) for half in halves])
    np.testing.assert_array_equal(together, next(single)["label"])
    for iterator in (single, *halves):
        iterator.close()


@pytest.mark.parametrize(
    "change", [{"batch_size": 8}, {"seed": 6}, {"source": Numbers(104)}]
)
def test_a_state_of_other_data_raises(change):
    same = {"source": Numbers(103), "batch_size": 16, "seed": 5}
    other = same | change
    state = TrainBatches(same.pop("source"), **same).get_state()
    resumed = TrainBatches(other.pop("source"), **other)
    with pytest.raises(UserError, match="resume with the same data"):
        resumed.set_state(state)


def test_processes_split_each_global_batch():
    def start(**share):
        return TrainBatches(
            Numbers(103), batch_size=16, seed=2, random_flip=True, **share
        )

    single = take(start(), 15)
    parts = [take(start(process_index=p, process_count=4), 15) for p in range(4)]
    for step, whole in enumerate(single):
        for name, array in whole.items():
            # Including flips: a flipped image has its number on the right.
            together = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(together, array)


def test_flips_are_fair_and_deterministic_and_do_not_change_labels():
    def draw(seed):
        return take(
            TrainBatches(Numbers(64), batch_size=64, seed=seed, random_flip=True), 40
        )

    batches = draw(0)
    assert_equal_batches(batches, draw(0))
    flipped = np.stack([b["image"][:, 0, 0, 0] == 0 for b in batches])
    assert abs(flipped.mean() - 0.5) < 0.05
    assert len({row.tobytes() for row in flipped}) == 40
    for batch in batches:
        np.testing.assert_array_equal(
            batch["image"].sum(axis=(1, 2, 3)), batch["label"] + 1
        )
    plain = take(TrainBatches(Numbers(64), batch_size=64, seed=0), 40)
    np.testing.assert_array_equal(labels(plain), labels(batches))
    assert all((b["image"][:, 0, 0, 0] > 0).all() for b in plain)


def test_sources_without_images_are_batched():
    class Codes(Numbers):
        def __getitem__(self, index):
            return {"codes": np.full((2, 3), index)}

    (batch,) = take(TrainBatches(Codes(9), batch_size=4, seed=0, random_flip=True), 1)
    assert batch["codes"].shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"source": Numbers(0)}, "empty"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 6, "process_count": 4}, "not divisible by the 4"),
        ({"process_index": 2, "process_count": 2}, "process_index is 2"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_invalid_sizes_raise(change, match):
    kwargs = {"source": Numbers(10), "batch_size": 4, "seed": 0} | change
    with pytest.raises(UserError, match=match):
        TrainBatches(kwargs.pop("source"), **kwargs)


@pytest.mark.parametrize("process_count", [1, 2, 64])
def test_evaluation_yields_every_example_once(process_count):
    source = Numbers(1003)
    sizes = {"batch_size": 64, "process_count": process_count}
    parts = [
        list(eval_batches(source, process_index=p, **sizes))
        for p in range(process_count)
    ]
    assert {len(part) for part in parts} == {16}
    seen = []
    for step in zip(*parts, strict=True):
        whole = {k: np.concatenate([b[k] for b in step]) for k in step[0]}
        assert whole["image"].shape == (64, 1, 2, 1)
        seen += whole["label"][whole["mask"]].tolist()
        assert (whole["image"][~whole["mask"]] == 0).all()
    assert seen == list(range(1003))


def test_a_mask_of_examples_is_kept_and_padded_with_false():
    class Parts:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return {"mask": np.arange(4) <= index, "x": np.int32(index)}

    (batch,) = eval_batches(Parts(), batch_size=5)
    expected = np.arange(4) <= np.array([0, 1, 2, -1, -1])[:, None]
    np.testing.assert_array_equal(batch["mask"], expected)


def test_evaluation_of_an_empty_source_yields_nothing():
    assert list(eval_batches(Numbers(0), batch_size=4)) == []


def test_an_unfinished_evaluation_can_be_closed():
    batches = eval_batches(Numbers(1000), batch_size=4)
    next(batches)
    batches.close()


def test_errors_of_the_source_are_raised():
    class Broken(Numbers):
        def __getitem__(self, index):
            raise UserError("photo.jpg cannot be decoded")

    batches = TrainBatches(Broken(10), batch_size=4, seed=0)
    with pytest.raises(UserError, match=r"photo\.jpg"):
        next(batches)
    batches.close()


def test_worker_processes_yield_the_batches_of_threads(tiny_dataset):
    kwargs = {"batch_size": 32, "seed": 1, "random_flip": True}
    threads = TrainBatches(tiny_dataset.train, **kwargs)
    take(threads, 3)
    state = threads.get_state()
    expected = take(threads, 5)
    workers = TrainBatches(tiny_dataset.train, num_workers=2, **kwargs)
    workers.set_state(state)
    assert_equal_batches(expected, take(workers, 5))


class TestOnDevice:
    @pytest.mark.parametrize("random_flip", [False, True])
    def test_gathered_batches_equal_read_ones(self, random_flip):
        options = {"batch_size": 8, "seed": 3, "random_flip": random_flip}
        expected = take(TrainBatches(Numbers(19), **options), 6)
        batches = TrainBatches(Numbers(19), on_device=True, **options)
        assert sorted(batches.whole) == ["image", "label"]
        gather = jax.jit(TrainBatches.gather)
        found = [gather(batch, batches.whole) for batch in take(batches, 6)]
        assert_equal_batches(found, expected)

    def test_processes_read_their_rows(self):
        options = {"batch_size": 8, "seed": 3, "on_device": True, "process_count": 2}
        parts = [
            take(TrainBatches(Numbers(19), process_index=i, **options), 3)
            for i in range(2)
        ]
        one = TrainBatches(Numbers(19), batch_size=8, seed=3, on_device=True)
        whole = take(one, 3)
        for first, second, both in zip(*parts, whole, strict=True):
            index = np.concatenate([first["index"], second["index"]])
            np.testing.assert_array_equal(index, both["index"])

    def test_a_read_batch_passes_unchanged(self):
        (batch,) = take(TrainBatches(Numbers(5), batch_size=4, seed=0), 1)
        assert TrainBatches.gather(batch, {}) == batch

    def test_augmentation_is_refused(self):
        with pytest.raises(UserError, match="on_device=True allows no augmentation"):
            TrainBatches(
                Numbers(5),
                batch_size=4,
                seed=0,
                augment=lambda example, number: example,
                on_device=True,
            )
