"""The stages after the codes in two processes, compared with one of eight devices."""

import json
import shutil

import pytest
from run_comparison import assert_same_run, run_in_two_processes


@pytest.mark.slow
def test_two_processes_equal_one(
    hierarchy_config, hierarchy_run, run_processes, tmp_path
):
    workdir = tmp_path / "run"
    # The VQ-VAE and its codes are those of another run.
    for part in ("codes", "checkpoints/vqvae"):
        shutil.copytree(hierarchy_run / part, workdir / part)
    lines = (hierarchy_run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text(
        "".join(line for line in lines if json.loads(line)["stage"] == "vqvae")
    )
    run_in_two_processes(run_processes, hierarchy_config, workdir)
    assert_same_run(workdir, hierarchy_run)
