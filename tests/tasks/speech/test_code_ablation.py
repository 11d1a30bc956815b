"""Codes that are not an utterance's own."""

import numpy as np

from vqvae_jax.tasks.speech.code_ablation import (
    equal_codes,
    of_another,
    of_another_sentence,
    shuffled_in_time,
)

CODES = np.array([[1, 2, 3, 4, 5, 0], [7, 8, 9, 0, 0, 0], [6, 6, 6, 6, 6, 6]])
LENGTHS = np.array([5, 3, 0])


def test_shuffling_keeps_an_utterances_codes_and_its_padding():
    shuffled = shuffled_in_time(CODES, LENGTHS, np.random.default_rng(0))
    assert sorted(shuffled[0, :5]) == [1, 2, 3, 4, 5]
    assert sorted(shuffled[1, :3]) == [7, 8, 9]
    np.testing.assert_array_equal(shuffled[0, 5:], [0])
    np.testing.assert_array_equal(shuffled[2], CODES[2])
    assert (shuffled[:2] != CODES[:2]).any()


def test_every_order_occurs():
    generator = np.random.default_rng(0)
    orders = {
        tuple(shuffled_in_time(CODES[1:2], LENGTHS[1:2], generator)[0, :3])
        for _ in range(200)
    }
    assert len(orders) == 6


def test_another_utterances_codes_are_repeated_or_cut_to_length():
    given = of_another(CODES, LENGTHS)
    np.testing.assert_array_equal(given[0], [7, 8, 9, 7, 8, 0])
    np.testing.assert_array_equal(given[1], [1, 2, 3, 0, 0, 0])
    # No utterance: nothing is given to it, and it gives nothing.
    np.testing.assert_array_equal(given[2], CODES[2])


def test_equal_codes_are_counted_within_the_lengths():
    others = CODES.copy()
    others[0, :2] = 0
    others[:, 5] = 9
    assert equal_codes(CODES, others, LENGTHS) == 6 / 8


def test_who_is_alone_gets_the_codes_of_an_utterance_before():
    """A last batch of one must not be scored with its own codes."""
    alone, length = CODES[:1], LENGTHS[:1]
    given = of_another(alone, length, before=np.array([7, 8]))
    np.testing.assert_array_equal(given, [[7, 8, 7, 8, 7, 0]])
    assert of_another(alone, length) is None
    # Where there is another one, it is the one that gives.
    np.testing.assert_array_equal(
        of_another(CODES, LENGTHS, before=np.array([1])), of_another(CODES, LENGTHS)
    )


def test_the_next_that_says_something_else():
    codes = np.array([[1, 1, 0], [2, 2, 2], [3, 0, 0], [4, 5, 0]])
    lengths = np.array([2, 3, 1, 2])
    given, there = of_another_sentence(codes, lengths, np.array([8, 8, 9, -1]))
    assert there.all()
    np.testing.assert_array_equal(given, [[3, 3, 0], [3, 3, 3], [4, 0, 0], [1, 1, 0]])
    given, there = of_another_sentence(codes[:3], lengths[:3], np.array([8, 8, 8]))
    assert not there.any()
    np.testing.assert_array_equal(given, codes[:3])
    # Of two whose sentences are not known nobody says that they are the same.
    given, there = of_another_sentence(codes[:2], lengths[:2], np.array([-1, -1]))
    assert there.all()
