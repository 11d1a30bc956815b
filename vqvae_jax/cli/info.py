"""The command info: what a trained model is."""

import argparse
import json

import rich
import rich.table
from rich.markup import escape

from vqvae_jax.pretrained.loading import find
from vqvae_jax.pretrained.summary import summary


def info(options: argparse.Namespace) -> None:
    """Print a summary of a model and its results, as a table or as JSON."""
    metadata = find(options.model).metadata
    lines = summary(metadata)
    if options.json:
        print(json.dumps({**lines, "results": dict(metadata.results)}, indent=2))
        return
    _print(lines)
    if metadata.results:
        print()
        _print({name: f"{value:.5g}" for name, value in metadata.results.items()})


def _print(lines: dict[str, str]) -> None:
    table = rich.table.Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines.items():
        table.add_row(name, escape(value))
    rich.print(table)
