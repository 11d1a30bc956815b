"""The command `evaluate`: a trained model of images on a test split."""

import argparse
import json
from pathlib import Path

from vqvae_jax import options as options_lib
from vqvae_jax import registry
from vqvae_jax.cli.loaded import load, load_prior, print_results
from vqvae_jax.cli.outputs import require_new
from vqvae_jax.data.batches import eval_batches
from vqvae_jax.pipeline.evaluate import evaluate_on
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.safe_io import write_bytes
from vqvae_jax.training import sharding


def evaluate(options: argparse.Namespace) -> None:
    """Write the results of a model, and of its prior if it has one, as JSON.

    Raises:
      UserError: the model does not record its data, they cannot be read, or OUT exists.
    """
    out = Path(options.out)
    require_new(out, force=options.force)
    loaded = load(options.model, "evaluate")
    config = (loaded.metadata.config or {}).get("data")
    require(
        config is not None,
        f"{loaded.source} does not record its data: call model.evaluate on your own",
    )
    if options.data_dir is not None:
        config = {**config, "data_dir": options.data_dir}
    data = options_lib.build(registry.load(loaded.spec.data), config, name="data")
    test = registry.load(loaded.spec.open_data)(data).test
    has_prior = "prior" in loaded.metadata.models
    results = evaluate_on(
        loaded.model,
        loaded.params,
        lambda: eval_batches(test, batch_size=sharding.rounded_up(options.batch_size)),
        prior=load_prior(loaded, "prior") if has_prior else None,
        sum_over_classes=options.sum_over_classes,
    )
    write_bytes(out, (json.dumps(results, indent=2) + "\n").encode())
    print_results(results)
