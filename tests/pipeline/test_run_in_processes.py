"""All stages in two processes of two devices, beside one process of eight."""

import json
import shutil

import jax
import numpy as np
import pytest

from vqvae_jax.data import maze
from vqvae_jax.experiment import Experiment
from vqvae_jax.models.second import SECOND_STAGES
from vqvae_jax.workdir import (
    SPLITS,
    Workdir,
    restore,
    restore_second,
)

pytestmark = pytest.mark.slow

RUNS = [
    pytest.param("hierarchy", id="hierarchy"),
    pytest.param("speech", id="speech"),
    pytest.param(
        "video",
        id="video",
        marks=pytest.mark.skipif(
            not maze.is_available(), reason="vizdoom is not installed"
        ),
    ),
]


def assert_same_run(found, expected):
    """Parameters, codes, samples and figures, as near as rounding lets them be."""
    experiment = Workdir(expected).experiment()
    pairs = [[restore(workdir)[1] for workdir in (found, expected)]]
    for stage in SECOND_STAGES[experiment.second].trained:
        pairs.append(
            [restore_second(workdir, stage)[1] for workdir in (found, expected)]
        )
    for params, expected_params in pairs:
        for array, expected_array in zip(
            *map(jax.tree.leaves, (params, expected_params)), strict=True
        ):
            np.testing.assert_allclose(array, expected_array, rtol=1e-5, atol=1e-5)
    for split in SPLITS:
        codes, expected_codes = (
            Workdir(each).codes(split) for each in (found, expected)
        )
        assert codes.metadata.num_examples == expected_codes.metadata.num_examples
        for i in range(len(expected_codes)):
            for name, array in expected_codes[i].items():
                np.testing.assert_array_equal(codes[i][name], array)
    with (
        np.load(found / "samples.npz") as samples,
        np.load(expected / "samples.npz") as expected_samples,
    ):
        assert samples.files == expected_samples.files
        for name in set(samples.files) - {"samples_per_second"}:
            np.testing.assert_array_equal(samples[name], expected_samples[name], name)
    results, expected_results = (
        {
            name: value
            for name, value in json.loads((each / "results.json").read_text()).items()
            if "per_second" not in name
        }
        for each in (found, expected)
    )
    assert results == pytest.approx(expected_results, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_do_what_one_does(name, run_processes, request, tmp_path):
    config = request.getfixturevalue(f"{name}_config")
    expected = request.getfixturevalue(f"{name}_run")
    Experiment.from_config(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    workdir = tmp_path / "run"
    if name == "hierarchy":
        # Its VQ-VAE is that of another run.
        for part in ("codes", "checkpoints/vqvae"):
            shutil.copytree(expected / part, workdir / part)
        lines = (expected / "metrics.jsonl").read_text().splitlines(keepends=True)
        (workdir / "metrics.jsonl").write_text(
            "".join(line for line in lines if json.loads(line)["stage"] == "vqvae")
        )
    argv = [
        "tests/programs/run_stages.py",
        f"--config={tmp_path / 'config.json'}",
        f"--workdir={workdir}",
    ]
    codes = run_processes(argv, tmp_path / "logs")
    assert codes == [0, 0], (tmp_path / "logs" / "0.err").read_text()[-2000:]
    assert_same_run(workdir, expected)
