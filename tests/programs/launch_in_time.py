"""launch.py under a clock that jumps four times a second, by days and by years.

python tests/programs/launch_in_time.py FLAGS
"""

import runpy
import sys
import time
from pathlib import Path

OFFSETS = (0, -86_400, 31_536_000, -1_000_000_000)  # Seconds.


def jumping(clock, *, per_second: int):
    """The function that reads a clock which is set back and forth."""

    def read():
        jump = OFFSETS[int(time.monotonic() * 4) % len(OFFSETS)]
        return clock() + jump * per_second

    return read


if __name__ == "__main__":
    time.time = jumping(time.time, per_second=1)
    time.time_ns = jumping(time.time_ns, per_second=1_000_000_000)
    root = Path(__file__).parents[2]
    sys.path.insert(0, str(root))
    runpy.run_path(str(root / "launch.py"), run_name="__main__")
