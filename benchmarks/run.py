"""Run all benchmarks; print tables and write JSON and a figure.

    python benchmarks/run.py [NAMES] [--rounds N] [--json FILE] [--figure FILE]

This project and its peers are timed in turns; tables show medians and quartiles. The
peers are listed in benchmarks/requirements.txt, and skipped if not installed. Each
benchmark is also a script.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # Allow running as a script.

from benchmarks import (
    codec,
    command,
    growth,
    likelihoods,
    pipeline,
    quantizers,
    sampling,
    startup,
    training,
    wavenet,
)

# Benchmarks that start processes come first, while this process is small.
BENCHMARKS = (
    startup.BENCHMARK,
    quantizers.BENCHMARK,
    likelihoods.BENCHMARK,
    training.BENCHMARK,
    pipeline.BENCHMARK,
    sampling.BENCHMARK,
    wavenet.BENCHMARK,
    codec.BENCHMARK,
    growth.BENCHMARK,
)

if __name__ == "__main__":
    command.main(__doc__, BENCHMARKS)
