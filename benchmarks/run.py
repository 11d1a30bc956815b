"""All benchmarks in one run: tables, JSON and a figure.

    python benchmarks/run.py [NAMES] [--rounds N] [--json FILE] [--figure FILE]

Ours and theirs take turns; medians and quartiles are printed. Peers are those of
benchmarks/requirements.txt, and left out where they are not installed. The files here
run by themselves, too.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # Run from a checkout, as printed.

from benchmarks import (
    command,
    growth,
    pipeline,
    quantizer,
    sampling,
    startup,
    training,
    wavenet,
)

# Those that start processes come first, while this one is small.
BENCHMARKS = (
    startup.BENCHMARK,
    quantizer.BENCHMARK,
    training.BENCHMARK,
    pipeline.BENCHMARK,
    sampling.BENCHMARK,
    wavenet.BENCHMARK,
    growth.BENCHMARK,
)

if __name__ == "__main__":
    command.main(__doc__, BENCHMARKS)
