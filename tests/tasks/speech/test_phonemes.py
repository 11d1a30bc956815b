"""Phonemes from codes, on tables small enough to count by hand."""

import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.phonemes import Frames, likeliest, score


def frames(codes, phones):
    return Frames(np.array(codes, np.int32), np.array(phones, np.int32))


def drawn(rng, n, *, num_codes=8, num_phones=5, unknown=0.2):
    """Codes that tell nothing of phones, some of which are not known."""
    phones = rng.integers(num_phones, size=n)
    phones[rng.random(n) < unknown] = -1
    return frames(rng.integers(num_codes, size=n), phones)


# Code 0 stands for phone 2 twice and phone 0 once, code 1 for phones 1 and 3 alike, and
# code 3 only where nothing is known; 2 never occurs. Phones 0 and 1 occur once, phone 2
# three times, phone 3 twice: over both utterances, not in either.
TRAIN = [
    frames([0, 0, 1, 1, 3, 3], [2, 0, 3, 1, -1, -1]),
    frames([0, 4, 4], [2, 2, 3]),
]


def test_codes_get_their_most_frequent_phone():
    phone_of = likeliest(TRAIN, num_codes=6, num_phones=5)
    # Ties go to the lower phone; codes without any get the most frequent of all.
    assert phone_of.tolist() == [2, 1, 2, 2, 2, 2]


def test_utterances_may_come_from_a_generator():
    once = score(iter(TRAIN), iter(TRAIN), num_codes=6, num_phones=5)
    again = score(TRAIN, TRAIN, num_codes=6, num_phones=5)
    assert once[:4] == again[:4]


def test_scores_of_a_table():
    test = [
        frames([0, 0, 1, 5], [2, 0, 1, 4]),
        frames([0, 2, 4, 1], [-1, 2, 3, -1]),
    ]
    found = score(TRAIN, test, num_codes=6, num_phones=5)
    # True 2, 0, 1, 4, 2, 3; told 2, 2, 1, 2, 2, 2.
    assert found.frames == 6
    assert found.accuracy == 3 / 6
    assert found.chance == 2 / 6
    expected = np.zeros((5, 5), int)
    for true, told in [(2, 2), (0, 2), (1, 1), (4, 2), (2, 2), (3, 2)]:
        expected[true, told] += 1
    np.testing.assert_array_equal(found.confusion, expected)


def test_chance_is_of_the_phone_that_train_has_most():
    """Not of the one that test has most."""
    train = [frames([0, 1, 1], [0, 1, 1])]
    test = [frames([0, 0, 0, 1], [0, 0, 0, 1])]
    found = score(train, test, num_codes=2, num_phones=2)
    assert (found.accuracy, found.chance) == (1.0, 0.25)


def test_codes_that_name_phones_are_right():
    """Phone = code // 2, and shuffled codes are right as often as two draws agree."""
    rng = np.random.default_rng(0)
    utterances = [frames(codes, codes // 2) for codes in rng.integers(8, size=(9, 300))]
    found = score(utterances[:5], utterances[5:], num_codes=8, num_phones=4)
    assert found.accuracy == 1
    assert found.shuffled == pytest.approx(1 / 4, abs=0.05)
    assert found.chance == pytest.approx(1 / 4, abs=0.05)
    assert np.count_nonzero(found.confusion) == 4


def test_codes_that_tell_nothing_are_chance():
    rng = np.random.default_rng(0)
    train, test = ([drawn(rng, 2_000) for _ in range(5)] for _ in "ab")
    found = score(train, test, num_codes=8, num_phones=5)
    for value in (found.accuracy, found.shuffled, found.chance):
        assert value == pytest.approx(1 / 5, abs=0.03)


def test_codes_are_shuffled_within_an_utterance():
    """Each says one phone all along: what is said stays known, when does not matter.

    And the codes of frames without a phone, which would spoil it, stay out.
    """
    utterances = [frames([0] * 50 + [1] * 9, [0] * 50 + [-1] * 9)]
    utterances += [frames([1] * 50, [1] * 50), frames([2] * 40, [2] * 40)]
    found = score(utterances, utterances, num_codes=3, num_phones=3)
    assert found.shuffled == 1
    assert found.frames == 140
    joined = [frames(*map(np.concatenate, zip(*utterances, strict=True)))]
    found = score(utterances, joined, num_codes=3, num_phones=3)
    assert found.accuracy == 1
    assert found.shuffled < 0.6


def test_the_seed_decides_on_the_order():
    rng = np.random.default_rng(0)
    codes = rng.integers(8, size=200)
    utterances = [frames(codes, codes // 2)]

    def shuffled(seed):
        sizes = {"num_codes": 8, "num_phones": 4}
        return score(utterances, utterances, seed=seed, **sizes).shuffled

    assert shuffled(1) == shuffled(1)
    assert len({shuffled(seed) for seed in range(6)}) > 1


@pytest.mark.parametrize("nothing", [[], [frames([0, 1], [-1, -1])], [frames([], [])]])
def test_without_phones_there_is_nothing_to_score(nothing):
    sizes = {"num_codes": 6, "num_phones": 5}
    for split, train, test in (("train", nothing, TRAIN), ("test", TRAIN, nothing)):
        with pytest.raises(UserError, match=f"phone of no {split} frame") as caught:
            score(train, test, **sizes)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="phone of no train frame"):
        likeliest(nothing, **sizes)
