"""The command line of `python -m vqvae_jax`, and its help."""

import argparse
import sys
from typing import NoReturn

_PROGRAM = "python -m vqvae_jax"
_MODEL = (
    "a run's workdir, a model.safetensors or the folder that it is in, or "
    "hf://user/name on the Hugging Face Hub"
)
_RESUMES = """

Files are written whole or not at all. The same command again goes on with what is
missing; nothing is overwritten without --force. made_by.json in OUT says which command
the folder belongs to."""
_INPUTS = """

INPUT is a file, a folder, of which all files that fit are taken, or a quoted pattern
such as 'photos/**/*.jpg'. Results are named as their inputs, those of a folder with the
folders inside it."""
_IMAGES = """

Images of any size and format are fitted to the model's: the shorter side is resized,
what sticks out is cropped."""


class _Help(argparse.HelpFormatter):
    """Keeps paragraphs apart, and indented lines as they are."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=20)
        # Its own count forgets that commands are indented once more than options.
        self._action_max_length = 15

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part
            if "\n  " in part
            else super(_Help, self)._fill_text(part, width, indent)
            for part in text.split("\n\n")
        )


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        print(f"error: {line}; {self.prog} --help explains", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """Return the parser; what it returns has the command and the module it is in."""
    top = _Parser(
        prog=_PROGRAM,
        description="Use a trained model: its codes, its samples, its compression.",
        epilog=f"{_PROGRAM} COMMAND --help explains a command.",
        formatter_class=_Help,
    )
    commands = top.add_subparsers(metavar="COMMAND", dest="command", required=True)
    _info(commands)
    _encode(commands)
    _decode(commands)
    _reconstruct(commands)
    _sample(commands)
    _interpolate(commands)
    _compress(commands)
    _decompress(commands)
    return top


def _info(commands) -> None:
    command = _add(commands, "info", "info", "say what a model is", "runs/digits")
    command.description = """
Print what a model is: its kind, sizes, parameters and codes, bits of an image, what
follows it, and the results of its run."""
    command.add_argument("--json", action="store_true", help="as JSON, for programs")


def _encode(commands) -> None:
    summary = "images or recordings to codes"
    command = _add(commands, "encode", "coding", summary, "runs/digits photos codes")
    command.description = (
        """
Write the codes of each image or recording to an .npz file: `codes`, integers [h, w, G]
or [n], and `fingerprint`, of the model that they belong to."""
        + _INPUTS
        + _IMAGES
        + _RESUMES
    )
    _inputs(command, "images; .wav or .flac for a model of speech")
    _out(command, "the folder of the .npz files")
    _batch_size(command)


def _decode(commands) -> None:
    summary = "codes to images or recordings"
    command = _add(commands, "decode", "coding", summary, "runs/digits codes pictures")
    command.description = (
        """
Write the image (.png) or the sound (.wav) of each .npz file of `encode`."""
        + _INPUTS
        + _RESUMES
    )
    _inputs(command, ".npz files of `encode`")
    _out(command, "the folder of the images or recordings")
    _batch_size(command)
    _speech(command)


def _reconstruct(commands) -> None:
    summary = "what the model makes of images or recordings"
    example = "runs/digits photos reconstructed"
    command = _add(commands, "reconstruct", "coding", summary, example)
    command.description = (
        """
Encode each image or recording, decode its codes, and write the result as .png or .wav.
With another --speaker than its own, a recording is converted to that voice."""
        + _INPUTS
        + _IMAGES
        + _RESUMES
    )
    _inputs(command, "images; .wav or .flac for a model of speech")
    _out(command, "the folder of the results")
    _batch_size(command)
    _speech(command)


def _sample(commands) -> None:
    summary = "new images or recordings"
    example = "runs/digits samples --num 20 --temperature 0.9"
    command = _add(commands, "sample", "sampling", summary, example)
    command.description = (
        """
Draw codes from the prior and decode them, or images from a model that needs no prior,
and write each as .png or .wav."""
        + _RESUMES
    )
    _out(command, "the folder of the samples")
    _number(command, "--num", 16, "how many")
    command.add_argument(
        "--label",
        metavar="NAME",
        help="a class of the prior or a speaker, see `info`; each in turn if not said",
    )
    command.add_argument(
        "--temperature",
        metavar="T",
        type=float,
        default=1.0,
        help="below 1 for likelier, above 1 for more varied samples (%(default)s)",
    )
    command.add_argument(
        "--top_k",
        metavar="K",
        type=int,
        help="draw each code or pixel from the K likeliest",
    )
    command.add_argument(
        "--top_p",
        metavar="P",
        type=float,
        help="draw each from the likeliest that have this probability together",
    )
    _seed(command, "decides the draw")
    _batch_size(command)


def _interpolate(commands) -> None:
    summary = "the way from one image to another"
    example = "runs/digits a.png b.png between"
    command = _add(commands, "interpolate", "interpolation", summary, example)
    command.description = (
        """
Write images on the way from one image to another, and all of them side by side as
strip.png.

  z_e    a straight line between the encoder's two outputs; each point on it is
         quantized, so that every image is decoded from codes
  codes  the codes themselves: one after the other, in an order that --seed
         decides, becomes that of the other image"""
        + _IMAGES
        + _RESUMES
    )
    command.add_argument("first", metavar="A", help="an image")
    command.add_argument("last", metavar="B", help="another")
    _out(command, "the folder of the images")
    _number(command, "--steps", 8, "images, A and B among them")
    command.add_argument(
        "--space",
        choices=("z_e", "codes"),
        default="z_e",
        help="what is interpolated (%(default)s)",
    )
    _seed(command, "of the order of codes")


def _compress(commands) -> None:
    summary = "images to one small file"
    example = "runs/digits photos photos.vq"
    command = _add(commands, "compress", "compression", summary, example)
    command.description = (
        """
Encode images and write their codes to one file, each code with as many bits as the
prior gives it; without a prior, with log2 K bits. The codes come back bit for bit: what
is lost is lost in the encoder. Images keep their order, not their names.

A prior that is told of classes needs the class of each image: --label, or folders named
as classes. Where neither says it, every class is tried and the one with the fewest bits
is kept, which takes as many passes as there are classes."""
        + _IMAGES
    )
    _inputs(command, "images")
    _out(command, "the file, such as photos.vq")
    command.add_argument("--label", metavar="NAME", help="the class of all images")
    _batch_size(command)


def _decompress(commands) -> None:
    summary = "such a file to images"
    example = "runs/digits photos.vq pictures"
    command = _add(commands, "decompress", "compression", summary, example)
    command.description = (
        """
Write the images of a file of `compress`, 000000.png and so on.

It takes the model and the prior that compressed them, and the same arithmetic. A
machine whose processor or version of JAX rounds otherwise finds out by the hash of the
codes that the file has, says so and writes nothing."""
        + _RESUMES
    )
    command.add_argument("file", metavar="FILE", help="what `compress` wrote")
    _out(command, "the folder of the images")
    command.add_argument(
        "--codes", action="store_true", help="write .npz files as `encode` does instead"
    )
    _batch_size(command)


def _add(commands, name: str, module: str, summary: str, example: str):
    command = commands.add_parser(
        name,
        help=summary,
        epilog=f"example:\n  {_PROGRAM} {name} {example}",
        formatter_class=_Help,
    )
    command.set_defaults(module=module)
    command.add_argument("model", metavar="MODEL", help=_MODEL)
    return command


def _inputs(command, of: str) -> None:
    command.add_argument(
        "inputs", metavar="INPUT", nargs="+", help=f"files, folders, patterns: {of}"
    )


def _out(command, of: str) -> None:
    command.add_argument("out", metavar="OUT", help=of)
    command.add_argument(
        "--force", action="store_true", help="replace what is there already"
    )


def _batch_size(command) -> None:
    _number(command, "--batch_size", 32, "done at once")


def _seed(command, what: str) -> None:
    command.add_argument(
        "--seed",
        metavar="N",
        type=_seed_number,
        default=0,
        help=f"{what} (%(default)s)",
    )


def _number(command, name: str, default: int, what: str) -> None:
    command.add_argument(
        name, metavar="N", type=_positive, default=default, help=f"{what} (%(default)s)"
    )


def _speech(command) -> None:
    command.add_argument(
        "--speaker", metavar="NAME", help="of speech: who says it, see `info`"
    )
    _seed(command, "of speech: decides how it sounds")


def _positive(text: str) -> int:
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _seed_number(text: str) -> int:
    number = _whole(text)
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"must be 0 ... 2**32 - 1, got {number}")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be a whole number, got {text!r}"
        ) from error
