r"""Train an experiment, its prior too, within given numbers of seconds, and keep it.

    python -m benchmarks.train_in_budget --config cifar:best --vqvae_seconds 480 \
        --prior_seconds 180 --workdir runs/best --out best \
        --set data.data_dir=DIR training.batch_size=256

For a rented accelerator: a short run of each model measures its speed and fills the
compilation cache; the steps that fit its seconds become the length of its schedule.
Then all stages run in the workdir, which the same command resumes. OUT gets
`results.json` (device, steps and seconds too) and `model.safetensors` in half
precision, also in parts of at most 15 MiB, which `cat` joins.
"""

import argparse
import ast
import copy
import importlib
import json
import shutil
import time
from pathlib import Path

import jax

import vqvae_jax
from vqvae_jax import pipeline
from vqvae_jax.cli.train import import_experiments
from vqvae_jax.runtime import compilation
from vqvae_jax.training.logging import read_entries
from vqvae_jax.workdir import Workdir

STAGES = {"vqvae": "training", "prior": "prior_training"}
# Logs in the run that measures the speed; the last one, without compilation, counts.
LOGS = 3
# The share of the time that is left for validations and checkpoints.
RESERVE = 0.06
PART = 15 * 2**20


def shortened(config: dict) -> dict:
    """Return the config of the run that measures the speed."""
    config = copy.deepcopy(config)
    for name in STAGES.values():
        section = config[name]
        several = section["steps_per_call"]
        every = max(several, 10 // several * several)
        section |= {
            "steps": LOGS * every,
            "log_every": every,
            "checkpoint_every": LOGS * every,
            "warmup_steps": 0,
            "profile_steps": 0,
        }
    return config


def steps_within(seconds: float, section: dict, entries: list[dict]) -> int:
    """Return the steps that fit into the seconds at the speed of the last log."""
    speed = entries[-1]["examples_per_second"]
    steps = int(seconds * (1 - RESERVE) * speed / section["batch_size"])
    several = section["steps_per_call"]
    return max(several, steps // several * several)


def fit_schedule(config: dict, stage: str, steps: int) -> None:
    """Set a stage's steps, and a dozen validations that steps_per_call divides."""
    section = config[STAGES[stage]]
    several = section["steps_per_call"]
    every = max(several, steps // 12 // several * several)
    section |= {"steps": steps, "checkpoint_every": every, "profile_steps": 0}
    section["warmup_steps"] = min(section["warmup_steps"], steps // 10)
    logged = min(section["log_every"], every)
    section["log_every"] = max(several, logged // several * several)


def main() -> None:
    """Measure, train, evaluate and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="NAME[:VARIANT]")
    parser.add_argument("--vqvae_seconds", type=float, required=True)
    parser.add_argument("--prior_seconds", type=float, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    compilation.keep_programs()
    import_experiments()
    name, _, variant = options.config.partition(":")
    module = importlib.import_module(f"vqvae_jax.experiments.{name}")
    config = module.get_config(variant)
    for change in options.set:
        key, _, text = change.partition("=")
        value = text if isinstance(config[key], str) else ast.literal_eval(text)
        config.update_from_flattened_dict({key: value})
    config = config.to_dict()
    times, start = {}, time.monotonic()

    def passed(stage: str) -> None:
        times[f"{stage}_seconds"] = round(
            time.monotonic() - start - sum(times.values())
        )
        print(f"{stage}: {times[f'{stage}_seconds']} s", flush=True)

    budgets = {"vqvae": options.vqvae_seconds, "prior": options.prior_seconds}
    chosen = options.workdir / "steps.json"
    if chosen.exists():
        steps = json.loads(chosen.read_text())
    else:
        probe = options.workdir.with_name(options.workdir.name + "_probe")
        shutil.rmtree(probe, ignore_errors=True)
        pipeline.run(shortened(config), str(probe), ["vqvae", "codes", "prior"])
        entries = read_entries(Workdir(probe).metrics)
        steps = {}
        for stage, seconds in budgets.items():
            of_stage = [
                entry
                for entry in entries
                if (entry["stage"], entry["split"]) == (stage, "train")
            ]
            steps[stage] = steps_within(seconds, config[STAGES[stage]], of_stage)
        shutil.rmtree(probe)
        options.workdir.mkdir(parents=True, exist_ok=True)
        chosen.write_text(json.dumps(steps))
    for stage, count in steps.items():
        fit_schedule(config, stage, count)
    passed("measuring")
    for stage in ("vqvae", "codes", "prior", "samples", "evaluate"):
        pipeline.run(config, str(options.workdir), [stage])
        passed(stage)
    options.out.mkdir(parents=True, exist_ok=True)
    results = json.loads((options.workdir / "results.json").read_text())
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    results = {"device": device, "steps": steps, **times, **results}
    (options.out / "results.json").write_text(json.dumps(results, indent=2))
    path = vqvae_jax.save_pretrained(options.workdir, options.out, half=True)
    content = path.read_bytes()
    for i in range(0, len(content), PART):
        part = options.out / f"model.safetensors.{i // PART}"
        part.write_bytes(content[i : i + PART])
    print(json.dumps({k: v for k, v in results.items() if "bits_per_dim" in k}))


if __name__ == "__main__":
    main()
