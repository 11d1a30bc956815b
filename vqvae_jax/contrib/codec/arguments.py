"""The arguments and help texts of `compress` and `decompress`."""

import argparse

from vqvae_jax.cli.arguments import (
    ANY_SIZE,
    RESUMES,
    add_batch_size,
    add_inputs,
    add_out,
    add_resize,
)


def compress(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `compress`."""
    command.description = (
        """
Encode images and write their codes to one file, each code with as many bits as the
prior assigns to it; without a prior, with log2 K bits. The codes are restored bit for
bit: only the encoder is lossy. Images keep their order, not their names.

A class-conditional prior needs the class of each image: --label, or folders named after
the classes. Without either, every class is tried and the one with the fewest bits is
kept, which takes as many passes as there are classes."""
        + ANY_SIZE
        + """

A prior models grids of one size: the codes of larger images are coded in windows of it,
each without the codes of its neighbours."""
    )
    add_inputs(command, "images")
    add_out(command, "the file, such as photos.vq")
    command.add_argument("--label", metavar="NAME", help="the class of all images")
    add_resize(command)
    add_batch_size(command)


def decompress(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `decompress`."""
    command.description = (
        """
Write the images of a file of `compress`, 000000.png and so on.

This needs the model and the prior that compressed them, and the same arithmetic. On a
machine whose processor or version of JAX rounds differently, the hash of the codes in
the file does not match: the command reports it and writes nothing."""
        + RESUMES
    )
    command.add_argument("file", metavar="FILE", help="a file of `compress`")
    add_out(command, "the folder of the images")
    command.add_argument(
        "--codes", action="store_true", help="write .npz files, as `encode` does"
    )
    add_batch_size(command)
