"""Read random inputs of every kind for a number of seconds, and count them.

    python tests/programs/fuzz.py RUN --seconds=600 --seed=0 --scratch=FOLDER

RUN is the workdir of a finished run of images with a prior. Each input is a valid one
with random changes, among them changes under a valid checksum. It has to be read, or to
be refused in one line of at most 1500 characters. An input that ends in another
exception, takes longer than 20 s or more than 2 GiB ends the program, which prints the
seed of that input. The counts are the last line of stdout, as JSON.
"""

# ruff: noqa: E402

import argparse
import contextlib
import faulthandler
import io
import json
import random
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "fixtures")]

import numpy as np
from launch_checks import RUN_FILES
from PIL import Image
from run_fixtures import experiment_config

import vqvae_jax
from benchmarks.peak_memory import high_water
from vqvae_jax.cli.main import main
from vqvae_jax.contrib.codec import container
from vqvae_jax.data.folder import open_folder
from vqvae_jax.experiment import Experiment
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech import audio
from vqvae_jax.training.logging import read_entries
from vqvae_jax.workdir import SPLITS, Workdir

_SECONDS = 20
_MEBIBYTES = 2048
_LONGEST_LINE = 1500
EXPERIMENTS = ("digits", "cifar", "cifar:gan", "imagenet", "maze", "maze_video")
EXPERIMENTS += ("maze:global", "speech:small", "an4:unconditional_small")
# Numbers at the limits of integer and float types, and other JSON values.
EDGES = (0, -1, 1, 2, 1e-300, 1e300, 2**31, 2**63, 10**400, float("nan"), float("inf"))
EDGES += (None, True, "", "\x1b[2J", "../x", "é" * 300, [], [[]], {}, {"kind": "fsq"})
FORMS = (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("bmp", "BMP"))
MODES = ("RGB", "L", "P", "RGBA", "CMYK", "1")


class Inputs(NamedTuple):
    """Valid inputs.

    run: a copy of a finished run, which is changed and restored.
    model: folder of the same model as one file.
    packed: files of `compress`, of the model's image size and of another.
    configs: configs by name, as JSON.
    scratch: an empty folder.
    """

    run: Path
    model: Path
    packed: tuple[Path, Path]
    configs: dict[str, str]
    scratch: Path


def prepare(run: Path, scratch: Path) -> Inputs:
    """Copy a run, and make its other forms."""
    copy = shutil.copytree(run, scratch / "run")
    Workdir(copy).command.write_text("python launch.py\n")
    model = vqvae_jax.save_pretrained(copy, scratch / "model").parent
    pictures = scratch / "pictures"
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(256, size=(3, 8, 11)).astype("uint8")
    for number, image in enumerate(noise):
        Image.fromarray(image).save(pictures / f"{number}.png")
    packed = scratch / "packed.vq", scratch / "packed_sizes.vq"
    for file, options in zip(packed, (["--resize"], []), strict=True):
        words = ("compress", model, pictures, file, "--label=3", *options)
        if main([str(word) for word in words]) != 0:
            raise SystemExit("compress failed")
    configs = {name: json.dumps(experiment_config(name, {})) for name in EXPERIMENTS}
    empty = scratch / "empty"
    empty.mkdir()
    return Inputs(copy, model, packed, configs, empty)


# Random changes.


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Flip bytes, half of them near the start, and cut or extend the end."""
    found = bytearray(content)
    for _ in range(rng.choice((0, 1, 1, 2, 8))):
        if found:
            end = min(200, len(found)) if rng.random() < 0.5 else len(found)
            found[rng.randrange(end)] ^= 1 << rng.randrange(8)
    match rng.randrange(6):
        case 0:
            del found[rng.randrange(len(found) + 1) :]
        case 1:
            found += rng.randbytes(rng.randrange(100))
        case 2:
            start = rng.randrange(len(found) + 1)
            found[start : start + 8] = rng.randbytes(8)
    return bytes(found)


def changed(value: Any, rng: random.Random) -> Any:
    """Set, remove or add one value, at a random depth of JSON."""
    if isinstance(value, dict) and value:
        key = rng.choice(sorted(value))
        if rng.random() < 0.8:
            return value | {key: changed(value[key], rng)}
        rest = {k: v for k, v in value.items() if k != key}
        return rng.choice((rest, value | {"x" * rng.randrange(9): value[key]}))
    if isinstance(value, list) and value and rng.random() < 0.7:
        index = rng.randrange(len(value))
        return [*value[:index], changed(value[index], rng), *value[index + 1 :]]
    if isinstance(value, int | float) and rng.random() < 0.3:
        return value * rng.choice((-1, 2, 1000, 2**40))
    return rng.choice(EDGES)


# Each kind: make an input and read it. Returns the error's text, "" if it was read.


def read_config(inputs: Inputs, rng: random.Random) -> str:
    """A config with random changes."""
    config = json.loads(inputs.configs[rng.choice(EXPERIMENTS)])
    for _ in range(rng.randint(1, 3)):
        config = changed(config, rng)
    return _error_of(lambda: Experiment.from_config(config))


def read_picture(inputs: Inputs, rng: random.Random) -> str:
    """A damaged picture, in a folder of data or as input of a command."""
    suffix, form = rng.choice(FORMS)
    file = inputs.scratch / "train" / "a" / f"x.{suffix}"
    file.parent.mkdir(parents=True)
    file.write_bytes(flipped(_encoded(form, rng), rng))
    if rng.random() < 0.1:
        return _command("reconstruct", inputs.model, file, inputs.scratch / "out")
    skips = rng.random() < 0.5

    def read():
        root = str(inputs.scratch)
        data = open_folder(root, image_size=8, channels=3, skip_corrupt=skips)
        return data.sources["train"][0]

    return _error_of(read)


def _encoded(form: str, rng: random.Random) -> bytes:
    noise = np.frombuffer(rng.randbytes(19 * 23 * 3), np.uint8).reshape(19, 23, 3)
    stream = io.BytesIO()
    image = Image.fromarray(noise)
    with contextlib.suppress(OSError):  # A format has not all modes.
        image.convert(rng.choice(MODES)).save(stream, form)
        return stream.getvalue()
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def read_sound(inputs: Inputs, rng: random.Random) -> str:
    """A damaged recording."""
    # Imported here: a run without speech has no soundfile.
    import soundfile

    form, subtype = rng.choice(
        (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"))
    )
    samples = np.frombuffer(rng.randbytes(2 * 4000), np.int16)
    stream = io.BytesIO()
    soundfile.write(stream, samples, 16_000, format=form, subtype=subtype)
    file = inputs.scratch / f"x.{form.lower()}"
    file.write_bytes(flipped(stream.getvalue(), rng))

    def read():
        audio.inspect(str(file), rate=16_000, decode=rng.random() < 0.5)
        audio.read(str(file), rate=16_000)

    return _error_of(read)


def read_workdir(inputs: Inputs, rng: random.Random) -> str:
    """A run with one damaged file."""
    file = rng.choice([inputs.run / name for name in RUN_FILES])
    in_checkpoints = rng.random() < 0.3
    if in_checkpoints:
        files = (inputs.run / "checkpoints").rglob("*")
        file = rng.choice(sorted(path for path in files if path.is_file()))
    whole = file.read_bytes()
    if file.suffix == ".json" and rng.random() < 0.5:
        with contextlib.suppress(ValueError):
            file.write_text(json.dumps(changed(json.loads(whole), rng)))
    else:
        file.write_bytes(flipped(whole, rng))
    try:
        place = rng.random()
        if place < 0.1:
            words = ("sample", inputs.run, inputs.scratch / "out", "--num=1")
            return _command(*words)
        if place < 0.3:
            return _command("info", inputs.run)
        if in_checkpoints:
            stage = rng.choice((None, "prior"))
            return _error_of(lambda: Workdir(inputs.run).restore(stage))
        return _error_of(lambda: _read_all(Workdir(inputs.run)))
    finally:
        file.write_bytes(whole)


def _read_all(workdir: Workdir) -> None:
    workdir.experiment()
    for split in SPLITS:
        codes = workdir.codes(split)
        for number in range(0, len(codes), 50):
            codes[number]
    workdir.read_samples()
    workdir.read_results()
    read_entries(workdir.metrics)


def read_packed(inputs: Inputs, rng: random.Random) -> str:
    """A damaged .vq file, half of the time under a valid checksum."""
    content = rng.choice(inputs.packed).read_bytes()
    found = flipped(content, rng)
    if rng.random() < 0.7 and len(found) >= 10:
        body = found[10:]
        if rng.random() < 0.5:
            images = rng.choice((1, 7, 10**3, 10**6, 2**60))
            count = container._varint(4 * images + rng.randrange(4))
            end = container.HASH_BYTES
            body = body[:end] + count + body[end + 1 :]
        before = content[:6]
        found = before + zlib.crc32(before + body).to_bytes(4) + body
    file = inputs.scratch / "x.vq"
    file.write_bytes(found)
    return _command("decompress", inputs.model, file, inputs.scratch / "out")


def read_model(inputs: Inputs, rng: random.Random) -> str:
    """A damaged model.safetensors, half of the time with a header of valid JSON."""
    file = inputs.model / "model.safetensors"
    whole = file.read_bytes()
    found = flipped(whole, rng)
    if rng.random() < 0.6:
        size = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8 : 8 + size])
        inner = header["__metadata__"]
        name = rng.choice(sorted(inner))
        if rng.random() < 0.7:
            with contextlib.suppress(ValueError):
                value = changed(json.loads(inner[name]), rng)
                inner[name] = json.dumps(value)
        else:
            header = changed(header, rng)
        text = json.dumps(header).encode()
        found = len(text).to_bytes(8, "little") + text + whole[8 + size :]
    try:
        file.write_bytes(found)
        if rng.random() < 0.3:
            words = ("sample", inputs.model, inputs.scratch / "out", "--num=1")
            return _command(*words)
        return _command("info", inputs.model)
    finally:
        file.write_bytes(whole)


def _error_of(read: Callable[[], Any]) -> str:
    try:
        read()
    except UserError as error:
        return str(error)
    return ""


def _command(*words: Any) -> str:
    """Run a command in this process; return the error that it prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit:
            code = exit.code
    errors = [x for x in err.getvalue().splitlines() if x.startswith("error: ")]
    if code not in (0, 2) or len(errors) != (code == 2):
        raise AssertionError(f"exit code {code}: {err.getvalue()}")
    return "".join(errors)


KINDS = {
    "configs": read_config,
    "pictures": read_picture,
    "sounds": read_sound,
    "workdirs": read_workdir,
    ".vq files": read_packed,
    "safetensors": read_model,
}


def fuzz(inputs: Inputs, *, seconds: float, seed: int) -> dict[str, dict[str, int]]:
    """Try inputs of all kinds, for as long each; return the numbers of each."""
    counts = {kind: {"tried": 0, "refused": 0} for kind in KINDS}
    spent = dict.fromkeys(KINDS, 0.0)
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        kind = min(spent, key=spent.get)
        rng = random.Random(f"{seed} {number}")
        inputs.scratch.mkdir(exist_ok=True)
        start = time.monotonic()
        # This ends the process, also from within C++.
        faulthandler.dump_traceback_later(_SECONDS, exit=True)
        try:
            error = KINDS[kind](inputs, rng)
            if len(error.splitlines()) > 1 or len(error) > _LONGEST_LINE:
                raise AssertionError(f"not one line: {error}")
        except BaseException:
            print(f"{kind}, seed {seed}, number {number}:", file=sys.stderr)
            raise
        faulthandler.cancel_dump_traceback_later()
        spent[kind] += time.monotonic() - start
        counts[kind]["tried"] += 1
        counts[kind]["refused"] += error != ""
        if sys.platform == "linux" and (peak := high_water() >> 20) > _MEBIBYTES:
            raise AssertionError(f"{kind}, number {number}: {peak} MiB")
        shutil.rmtree(inputs.scratch)
        number += 1
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, required=True)
    options = parser.parse_args()
    # Damage to what is not needed is a warning.
    warnings.simplefilter("ignore")
    prepared = prepare(options.run, options.scratch)
    print(json.dumps(fuzz(prepared, seconds=options.seconds, seed=options.seed)))
