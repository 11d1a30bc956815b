"""Work that is done batch by batch, and goes on where it was interrupted."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vqvae_jax.cli import progress
from vqvae_jax.cli.outputs import Outputs

# The sources of a batch and the batch's number -> the contents of a file for each.
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
    """Make what is missing in a folder.

    Batches are the same whatever is missing, and so is what is drawn in them.

    Args:
      options: have the folder, `out`, and `force` and `batch_size`.
      sources: what each result is made of, by its name.
      make: makes a batch of them.
      made_by: what decides the results.
      suffix: of the files.
      reads: the files that they are made of.

    Raises:
      UserError: there are files in the way, or a file cannot be written.
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
    outputs.tell()
