"""A stream of symbols, each with probabilities of its own, through a range coder.

`frequencies` is the one place where probabilities become integers. The coder is
`constriction`'s, with 24 bits of precision; it takes these integers as they are.
"""

import constriction
import numpy as np
from jaxtyping import Float, Float32, Int

from vqvae_jax.runtime.errors import require

_PRECISION = 24
_TOTAL = 2**_PRECISION
# Bits of the coder's words and of the bounds that it keeps beside them.
_WORD, _STATE = 32, 64

# Given numbers that sum to _TOTAL - K, it adds one to each and rounds nothing.
_MODEL = constriction.stream.model.Categorical(perfect=False)

Frequencies = Float32[np.ndarray, "N K"]


class Undecodable(Exception):
    """Bytes that no symbols of these frequencies become."""


def frequencies(logits: Float[np.ndarray, "N K"]) -> Frequencies:
    """Return probabilities in units of 2^-24: integers >= 1 that sum to 2^24.

    Rounded down but for the likeliest symbol, which has what is left over: a symbol
    costs at most K / 2^24 of a nat more than its probability says, and none is
    impossible.

    Raises:
      UserError: a logit is NaN or infinite.
    """
    require(bool(np.isfinite(logits).all()), "the prior's logits are not all finite")
    p = np.exp(_log_softmax(logits))
    free = _TOTAL - logits.shape[-1]
    counts = np.floor(p * free)
    likeliest = p.argmax(axis=-1)[:, None]
    left = free - counts.sum(axis=-1, keepdims=True)
    kept = np.take_along_axis(counts, likeliest, axis=-1)
    np.put_along_axis(counts, likeliest, kept + left, axis=-1)
    # All that float32 cannot hold exactly is above 2^24.
    return (counts + 1).astype(np.float32)


def information(
    logits: Float[np.ndarray, "N K"], symbols: Int[np.ndarray, " N"]
) -> float:
    """Return -log2 p of all symbols together, without any rounding to integers."""
    chosen = np.take_along_axis(_log_softmax(logits), symbols[:, None], axis=-1)
    return float(-chosen.sum() / np.log(2))


class Writer:
    """Symbols in, bytes out."""

    def __init__(self):
        """Start an empty stream."""
        self._encoder = constriction.stream.queue.RangeEncoder()

    def write(self, symbols: Int[np.ndarray, " N"], freq: Frequencies) -> None:
        """Append symbols, each of which has a row of frequencies."""
        # Of one possible symbol there is nothing to tell, and no model.
        if freq.shape[-1] > 1:
            self._encoder.encode(symbols.astype(np.int32), _MODEL, freq - 1)

    def getvalue(self) -> bytes:
        """Return the shortest bytes from which `Reader` reads these symbols.

        Any number in the coder's last interval tells them all. The coder itself takes
        one with 32 bits more than it has to; here it is that with the fewest bytes.
        """
        emitted, (lower, size) = self._encoder.pos()
        width = emitted * _WORD + _STATE
        words = self._encoder.get_compressed().astype(">u4").tobytes()
        sealed = int.from_bytes(words.ljust(width // 8, b"\0"))
        # It is the interval's lower end, rounded up to whole words.
        lowest = sealed - -lower % 2**_WORD
        # The interval is narrower than the coder's bounds are wide.
        for zeros in range(_STATE, -1, -8):
            value = -(-lowest >> zeros) << zeros
            if value < lowest + size:
                return value.to_bytes(width // 8)[: (width - zeros) // 8]
        raise AssertionError("an interval of at least one number has one")


class Reader:
    """The symbols of `Writer`, in the same order and with the same frequencies."""

    def __init__(self, payload: bytes):
        """Start at the first symbol; behind the payload there are zeros."""
        padded = payload.ljust(-(-len(payload) // 4) * 4, b"\0")
        words = np.frombuffer(padded, ">u4").astype(np.uint32)
        self._decoder = constriction.stream.queue.RangeDecoder(words)

    def read(self, freq: Frequencies) -> Int[np.ndarray, " N"]:
        """Return the next symbols, one for each row of frequencies.

        Raises:
          Undecodable: the bytes were written with other frequencies. Most often other
            symbols come out instead.
        """
        if freq.shape[-1] == 1:
            return np.zeros(len(freq), np.int32)
        try:
            return self._decoder.decode(_MODEL, freq - 1)
        except AssertionError as error:  # What constriction raises.
            raise Undecodable(str(error)) from error


def _log_softmax(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
