"""The command `models`: the trained models that come with the package."""

import argparse
import json

from vqvae_jax import registry
from vqvae_jax.pretrained import released
from vqvae_jax.pretrained.card import summary
from vqvae_jax.pretrained.loading import find
from vqvae_jax.report.readable import highlights
from vqvae_jax.runtime.terminal import print_columns


def models(options: argparse.Namespace) -> None:
    """Print the released models with their most important results."""
    found = {name: find(name).metadata for name in released.names()}
    if options.json:
        about = {
            name: {**summary(metadata), "results": dict(metadata.results)}
            for name, metadata in found.items()
        }
        print(json.dumps(about, indent=2))
        return
    table = [("name", "model", "results")]
    for name, metadata in found.items():
        results = [f"{title}: {value}" for title, value in highlights(metadata.results)]
        kind = registry.MODELS[metadata.kind].title
        second = registry.SECOND_STAGES.get(metadata.second_stage)
        kind += f" with {', '.join(second.titles.values())}" if second else ""
        table.append((name, kind, "\n".join(results)))
    print_columns(table)
