"""Files made batch by batch, resuming after an interruption."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vqvae_jax.cli import progress
from vqvae_jax.cli.outputs import Outputs

# The sources of a batch and its number -> the content of a file for each.
Make = Callable[[Sequence[str], int], list[bytes]]


def make_files(
    options: argparse.Namespace,
    sources: Mapping[str, str],
    make: Make,
    *,
    made_by: Mapping[str, Any],
    suffix: str,
    reads: Iterable[str] = (),
) -> None:
    """Make the missing files of a folder.

    Batches, and their random numbers, do not depend on which files are missing.

    Args:
      options: with `out`, the folder, `force` and `batch_size`.
      sources: the source of each result, by its name.
      make: makes a batch of results.
      made_by: what determines the results.
      suffix: of the files.
      reads: input files.

    Raises:
      UserError: the folder has other files, or a file cannot be written.
    """
    outputs = Outputs(
        options.out,
        made_by=made_by,
        sources=sources,
        suffix=suffix,
        force=options.force,
        reads=reads,
    )
    names = list(sources)
    with progress.shown(options.command, len(names)) as advance:
        for number, start in enumerate(range(0, len(names), options.batch_size)):
            batch = names[start : start + options.batch_size]
            if not outputs.missing.isdisjoint(batch):
                contents = make([sources[name] for name in batch], number)
                for name, content in zip(batch, contents, strict=True):
                    outputs.write(name, content)
            advance(len(batch))
    outputs.print_summary()
