import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "likelihood", ["mse", pytest.param("categorical", marks=pytest.mark.slow)]
)
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


def test_the_sampling_benchmark_runs(tmp_path):
    output = tmp_path / "sampling.json"
    script = ROOT / "benchmarks" / "sampling.py"
    options = ["--quick", "--rounds", "2", "--output", str(output)]
    process = subprocess.run(
        [sys.executable, str(script), *options],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    results = json.loads(output.read_text())["results"]
    assert f"{results['naive_over_cached']:.0f} times" in process.stdout
    grids = {(row["batch"], row["side"]): row for row in results["grids"]}
    assert set(grids) == {(1, 4), (2, 4), (2, 8)}
    for (batch, _), row in grids.items():
        assert row["samples_per_second"] == pytest.approx(batch / row["median_seconds"])
    naive = results["naive_seconds_per_code"] * 16
    assert results["naive_seconds_scaled"] == pytest.approx(naive)
    ratio = results["naive_seconds_scaled"] / grids[2, 4]["median_seconds"]
    assert results["naive_over_cached"] == pytest.approx(ratio)
    # Rows of the grid, not its square.
    memory = results["temporary_bytes_by_side"]
    assert 0 < memory["4"] < memory["8"] < 3 * memory["4"]


def test_the_wavenet_benchmark_runs(tmp_path):
    output = tmp_path / "wavenet.json"
    script = ROOT / "benchmarks" / "wavenet.py"
    options = ["--quick", "--rounds", "2", "--output", str(output)]
    process = subprocess.run(
        [sys.executable, str(script), *options],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    results = json.loads(output.read_text())["results"]
    assert results["receptive_field"] == 1 + 2 * (1 + 2 + 4)
    draws = {(row["batch"], row["seconds_of_audio"]): row for row in results["draws"]}
    assert set(draws) == {(1, 1), (2, 1), (2, 2)}
    for (batch, seconds), row in draws.items():
        speed = batch * seconds * 100 / row["median_seconds"]
        assert row["samples_per_second"] == pytest.approx(speed)
    ours = draws[2, 1]["microseconds_per_step"]
    ratio = results["naive_microseconds_per_step"] / ours
    assert results["naive_over_queued"] == pytest.approx(ratio)
    assert f"{ratio:.0f} times" in process.stdout
