"""Bring a workdir through all stages, as one of several processes.

python tests/programs/run_stages.py --config=CONFIG.json --workdir=WORKDIR
    --coordinator=HOST:PORT --num_processes=N --process_id=P
"""

import json
import sys
from pathlib import Path

from vqvae_jax import pipeline
from vqvae_jax.runtime import distributed

if __name__ == "__main__":
    given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
    distributed.start(
        coordinator=given["coordinator"],
        num_processes=int(given["num_processes"]),
        process_id=int(given["process_id"]),
    )
    pipeline.run(json.loads(Path(given["config"]).read_text()), given["workdir"])
