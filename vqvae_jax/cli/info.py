"""info: what a trained model is."""

import argparse
import json

import rich
import rich.table
from rich.markup import escape

from vqvae_jax.pretrained.loading import find
from vqvae_jax.pretrained.summary import facts


def info(options: argparse.Namespace) -> None:
    """Print what a model is, for people or as JSON."""
    about = find(options.model).about
    lines = facts(about)
    if options.json:
        print(json.dumps({**lines, "results": dict(about.results)}, indent=2))
        return
    _print(lines)
    if about.results:
        print()
        _print({name: f"{value:.5g}" for name, value in about.results.items()})


def _print(lines: dict[str, str]) -> None:
    table = rich.table.Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines.items():
        table.add_row(name, escape(value))
    rich.print(table)
