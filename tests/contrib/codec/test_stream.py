"""The range coder: integer frequencies and minimal payloads."""

import numpy as np
import pytest

from vqvae_jax.contrib.codec.stream import (
    Reader,
    Undecodable,
    Writer,
    capacity,
    fewest_bits,
    frequencies,
    information,
)
from vqvae_jax.runtime.errors import UserError


def softmax(logits):
    logits = np.asarray(logits, np.float64)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def draw(rng, count, num_symbols, scale):
    """Draw logits, and symbols with these probabilities."""
    logits = rng.normal(size=(count, num_symbols)).astype(np.float32) * scale
    symbols = [rng.choice(num_symbols, p=p) for p in softmax(logits)]
    return logits, np.array(symbols, np.int32)


class TestFrequencies:
    @pytest.mark.parametrize("num_symbols", [1, 2, 16, 512, 4096])
    @pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
    def test_are_24_bit_integers_close_to_the_probabilities(self, num_symbols, scale):
        rng = np.random.default_rng(0)
        logits = rng.normal(size=(20, num_symbols)).astype(np.float32) * scale
        found = frequencies(logits).astype(np.float64)
        np.testing.assert_array_equal(found, np.round(found))
        np.testing.assert_array_equal(found.sum(axis=-1), 2**24)
        assert found.min() >= 1
        p = softmax(logits)
        # A symbol loses at most the share of the K units that ensure counts >= 1.
        assert (found >= p * (2**24 - num_symbols) - 1e-6).all()
        assert (np.abs(found - p * 2**24) <= num_symbols + 1).all()

    def test_nan_raises(self):
        with pytest.raises(UserError, match="not all finite"):
            frequencies(np.array([[0.0, np.nan]], np.float32))


def test_information_is_the_negative_log2_probability():
    logits, symbols = draw(np.random.default_rng(0), 50, 7, 2.0)
    p = softmax(logits)[np.arange(50), symbols]
    assert information(logits, symbols) == pytest.approx(-np.log2(p).sum())


class TestStream:
    @pytest.mark.parametrize("num_symbols", [2, 3, 16, 512])
    @pytest.mark.parametrize("scale", [0.0, 1.0, 12.0])
    def test_round_trip_with_minimal_payload(self, num_symbols, scale):
        """The payload exceeds the information, rounded up to bytes, by one byte."""
        rng = np.random.default_rng(num_symbols)
        carries = 0
        for count in (*range(1, 40), 500):
            logits, symbols = draw(rng, count, num_symbols, scale)
            freq = frequencies(logits)
            writer = Writer()
            writer.write(symbols[:3], freq[:3])
            writer.write(symbols[3:], freq[3:])
            _, (lower, size) = writer._encoder.pos()
            carries += lower + size > 2**64
            payload = writer.getvalue()
            chosen = freq[np.arange(count), symbols].astype(np.float64)
            bits = (24 - np.log2(chosen)).sum()
            assert len(payload) <= np.ceil(bits / 8) + 1
            reader = Reader(payload)
            np.testing.assert_array_equal(reader.read(freq[:5]), symbols[:5])
            np.testing.assert_array_equal(reader.read(freq[5:]), symbols[5:])
        assert carries or scale != 1.0

    def test_megabyte_round_trip(self):
        rng = np.random.default_rng(0)
        symbols = rng.integers(256, size=2**20).astype(np.int32)
        writer = Writer()
        freq = frequencies(np.zeros((2**10, 256), np.float32))
        for part in np.split(symbols, 2**10):
            writer.write(part, freq)
        payload = writer.getvalue()
        assert 2**20 <= len(payload) <= 2**20 + 1
        reader = Reader(payload)
        found = [reader.read(freq) for _ in range(2**10)]
        np.testing.assert_array_equal(np.concatenate(found), symbols)

    @pytest.mark.parametrize("num_symbols", [2, 8, 512, 2**14])
    @pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
    def test_a_payload_never_holds_more_bits_than_its_capacity(
        self, num_symbols, scale
    ):
        """Likely, first and random symbols; each one makes the bits grow."""
        rng = np.random.default_rng(num_symbols)
        for choice in ("likeliest", "first", "random"):
            writer, bits = Writer(), 0.0
            for _ in range(40):
                logits = rng.normal(size=(3, num_symbols)) * scale
                freq = frequencies(logits)
                symbols = {
                    "likeliest": freq.argmax(axis=-1),
                    "first": np.zeros(3, int),
                    "random": rng.integers(num_symbols, size=3),
                }[choice]
                writer.write(symbols, freq)
                bits += (24 - np.log2(freq[np.arange(3), symbols].astype(float))).sum()
                assert bits <= capacity(len(writer.getvalue()))

    def test_the_most_symbols_are_read_from_no_bytes_and_not_one_more(self):
        """Those whose bits fit the 32 that the coder's state holds before a word."""
        freq = np.array([[2**24 - 3 * 2**16, 2**16, 2**16, 2**16]], np.float32)
        bits = -np.log2(1 - 3 / 2**8)
        assert fewest_bits(freq) == pytest.approx(bits, rel=1e-9)
        most = int(32 / bits)
        writer, reader = Writer(), Reader(b"")
        for count in range(1, most + 1):
            writer.write(np.zeros(1, int), freq)
            assert reader.read(freq) == [0]
            # The coder's own rounding takes up to 5 % here.
            assert writer.getvalue() == b"" or count > 0.95 * most
        with pytest.raises(Undecodable, match="contains fewer symbols"):
            reader.read(freq)

    @pytest.mark.parametrize("num_symbols", [2, 512, 4096])
    def test_a_certain_symbol_takes_the_bits_of_the_other_categories_units(
        self, num_symbols
    ):
        logits = np.where(np.arange(num_symbols) == 3 % num_symbols, 0.0, -1e4)
        bits = -np.log1p(-(num_symbols - 1) / 2**24) / np.log(2)
        found = fewest_bits(frequencies(logits[None]))
        assert found == pytest.approx(bits, rel=1e-6)

    def test_undecodable_bytes_raise(self):
        """2^64 - 1 lies beyond the last of 2^24 equal integer parts of the state."""
        freq = frequencies(np.zeros((1, 16), np.float32))
        with pytest.raises(Undecodable):
            Reader(b"\xff" * 8).read(freq)

    def test_symbols_of_zero_probability_cost_24_bits(self):
        freq = frequencies(np.array([[0.0, -1e9]] * 10, np.float32))
        writer = Writer()
        writer.write(np.ones(10, np.int32), freq)
        payload = writer.getvalue()
        assert len(payload) in (30, 31)
        np.testing.assert_array_equal(Reader(payload).read(freq), np.ones(10))

    def test_empty_streams_and_single_symbols_take_no_bytes(self):
        writer = Writer()
        assert writer.getvalue() == b""
        only = frequencies(np.zeros((4, 1), np.float32))
        writer.write(np.zeros(4, np.int32), only)
        assert writer.getvalue() == b""
        np.testing.assert_array_equal(Reader(b"").read(only), np.zeros(4))
