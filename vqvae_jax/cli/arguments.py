"""The arguments and help texts of the commands."""

import argparse
import sys
from typing import NoReturn

from vqvae_jax import registry

PROGRAM = "vqvae-jax"
_MODEL = (
    "a run's workdir, a model.safetensors or the folder that contains it, the name "
    "of a released model, see `models`, or hf://user/name on the Hugging Face Hub"
)
RESUMES = """

Files are written atomically. The same command resumes with the missing files; nothing
is overwritten without --force. made_by.json in OUT records the command that the folder
belongs to."""
INPUTS = """

INPUT is a file, a folder, of which all matching files are read, or a quoted pattern
such as 'photos/**/*.jpg'; example_photos are two photos that come with the package.
Results are named after their inputs, those of a folder with their subfolders."""
RESIZED = """

Images (JPEG, PNG, WebP, BMP or GIF) of any size are resized to the model's: the
shorter side is scaled, and the longer one is centre-cropped."""
ANY_SIZE = """

Images (JPEG, PNG, WebP, BMP or GIF) of any size keep it, although a model was trained
on one size; large ones are coded window by window, without seams. With --resize they
get the model's size: the shorter side is scaled, the longer one centre-cropped."""


# Results are numbered with five digits, and the images of an interpolation with three.
_MAX_SAMPLES = 100_000
_MAX_STEPS = 1_000
_MAX_BATCH = 2**16


class Help(argparse.HelpFormatter):
    """Keeps paragraphs apart, and indented lines unchanged."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=20)
        # argparse does not count the additional indent of subcommands.
        self._action_max_length = 15

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part
            if "\n  " in part
            else super(Help, self)._fill_text(part, width, indent)
            for part in text.split("\n\n")
        )


class Parser(argparse.ArgumentParser):
    """Reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with code 2."""
        line = " ".join(message.split())
        print(f"error: {line}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def make_parser(chosen: str | None = None) -> Parser:
    """Return the parser.

    Args:
      chosen: the command whose arguments are needed; only its module is imported.
    """
    top = Parser(
        prog=PROGRAM,
        description="Train a model, or use a trained one: its codes, its samples, its "
        "compression.",
        epilog=f"{PROGRAM} COMMAND --help describes a command.",
        formatter_class=Help,
    )
    commands = top.add_subparsers(metavar="COMMAND", dest="command", required=True)
    commands.add_parser("train", help="train a model: run an experiment or resume it")
    for name, spec in registry.COMMANDS.items():
        command = commands.add_parser(
            name,
            help=spec.summary,
            epilog=f"example:\n  {PROGRAM} {name} {spec.example}".rstrip(),
            formatter_class=Help,
        )
        if name == chosen:
            if spec.needs_model:
                command.add_argument("model", metavar="MODEL", help=_MODEL)
            registry.load(spec.configure)(command)
    return top


def models(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `models`."""
    command.description = """
List the trained models that come with the package, with their most important results.
Their names stand for MODEL in every command, and for the source of restore(...)."""
    command.add_argument("--json", action="store_true", help="as JSON, for programs")


def info(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `info`."""
    command.description = """
Print what a model is: its kind, sizes, parameters and codes, bits of an image, its
second stage, and the results of its run."""
    command.add_argument("--json", action="store_true", help="as JSON, for programs")


def encode(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `encode`."""
    command.description = (
        """
Write the codes of each image or recording to an .npz file: `codes`, integers [h, w, C]
or [n], and the `fingerprint` of the model that they belong to."""
        + INPUTS
        + ANY_SIZE
        + RESUMES
    )
    add_inputs(command, "images; .wav or .flac for a model of speech")
    add_out(command, "the folder of the .npz files")
    add_resize(command)
    add_batch_size(command)


def decode(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `decode`."""
    command.description = (
        """
Write the image (.png) or the audio (.wav) of each .npz file of `encode`."""
        + INPUTS
        + RESUMES
    )
    add_inputs(command, ".npz files of `encode`")
    add_out(command, "the folder of the images or recordings")
    add_batch_size(command)
    _add_speech(command)


def reconstruct(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `reconstruct`."""
    command.description = (
        """
Encode each image or recording, decode its codes, and write the result as .png or .wav.
Decoding a recording with another --speaker converts its voice."""
        + INPUTS
        + ANY_SIZE
        + RESUMES
    )
    add_inputs(command, "images; .wav or .flac for a model of speech")
    add_out(command, "the folder of the results")
    add_resize(command)
    add_batch_size(command)
    _add_speech(command)


def sample(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `sample`."""
    command.description = (
        """
Draw codes from the prior and decode them, or images from a model without a prior, and
write each as .png or .wav, and images also as one contact_sheet.png. A sample depends
on --seed and its number only: --num can be raised later."""
        + RESUMES
    )
    add_out(command, "the folder of the samples")
    _add_number(command, "--num", 16, "number of samples", most=_MAX_SAMPLES)
    command.add_argument(
        "--label",
        metavar="NAME",
        help="a class of the prior or a speaker, see `info`; by default each in turn",
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
        type=_positive,
        help="draw each code or pixel from the K most likely",
    )
    command.add_argument(
        "--top_p",
        metavar="P",
        type=float,
        help="draw each from the most likely with this total probability",
    )
    add_seed(command, "determines the draw")
    add_batch_size(command)


def evaluate(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `evaluate`."""
    command.description = """
Measure a model of images on the test split of the data that it was trained on: quality
of reconstructions, use of the codes, and bits per dimension, under the uniform prior
and under the model's own. Write the results as JSON and print them."""
    add_out(command, "the file of the results, such as results.json")
    command.add_argument(
        "--data_dir",
        metavar="DIR",
        help="where the data are; by default where they were in training",
    )
    command.add_argument(
        "--sum_over_classes",
        action="store_true",
        help="measure the bits of codes whose class is not known too: a pass of a "
        "class-conditional prior for each class",
    )
    add_batch_size(command)


def interpolate(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `interpolate`."""
    command.description = (
        """
Write images between two images, and all of them side by side as strip.png.

  z_e    a straight line between the encoder's two outputs; each point on it is
         quantized, so that every image is decoded from codes
  codes  the codes themselves: one after the other, in an order that --seed
         determines, changes to that of the other image"""
        + RESIZED
        + RESUMES
    )
    command.add_argument("first", metavar="A", help="an image")
    command.add_argument("last", metavar="B", help="another image")
    add_out(command, "the folder of the images")
    _add_number(
        command,
        "--steps",
        8,
        "number of images, including A and B",
        least=2,
        most=_MAX_STEPS,
    )
    command.add_argument(
        "--space",
        choices=("z_e", "codes"),
        default="z_e",
        help="what is interpolated (%(default)s)",
    )
    add_seed(command, "of the order of codes")


def add_inputs(command: argparse.ArgumentParser, of: str) -> None:
    """Add the input files."""
    command.add_argument(
        "inputs", metavar="INPUT", nargs="+", help=f"files, folders, patterns: {of}"
    )


def add_out(command: argparse.ArgumentParser, of: str) -> None:
    """Add the output and --force."""
    command.add_argument("out", metavar="OUT", help=of)
    command.add_argument(
        "--force", action="store_true", help="replace existing results"
    )


def add_batch_size(command: argparse.ArgumentParser) -> None:
    """Add --batch_size."""
    _add_number(command, "--batch_size", 32, "items processed at once", most=_MAX_BATCH)


def add_seed(command: argparse.ArgumentParser, what: str) -> None:
    """Add --seed."""
    command.add_argument(
        "--seed",
        metavar="N",
        type=_seed_number,
        default=0,
        help=f"{what} (%(default)s)",
    )


def _add_number(
    command: argparse.ArgumentParser,
    name: str,
    default: int,
    what: str,
    *,
    least: int = 1,
    most: int,
) -> None:
    def number(text: str) -> int:
        return _within(_whole(text), least, most)

    command.add_argument(
        name,
        metavar="N",
        type=number,
        default=default,
        help=f"{what} (%(default)s)",
    )


def add_resize(command: argparse.ArgumentParser) -> None:
    """Add --resize."""
    command.add_argument(
        "--resize", action="store_true", help="images to the model's size"
    )


def _add_speech(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--speaker", metavar="NAME", help="for speech: the voice, see `info`"
    )
    add_seed(command, "for speech: determines the draw")


def _positive(text: str) -> int:
    return _within(_whole(text), 1, 2**31 - 1)


def _seed_number(text: str) -> int:
    return _within(_whole(text), 0, 2**32 - 1)


def _within(number: int, least: int, most: int) -> int:
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"must be {least} ... {most}, got {number}")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be a whole number, got {text!r}"
        ) from error
