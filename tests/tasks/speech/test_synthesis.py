"""The choice of utterances and voices, and batches of one size."""

import jax
import numpy as np
import pytest

from vqvae_jax.tasks.speech.synthesis import choose_utterances, synthesise_all

# (speaker, sentence, index): speakers 0 and 1 share sentences 5 and 6, speaker 2 shares
# none, and speaker -1 is not in train. They are not in the order of the split.
ROWS = [(0, 5, 3), (1, 6, 0), (2, 7, 1), (1, 5, 2), (-1, 5, 4), (0, 6, 5)]


def codes_of(rows):
    return [
        {"speaker": np.array(s), "sentence": np.array(t), "index": np.array(i)}
        for s, t, i in rows
    ]


def test_utterances_of_shared_sentences_are_converted_to_the_other_speaker():
    chosen = choose_utterances(codes_of(ROWS), 10, num_speakers=3)
    # In the order of the split.
    assert chosen.rows.tolist() == [1, 3, 0, 5]
    assert chosen.voices.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_fewer_are_spread_over_the_split():
    chosen = choose_utterances(codes_of(ROWS), 2, num_speakers=3)
    assert chosen.rows.tolist() == [1, 5]


def test_without_shared_sentences_any_other_speaker_is_the_voice():
    rows = [(0, 1, 0), (1, 2, 1), (2, 3, 2)]
    chosen = choose_utterances(codes_of(rows), 3, num_speakers=3)
    assert chosen.voices[:, 0].tolist() == [0, 1, 2]
    assert (chosen.voices[:, 0] != chosen.voices[:, 1]).all()


def test_speakers_unknown_to_train_get_two_voices_of_train():
    chosen = choose_utterances(
        codes_of([(-1, -1, n) for n in range(4)]), 4, num_speakers=3
    )
    assert chosen.voices.min() >= 0
    assert (chosen.voices[:, 0] != chosen.voices[:, 1]).all()


def test_a_single_speaker_is_both_voices():
    chosen = choose_utterances(codes_of([(0, 1, 0)]), 4, num_speakers=1)
    assert chosen.voices.tolist() == [[0, 0]]


@pytest.mark.parametrize("batch_size", [2, 5, 9])
def test_each_utterance_is_synthesised_once_in_batches_of_one_size(batch_size):
    codes = np.arange(15).reshape(5, 3)
    lengths, speakers = np.arange(5) + 1, np.arange(5) * 7
    sizes = []

    def synthesise(key, codes, lengths, speakers):
        sizes.append(len(codes))
        return np.stack([codes[:, 0], lengths, speakers], axis=1).astype(np.int16)

    audio, _ = synthesise_all(
        synthesise, jax.random.key(0), codes, lengths, speakers, batch_size=batch_size
    )
    np.testing.assert_array_equal(audio, np.stack([codes[:, 0], lengths, speakers], 1))
    assert set(sizes) == {min(batch_size, 5)}
