"""Tables of phones, and phonemes from codes on small sequences counted by hand."""

import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech import phones
from vqvae_jax.tasks.speech.phones import Frames, score

GOOD = "0.000\t0.280\tSIL\t<sil>\t0.9\n0.280\t0.370\tG\tgo\t1\n\n0.400\t0.690\tOW\n"


def read(tmp_path, text, *, seconds=0.7):
    path = tmp_path / "a.tsv"
    path.write_text(text, encoding="utf-8")
    return phones.read_table(str(path), seconds=seconds)


def test_further_columns_are_ignored(tmp_path):
    got = read(tmp_path, GOOD)
    assert got.starts.tolist() == [0.0, 0.28, 0.4]
    assert got.ends.tolist() == [0.28, 0.37, 0.69]
    assert got.names == ("SIL", "G", "OW")


def test_segments_are_in_samples_and_cut_to_the_recording(tmp_path):
    got = read(tmp_path, GOOD + "0.6905\t0.71\tSIL\n0.71\t0.71001\tG")
    segments = got.segments(("G", "OW", "SIL"), rate=16_000, length=11_200)
    assert segments.dtype == np.int32
    assert segments.tolist() == [
        [0, 4480, 2],
        [4480, 5920, 0],
        [6400, 11040, 1],
        [11048, 11200, 2],
    ]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "0.0\t0.2",
            r"line 1 is '0.0.t0.2'; expected start \(s\), end \(s\) and phone",
        ),
        ("0.0 0.2 AA", "line 1 is"),
        ("start\tend\tphone\n0.0\t0.2\tAA", "line 1 is 'start.tend.tphone'"),
        ("0.0\t0.2\tAA\n0.2\tx\tAA", "line 2 is"),
        ("0.0\tnan\tAA", "two finite times"),
        ("0.0\t0.2\t ", "two finite times and a phone name"),
        (
            "0.0\t0.3\tAA\n0.2\t0.4\tB",
            "line 2: 'B' starts at 0.2 s, before .* at 0.3 s",
        ),
        ("-0.1\t0.3\tAA", "'AA' starts at -0.1 s, before .* at 0.0 s"),
        ("0.3\t0.2\tAA", "'AA' starts at 0.3 s but ends at 0.2 s"),
        ("0.0\t0.73\tAA", "'AA' ends at 0.73 s, after the recording ends at 0.700 s"),
        ("\n", "lists no phones"),
    ],
)
def test_invalid_table_raises(tmp_path, text, match):
    with pytest.raises(UserError, match=match) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "a.tsv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binary_table_raises(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a\.tsv cannot be read"):
        phones.read_table(str(tmp_path / "a.tsv"), seconds=1.0)


@pytest.mark.parametrize("frame", [1, 2, 3, 7, 50])
def test_frames_get_the_phone_at_their_middle(frame):
    segments = np.array([[2, 5, 7], [5, 6, 3], [9, 30, 1], [30, 31, 3]], np.int32)
    by_sample = np.full(1_000, phones.NO_PHONE)
    for start, end, phone in segments:
        by_sample[start:end] = phone
    got = phones.on_frames(segments, num_frames=15, frame=frame)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, by_sample[frame // 2 :: frame][:15])


def test_frames_without_phones():
    got = phones.on_frames(phones.none(), num_frames=4, frame=10)
    assert got.tolist() == [phones.NO_PHONE] * 4


def frames(codes, phones):
    return Frames(np.array(codes, np.int32), np.array(phones, np.int32))


def random_frames(rng, n, *, num_codes=8, num_phones=5, unknown=0.2):
    """Codes independent of phones, of which a fraction is unknown."""
    phones = rng.integers(num_phones, size=n)
    phones[rng.random(n) < unknown] = -1
    return frames(rng.integers(num_codes, size=n), phones)


# Code 0 occurs twice with phone 2 and once with phone 0, code 1 once with phone 1 and
# once with phone 3, code 3 only with unknown phones, and code 2 never. Phones 0 and 1
# occur once, phone 2 three times and phone 3 twice, over both utterances together.
TRAIN = [
    frames([0, 0, 1, 1, 3, 3], [2, 0, 3, 1, -1, -1]),
    frames([0, 4, 4], [2, 2, 3]),
]


def test_codes_get_their_most_frequent_phone():
    every = [frames([0, 1, 2, 3, 4, 5], [2, 1, 2, 2, 2, 2])]
    # Ties go to the lower phone; codes without phones get the most frequent one.
    assert score(TRAIN, every, num_codes=6, num_phones=5).all.accuracy == 1


def test_utterances_from_an_iterator():
    once = score(iter(TRAIN), iter(TRAIN), num_codes=6, num_phones=5)
    again = score(TRAIN, TRAIN, num_codes=6, num_phones=5)
    assert once[:3] == again[:3]
    np.testing.assert_array_equal(once.confusion, again.confusion)


def test_score_against_hand_counted_frames():
    test = [
        frames([0, 0, 1, 5], [2, 0, 1, 4]),
        frames([0, 2, 4, 1], [-1, 2, 3, -1]),
    ]
    found = score(TRAIN, test, num_codes=6, num_phones=5)
    # True 2, 0, 1, 4, 2, 3; predicted 2, 2, 1, 2, 2, 2.
    assert found.all == (3 / 6, 2 / 6, 6)
    assert found.spoken is None
    expected = np.zeros((5, 5), int)
    for true, predicted in [(2, 2), (0, 2), (1, 1), (4, 2), (2, 2), (3, 2)]:
        expected[true, predicted] += 1
    np.testing.assert_array_equal(found.confusion, expected)


def test_chance_uses_the_most_frequent_phone_of_train():
    """Not the most frequent phone of test."""
    train = [frames([0, 1, 1], [0, 1, 1])]
    test = [frames([0, 0, 0, 1], [0, 0, 0, 1])]
    found = score(train, test, num_codes=2, num_phones=2)
    assert found.all == (1.0, 0.25, 4)


def test_accuracy_without_silence_against_hand_counted_frames():
    """Silence is phone 0 here; without it code 1 is phone 2, and 2 is the likeliest."""
    train = [frames([0, 0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 2, 2]), frames([2], [1])]
    test = [frames([0, 0, 1, 1, 2], [0, 0, 0, 2, 1]), frames([1, 3, 3], [1, 2, -1])]
    found = score(train, test, num_codes=4, num_phones=3, silence=(0,))
    # True 0, 0, 0, 2, 1, 1, 2; predicted 0, 0, 0, 0, 1, 0, 0.
    assert found.all == (4 / 7, 3 / 7, 7)
    # True 2, 1, 1, 2; predicted 2, 1, 2, 2, for code 2 has phones 1 and 2 once each.
    assert found.spoken == (3 / 4, 2 / 4, 4)
    assert found.confusion[2].tolist() == [2, 0, 0]


def test_silence_raises_the_chance_level():
    """Nine tenths of the frames are silence; the others are ten phones, equally."""
    rng = np.random.default_rng(0)
    said = np.where(rng.random(20_000) < 0.9, 0, rng.integers(1, 11, size=20_000))
    utterances = [frames(np.zeros(20_000), said)]
    found = score(utterances, utterances, num_codes=1, num_phones=11, silence=(0,))
    assert found.all.accuracy == found.all.chance == pytest.approx(0.9, abs=0.01)
    assert found.spoken.accuracy == found.spoken.chance == pytest.approx(0.1, abs=0.02)
    assert found.spoken.frames == np.count_nonzero(said)


def test_nothing_but_silence_has_no_accuracy_without_it():
    silent = [frames([0, 1], [1, 1])]
    sizes = {"num_codes": 2, "num_phones": 3, "silence": (1,)}
    assert score(silent, silent, **sizes).spoken is None
    spoken = [frames([0, 1], [0, 1])]
    assert score(spoken, silent, **sizes).spoken is None
    assert score(silent, spoken, **sizes).spoken is None
    assert score(spoken, spoken, **sizes).spoken == (1.0, 1.0, 1)


def test_silences_are_found_by_name():
    names = ("AA", "SIL", "sp", "S", "spn", "h#", "pau", "P")
    assert phones.silences(names) == (1, 2, 5, 6)
    assert phones.silences(("AA", "S")) == ()


def test_codes_that_determine_phones():
    """With phone = code // 2, accuracy is 1, and shuffled codes are at chance."""
    rng = np.random.default_rng(0)
    utterances = [frames(codes, codes // 2) for codes in rng.integers(8, size=(9, 300))]
    found = score(utterances[:5], utterances[5:], num_codes=8, num_phones=4)
    assert found.all.accuracy == 1
    assert found.shuffled == pytest.approx(1 / 4, abs=0.05)
    assert found.all.chance == pytest.approx(1 / 4, abs=0.05)
    assert np.count_nonzero(found.confusion) == 4


def test_codes_independent_of_phones_are_at_chance():
    rng = np.random.default_rng(0)
    train, test = ([random_frames(rng, 2_000) for _ in range(5)] for _ in "ab")
    found = score(train, test, num_codes=8, num_phones=5)
    for value in (found.all.accuracy, found.shuffled, found.all.chance):
        assert value == pytest.approx(1 / 5, abs=0.03)


def test_codes_are_shuffled_within_an_utterance():
    """Each utterance has a single phone, so that shuffling within it changes nothing.

    Codes of frames without a phone must be excluded before shuffling.
    """
    utterances = [frames([0] * 50 + [1] * 9, [0] * 50 + [-1] * 9)]
    utterances += [frames([1] * 50, [1] * 50), frames([2] * 40, [2] * 40)]
    found = score(utterances, utterances, num_codes=3, num_phones=3)
    assert found.shuffled == 1
    assert found.all.frames == 140
    joined = [frames(*map(np.concatenate, zip(*utterances, strict=True)))]
    found = score(utterances, joined, num_codes=3, num_phones=3)
    assert found.all.accuracy == 1
    assert found.shuffled < 0.6


def test_seed_determines_the_shuffling():
    rng = np.random.default_rng(0)
    codes = rng.integers(8, size=200)
    utterances = [frames(codes, codes // 2)]

    def shuffled(seed):
        sizes = {"num_codes": 8, "num_phones": 4}
        return score(utterances, utterances, seed=seed, **sizes).shuffled

    assert shuffled(1) == shuffled(1)
    assert len({shuffled(seed) for seed in range(6)}) > 1


@pytest.mark.parametrize("unknown", [[], [frames([0, 1], [-1, -1])], [frames([], [])]])
def test_no_known_phones_raises(unknown):
    sizes = {"num_codes": 6, "num_phones": 5}
    for split, train, test in (("train", unknown, TRAIN), ("test", TRAIN, unknown)):
        with pytest.raises(
            UserError, match=f"no {split} frame has a known phone"
        ) as caught:
            score(train, test, **sizes)
        assert "\n" not in str(caught.value)
