"""A range coder for symbols with individual probabilities.

`frequencies` rounds probabilities to integers; nothing else rounds. The coder is
`constriction`'s with 24 bits of precision, which uses these integers unchanged.
"""

import constriction
import numpy as np
from jaxtyping import Float, Float32, Int

from vqvae_jax.runtime.errors import require

_PRECISION = 24
_TOTAL = 2**_PRECISION
# Bits of the coder's words and of its state.
_WORD, _STATE = 32, 64

# Given integers that sum to _TOTAL - K, it adds one to each without rounding.
_MODEL = constriction.stream.model.Categorical(perfect=False)

Frequencies = Float32[np.ndarray, "N K"]


class Undecodable(Exception):
    """The bytes encode no symbols under these frequencies."""


def frequencies(logits: Float[np.ndarray, "N K"]) -> Frequencies:
    """Return probabilities in units of 2^-24: integers >= 1 that sum to 2^24.

    All are rounded down except the most likely symbol, which gets the remainder. A
    symbol costs at most K / 2^24 nats more than its probability implies, and every
    symbol can be coded.

    Raises:
      UserError: a logit is NaN or infinite.
    """
    require(bool(np.isfinite(logits).all()), "the prior's logits are not all finite")
    p = np.exp(_log_softmax(logits))
    free = _TOTAL - logits.shape[-1]
    counts = np.floor(p * free)
    likeliest = p.argmax(axis=-1)[:, None]
    remainder = free - counts.sum(axis=-1, keepdims=True)
    largest = np.take_along_axis(counts, likeliest, axis=-1)
    np.put_along_axis(counts, likeliest, largest + remainder, axis=-1)
    # float32 represents all integers up to 2^24 exactly.
    return (counts + 1).astype(np.float32)


def information(
    logits: Float[np.ndarray, "N K"], symbols: Int[np.ndarray, " N"]
) -> float:
    """Return the sum of -log2 p over symbols, for unrounded probabilities."""
    chosen = np.take_along_axis(_log_softmax(logits), symbols[:, None], axis=-1)
    return float(-chosen.sum() / np.log(2))


def capacity(num_bytes: int) -> int:
    """Return the most bits, -log2 f / 2^24 of each symbol, that a payload can hold.

    A symbol of frequency f multiplies the width of the coder's interval by f / 2^24 at
    most, for the coder rounds down. The width, in units of 2^-64, stays at 2^32 or
    more: below that, the coder emits a word and multiplies it by 2^32. So n emitted
    words go with at most 32 (n + 1) bits, and `Writer.getvalue` returns all n words.
    """
    return 8 * num_bytes + _STATE - _WORD


def fewest_bits(freq: Frequencies) -> float:
    """Return the bits of the most likely symbol."""
    return float(_PRECISION - np.log2(freq.max(), dtype=np.float64))


class Writer:
    """Encodes symbols to bytes."""

    def __init__(self):
        """Start an empty stream."""
        self._encoder = constriction.stream.queue.RangeEncoder()

    def write(self, symbols: Int[np.ndarray, " N"], freq: Frequencies) -> None:
        """Append symbols, with one row of frequencies each."""
        # A single possible symbol takes no bits, and constriction has no model for it.
        if freq.shape[-1] > 1:
            self._encoder.encode(symbols.astype(np.int32), _MODEL, freq - 1)

    def getvalue(self) -> bytes:
        """Return the shortest bytes from which `Reader` decodes these symbols.

        Any number in the coder's final interval identifies them. The coder picks one
        with 32 more bits than needed; this picks the one with the fewest bytes.
        """
        emitted, (lower, size) = self._encoder.pos()
        width = emitted * _WORD + _STATE
        words = self._encoder.get_compressed().astype(">u4").tobytes()
        sealed = int.from_bytes(words.ljust(width // 8, b"\0"))
        # `sealed` is the lower end of the interval, rounded up to whole words.
        lowest = sealed - -lower % 2**_WORD
        # The interval is narrower than 2^_STATE.
        for zeros in range(_STATE, -1, -8):
            value = -(-lowest >> zeros) << zeros
            if value < lowest + size:
                return value.to_bytes(width // 8)[: (width - zeros) // 8]
        raise AssertionError("unreachable: the interval contains at least one number")


class Reader:
    """Decodes the symbols of a `Writer`, given the same frequencies in order."""

    def __init__(self, payload: bytes):
        """Start at the first symbol; pad the payload with zeros to whole words."""
        padded = payload.ljust(-(-len(payload) // 4) * 4, b"\0")
        words = np.frombuffer(padded, ">u4").astype(np.uint32)
        self._decoder = constriction.stream.queue.RangeDecoder(words)
        self._bits_left = float(capacity(len(payload)))

    def read(self, freq: Frequencies) -> Int[np.ndarray, " N"]:
        """Return the next symbols, one per row of frequencies.

        Raises:
          Undecodable: the bytes were written with other frequencies, or contain fewer
            symbols. This is detected at the latest when more bits were returned than
            the payload can hold; wrong symbols are returned before.
        """
        if freq.shape[-1] == 1:
            return np.zeros(len(freq), np.int32)
        try:
            symbols = self._decoder.decode(_MODEL, freq - 1)
        except AssertionError as error:  # Raised by constriction.
            raise Undecodable(str(error)) from error
        chosen = np.take_along_axis(freq, symbols[:, None], axis=-1)
        self._bits_left -= np.sum(_PRECISION - np.log2(chosen, dtype=np.float64))
        if self._bits_left < 0:
            raise Undecodable("the payload contains fewer symbols")
        return symbols


def _log_softmax(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
