"""The command line: what it explains, and how it ends."""

import re

import pytest

from vqvae_jax.cli import coding

COMMANDS = (
    "info",
    "encode",
    "decode",
    "reconstruct",
    "sample",
    "interpolate",
    "compress",
    "decompress",
)


def test_help_names_every_command(command):
    found = command("--help")
    assert (found.code, found.err) == (0, "")
    for name in COMMANDS:
        assert re.search(rf"^ +{name} ", found.out, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_explains_and_shows_one(command, name):
    found = command(name, "--help")
    assert (found.code, found.err) == (0, "")
    assert f"example:\n  python -m vqvae_jax {name} runs/digits" in found.out
    assert "hf://user/name" in found.out
    assert max(map(len, found.out.splitlines())) <= 80
    if name != "info":
        assert "--force" in found.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "required: COMMAND; python -m vqvae_jax --help explains"),
        (("enc0de",), "invalid choice: 'enc0de'"),
        (("encode", "m"), "required: INPUT, OUT; python -m vqvae_jax encode --help"),
        (("sample", "m", "o", "--num=0"), "--num: must be at least 1, got 0"),
        (("sample", "m", "o", "--num=x"), "--num: must be a whole number, got 'x'"),
        (("sample", "m", "o", "--seed=-1"), "--seed: must be 0 ... 2**32 - 1, got -1"),
        (("sample", "m", "o", f"--seed={2**64}"), "--seed: must be 0 ... 2**32 - 1"),
        (("interpolate", "m", "a", "b", "o", "--space=rgb"), "invalid choice: 'rgb'"),
        (("info", "m", "--jsno"), "unrecognized arguments: --jsno"),
        (("info", "m", "two\nlines"), "unrecognized arguments: two lines"),
    ],
)
def test_a_mistake_is_one_line(refused, words, message):
    assert message in refused(*words)


def test_ctrl_c_is_no_traceback(command, monkeypatch):
    def interrupted(options):
        del options
        raise KeyboardInterrupt

    monkeypatch.setattr(coding, "encode", interrupted)
    found = command("encode", "m", "i", "o")
    assert found.code == 130
    assert found.err.startswith("error: interrupted; ")
    assert found.err.count("\n") == 1
