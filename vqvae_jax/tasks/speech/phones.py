"""Which phone is said when: segments of samples, read from a table or put on frames."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32

from vqvae_jax.runtime.errors import UserError, require

# Phones may end this much after the recording, as aligners work in frames of 10 ms.
_TOLERANCE = 0.02
# Times are written with a few digits.
_ROUNDING = 1e-6

NO_PHONE = -1


class Table(NamedTuple):
    """Phones in order, as a file beside a recording lists them.

    starts: `[P]` seconds.
    ends: `[P]` seconds; a phone ends before the next one starts, or as it does.
    names: P of them.
    """

    starts: Float[np.ndarray, " p"]
    ends: Float[np.ndarray, " p"]
    names: tuple[str, ...]

    def segments(
        self, phone_names: tuple[str, ...], *, rate: int, length: int
    ) -> Int32[np.ndarray, "p 3"]:
        """Return (first sample, first sample after, index in `phone_names`)."""
        times = np.stack([self.starts, self.ends], axis=1)
        samples = np.minimum(np.round(times * rate), length)
        ids = np.array([phone_names.index(name) for name in self.names])
        whole = np.concatenate([samples, ids.reshape(-1, 1)], axis=1).astype(np.int32)
        # One that rounding leaves nothing of is nowhere.
        return whole[whole[:, 0] < whole[:, 1]]


def none() -> Int32[np.ndarray, "0 3"]:
    """Return the segments of a recording whose phones are not known."""
    return np.zeros((0, 3), np.int32)


def read_table(path: str, *, seconds: float) -> Table:
    """Read a TSV: start s, end s, phone, and further columns that are not looked at.

    Args:
      path: of the table.
      seconds: how long the recording is.

    Raises:
      UserError: the table cannot be read, or a line of it cannot be: too few columns,
        no numbers, times that overlap, run backwards or leave the recording.
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
            f"{where}: {name!r} starts at {start} s, before {before} s, where the "
            "phone before it ends",
        )
        require(start < end, f"{where}: {name!r} lasts from {start} s to {end} s")
        require(
            end <= seconds + _TOLERANCE,
            f"{where}: {name!r} ends at {end} s, but the recording at {seconds:.3f} s",
        )
        rows.append((start, end, name))
    require(bool(rows), f"{path} lists no phones; remove it if they are not known")
    starts, ends, names = zip(*rows, strict=True)
    return Table(np.array(starts), np.array(ends), names)


def on_frames(
    segments: Int32[np.ndarray, "p 3"], *, num_frames: int, frame: int
) -> Int32[np.ndarray, " n"]:
    """Return the phone at the middle of each frame, `NO_PHONE` where there is none.

    Args:
      segments: (first sample, first sample after, phone) in order.
      num_frames: how many.
      frame: samples of each; frame k is [k * frame, (k + 1) * frame).
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
            f"{where} is {line[:60]!r}; expected start s, end s and phone, with tabs "
            "between them"
        ) from error
    require(
        math.isfinite(start) and math.isfinite(end) and name != "",
        f"{where} is {line[:60]!r}; expected two finite times and a phone",
    )
    return start, end, name
