import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech import phones

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
