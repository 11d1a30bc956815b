"""Phone segments: read phone tables and assign a phone to each frame."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32

from vqvae_jax.runtime.errors import UserError, require

# Seconds a phone may extend past the recording: aligners use frames of 10 ms.
_TOLERANCE = 0.02
# Seconds; tables round times to a few digits.
_ROUNDING = 1e-6

NO_PHONE = -1


class Table(NamedTuple):
    """The phones of one recording in order, as listed in its phone table.

    starts: `[P]` seconds.
    ends: `[P]` seconds; no phone ends after the next one starts.
    names: P phone names.
    """

    starts: Float[np.ndarray, " p"]
    ends: Float[np.ndarray, " p"]
    names: tuple[str, ...]

    def segments(
        self, phone_names: tuple[str, ...], *, rate: int, length: int
    ) -> Int32[np.ndarray, "p 3"]:
        """Return rows of (start sample, end sample, index in `phone_names`)."""
        times = np.stack([self.starts, self.ends], axis=1)
        samples = np.minimum(np.round(times * rate), length)
        ids = np.array([phone_names.index(name) for name in self.names])
        whole = np.concatenate([samples, ids.reshape(-1, 1)], axis=1).astype(np.int32)
        # Drop segments that round to zero length.
        return whole[whole[:, 0] < whole[:, 1]]


def none() -> Int32[np.ndarray, "0 3"]:
    """Return the empty segments of a recording without phone labels."""
    return np.zeros((0, 3), np.int32)


def read_table(path: str, *, seconds: float) -> Table:
    """Read a TSV with columns start (s), end (s) and phone; ignore further columns.

    Args:
      path: path of the table.
      seconds: duration of the recording.

    Raises:
      UserError: if the table cannot be read, or a line has too few columns, times that
        are not numbers, or times that overlap, decrease or exceed the recording.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    rows: list[tuple[float, float, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        start, end, name = _parse(line, where)
        before = rows[-1][1] if rows else 0.0
        require(
            start >= before - _ROUNDING,
            f"{where}: {name!r} starts at {start} s, before the previous phone ends at "
            f"{before} s",
        )
        require(
            start < end, f"{where}: {name!r} starts at {start} s but ends at {end} s"
        )
        require(
            end <= seconds + _TOLERANCE,
            f"{where}: {name!r} ends at {end} s, after the recording ends at "
            f"{seconds:.3f} s",
        )
        rows.append((start, end, name))
    require(bool(rows), f"{path} lists no phones; remove it if the phones are unknown")
    starts, ends, names = zip(*rows, strict=True)
    return Table(np.array(starts), np.array(ends), names)


def on_frames(
    segments: Int32[np.ndarray, "p 3"], *, num_frames: int, frame: int
) -> Int32[np.ndarray, " n"]:
    """Return the phone at the middle of each frame, or `NO_PHONE`.

    Args:
      segments: rows of (start sample, end sample, phone), in order.
      num_frames: number of frames.
      frame: samples per frame; frame k is [k * frame, (k + 1) * frame).
    """
    middles = np.arange(num_frames) * frame + frame // 2
    if len(segments) == 0:
        return np.full(num_frames, NO_PHONE, np.int32)
    starts, ends, ids = segments.T
    at = np.searchsorted(starts, middles, side="right") - 1
    is_inside = (at >= 0) & (middles < ends[at])
    return np.where(is_inside, ids[at], NO_PHONE).astype(np.int32)


def _parse(line: str, where: str) -> tuple[float, float, str]:
    columns = line.split("\t")
    try:
        start, end, name = float(columns[0]), float(columns[1]), columns[2].strip()
    except (ValueError, IndexError) as error:
        raise UserError(
            f"{where} is {line[:60]!r}; expected start (s), end (s) and phone, "
            "separated by tabs"
        ) from error
    require(
        math.isfinite(start) and math.isfinite(end) and name != "",
        f"{where} is {line[:60]!r}; expected two finite times and a phone name",
    )
    return start, end, name
