import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("likelihood", ["mse", "categorical"])
def test_the_training_benchmark_runs_without_torch(tmp_path, likelihood):
    (tmp_path / "torch.py").write_text("raise ImportError\n")
    output = tmp_path / "training.json"
    script = ROOT / "benchmarks" / "training.py"
    options = ["--quick", "--rounds", "2", "--likelihood", likelihood]
    search = os.pathsep.join([str(tmp_path), str(ROOT)])
    process = subprocess.run(
        [sys.executable, str(script), *options, "--output", str(output)],
        env={**os.environ, "PYTHONPATH": search, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("not installed") == 3
    report = json.loads(output.read_text())
    assert report["torch"] is None
    assert report["ours_over_torch"] == {}
    ours = report["results"]["vqvae_jax"]
    assert ours["images_per_second"] == pytest.approx(
        4 / ours["median_seconds_per_step"]
    )
    assert ours["share_of_matmul_rate"] > 0
    assert report["flops_per_step"] > 0
