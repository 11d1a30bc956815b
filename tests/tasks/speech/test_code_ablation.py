"""Shuffled codes and codes of other utterances, against hand-computed arrays."""

import numpy as np

from vqvae_jax.tasks.speech.code_ablation import (
    codes_of_another_sentence,
    codes_of_another_utterance,
    fraction_of_equal_codes,
    shuffle_in_time,
)

CODES = np.array([[1, 2, 3, 4, 5, 0], [7, 8, 9, 0, 0, 0], [6, 6, 6, 6, 6, 6]])
LENGTHS = np.array([5, 3, 0])


def test_shuffle_in_time_permutes_codes_and_keeps_padding():
    shuffled = shuffle_in_time(CODES, LENGTHS, np.random.default_rng(0))
    assert sorted(shuffled[0, :5]) == [1, 2, 3, 4, 5]
    assert sorted(shuffled[1, :3]) == [7, 8, 9]
    np.testing.assert_array_equal(shuffled[0, 5:], [0])
    np.testing.assert_array_equal(shuffled[2], CODES[2])
    assert (shuffled[:2] != CODES[:2]).any()


def test_shuffle_in_time_gives_every_order():
    generator = np.random.default_rng(0)
    orders = {
        tuple(shuffle_in_time(CODES[1:2], LENGTHS[1:2], generator)[0, :3])
        for _ in range(200)
    }
    assert len(orders) == 6


def test_codes_of_another_utterance_are_repeated_or_cut_to_length():
    replaced = codes_of_another_utterance(CODES, LENGTHS)
    np.testing.assert_array_equal(replaced[0], [7, 8, 9, 7, 8, 0])
    np.testing.assert_array_equal(replaced[1], [1, 2, 3, 0, 0, 0])
    # A padding row is unchanged and not used as a source.
    np.testing.assert_array_equal(replaced[2], CODES[2])


def test_fraction_of_equal_codes_ignores_padding():
    others = CODES.copy()
    others[0, :2] = 0
    others[:, 5] = 9
    assert fraction_of_equal_codes(CODES, others, LENGTHS) == 6 / 8


def test_single_utterance_gets_the_codes_of_an_earlier_one():
    """A last batch of one must not be evaluated with its original codes."""
    single, length = CODES[:1], LENGTHS[:1]
    replaced = codes_of_another_utterance(single, length, before=np.array([7, 8]))
    np.testing.assert_array_equal(replaced, [[7, 8, 7, 8, 7, 0]])
    assert codes_of_another_utterance(single, length) is None
    # `before` is ignored if the batch has another utterance.
    np.testing.assert_array_equal(
        codes_of_another_utterance(CODES, LENGTHS, before=np.array([1])),
        codes_of_another_utterance(CODES, LENGTHS),
    )


def test_codes_of_another_sentence_are_those_of_the_next_different_one():
    codes = np.array([[1, 1, 0], [2, 2, 2], [3, 0, 0], [4, 5, 0]])
    lengths = np.array([2, 3, 1, 2])
    sentences = np.array([8, 8, 9, -1])
    codes_of_others, replaced = codes_of_another_sentence(codes, lengths, sentences)
    assert replaced.all()
    np.testing.assert_array_equal(
        codes_of_others, [[3, 3, 0], [3, 3, 3], [4, 0, 0], [1, 1, 0]]
    )
    codes_of_others, replaced = codes_of_another_sentence(
        codes[:3], lengths[:3], np.array([8, 8, 8])
    )
    assert not replaced.any()
    np.testing.assert_array_equal(codes_of_others, codes[:3])
    # Two unknown sentences count as different.
    _, replaced = codes_of_another_sentence(codes[:2], lengths[:2], np.array([-1, -1]))
    assert replaced.all()
