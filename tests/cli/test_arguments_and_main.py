"""The command line: help texts, errors and exit codes."""

import re

import jax.numpy as jnp
import pytest

from vqvae_jax import registry
from vqvae_jax.cli import coding
from vqvae_jax.cli.arguments import make_parser

COMMANDS = (
    "models",
    "info",
    "encode",
    "decode",
    "reconstruct",
    "sample",
    "evaluate",
    "interpolate",
    "compress",
    "decompress",
)


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_help_lists_every_command(command, words):
    found = command(*words)
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("usage: vqvae-jax ")
    for name in ("train", *COMMANDS):
        assert re.search(rf"^ +{name} ", found.out, re.MULTILINE)
    assert tuple(registry.COMMANDS) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example(command, name):
    if not registry.is_available(registry.COMMANDS[name].configure):
        pytest.skip("its module is not installed")
    found = command(name, "--help")
    assert (found.code, found.err) == (0, "")
    assert max(map(len, found.out.splitlines())) <= 80
    assert f"example:\n  vqvae-jax {name}" in found.out
    if name == "models":
        return
    assert f"vqvae-jax {name} runs/digits" in found.out
    assert "hf://user/name" in found.out
    if name != "info":
        assert "--force" in found.out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_parses(name):
    if not registry.is_available(registry.COMMANDS[name].configure):
        pytest.skip("its module is not installed")
    words = registry.COMMANDS[name].example.split()
    options = make_parser(name).parse_args([name, *words])
    assert options.command == name
    assert name == "models" or options.model == "runs/digits"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("enc0de",), "invalid choice: 'enc0de'"),
        (("encode", "m"), "required: INPUT, OUT; see vqvae-jax encode --help"),
        (("sample", "m", "o", "--num=0"), "--num: must be 1 ... 100000, got 0"),
        (("sample", "m", "o", f"--num={10**21 - 1}"), "must be 1 ... 100000, got 9999"),
        (("sample", "m", "o", f"--top_k={2**31}"), "--top_k: must be 1 ... 2147483647"),
        (("encode", "m", "i", "o", f"--batch_size={10**12}"), "must be 1 ... 65536"),
        (("interpolate", "m", "a", "b", "o", "--steps=1"), "must be 2 ... 1000, got 1"),
        (
            ("interpolate", "m", "a", "b", "o", "--steps=100000000"),
            "be 2 ... 1000, got",
        ),
        (("sample", "m", "o", "--num=x"), "--num: must be a whole number, got 'x'"),
        (("sample", "m", "o", "--seed=-1"), "--seed: must be 0 ... 4294967295, got"),
        (("sample", "m", "o", f"--seed={2**64}"), "--seed: must be 0 ... 4294967295"),
        (("interpolate", "m", "a", "b", "o", "--space=rgb"), "invalid choice: 'rgb'"),
        (("info", "m", "--jsno"), "unrecognized arguments: --jsno"),
        (("info", "m", "two\nlines"), "unrecognized arguments: two lines"),
    ],
)
def test_errors_are_one_line(error_of, words, message):
    assert message in error_of(*words)


def test_exhausted_memory_is_one_line(error_of, monkeypatch):
    """With the bytes asked for."""

    def allocate(options):
        del options
        return jnp.zeros(2**50, jnp.uint8).block_until_ready()

    monkeypatch.setattr(coding, "encode", allocate)
    line = error_of("encode", "runs/digits", "photos", "codes")
    assert line.startswith("error: out of memory (")
    assert f"{2**50} bytes" in line


def test_an_error_of_the_file_system_is_one_line(error_of):
    assert "File name too long" in error_of("info", "x" * 256)


def test_ctrl_c_ends_with_code_130_and_one_line(command, monkeypatch):
    def interrupted(options):
        del options
        raise KeyboardInterrupt

    monkeypatch.setattr(coding, "encode", interrupted)
    found = command("encode", "m", "i", "o")
    assert found.code == 130
    assert found.err.startswith("error: interrupted; ")
    assert found.err.count("\n") == 1
