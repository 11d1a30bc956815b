"""Two thousand steps: memory, compilations and files do not grow."""

import json
import textwrap
from pathlib import Path

import pytest
from launch_checks import python

KEEP, EVERY, STEPS, WARM_UP = 2, 100, 2000, 1000

# Runs in a new process, so that earlier tests do not use its memory. Prints at each
# validation: bytes in memory, programs compiled, checkpoints on disk.
SCRIPT = textwrap.dedent(
    """
    import json, resource, sys
    from pathlib import Path
    import jax
    from vqvae_jax.data.dataset import open_dataset
    from vqvae_jax.experiment import Experiment
    from vqvae_jax.training.loop import Run, fit

    workdir = Path(sys.argv[1])
    experiment = Experiment.from_config(json.loads(sys.argv[2]))
    dataset = open_dataset(experiment.data)
    compiled, seen = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: compiled.append(name)
        if name.startswith("/jax/core/compile") else None
    )

    def validation():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        checkpoints = [p for p in workdir.glob("checkpoints/*/*") if p.name.isdigit()]
        in_memory = pages * resource.getpagesize()
        seen.append((in_memory, len(compiled), len(checkpoints)))
        return experiment.eval_batches(dataset.validation)

    def batches():
        return experiment.train_batches(dataset.train, experiment.training)

    fit(
        experiment.model,
        experiment.training,
        Run(
            stage="vqvae",
            workdir=workdir,
            seed=0,
            train=batches(),
            validation=validation,
            init_batch=next(batches()),
        ),
    )
    print(json.dumps(seen), file=sys.stderr)
    """
)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_nothing_grows(make_config, tiny_changes, digits_dir, tmp_path):
    training = {
        "training.steps": STEPS,
        "training.log_every": EVERY // 2,
        "training.checkpoint_every": EVERY,
        "training.keep": KEEP,
    }
    data = {"data.data_dir": digits_dir}
    config = make_config("digits", tiny_changes | training | data)
    run = python("-c", SCRIPT, tmp_path, json.dumps(config))
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stderr.splitlines()[-1])
    assert len(seen) == STEPS // EVERY
    first, *later = seen[WARM_UP // EVERY :]
    assert max(memory for memory, _, _ in later) < 1.02 * first[0]
    assert {compiled for _, compiled, _ in later} == {first[1]}
    # The newest ones, the best one, and one that is being written.
    assert max(checkpoints for _, _, checkpoints in seen) <= KEEP + 2
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    steps = {p.name for p in tmp_path.glob("checkpoints/vqvae/*") if p.name.isdigit()}
    assert len(steps) <= KEEP + 1
    assert {p.relative_to(tmp_path).parts[0] for p in files} == {
        "checkpoints",
        "metrics.jsonl",
        "tensorboard",
    }
    assert len([p for p in files if "tensorboard" in p.parts]) == 1
