import re

from vqvae_jax.contrib.synthetic_speech.builder import sentences


def test_sentences_are_distinct_and_shorter_lists_are_prefixes():
    many = sentences(2_000, seed=0)
    assert len(set(many)) == len(many) == 2_000
    assert sentences(100, seed=0) == many[:100]
    assert sentences(100, seed=1) != many[:100]


def test_sentences_of_a_seed_never_change():
    assert sentences(2, seed=0) == [
        "Andrew saw the cheap umbrella under the guitar.",
        "The neighbor ignored my round cup, and Peter sold the coin.",
    ]


def test_sentences_consist_of_words():
    many = sentences(2_000, seed=0)
    assert all(re.fullmatch(r"[A-Z][A-Za-z ,]+\.", sentence) for sentence in many)
    assert not [sentence for sentence in many if re.search("[A-Z]{2}", sentence)]
    lengths = [len(sentence.split()) for sentence in many]
    assert min(lengths) >= 7
    assert max(lengths) <= 14
    words = {word.strip(".,") for sentence in many for word in sentence.split()}
    assert len(words) > 200
