"""The README's Python runs as printed, its commands are complete, and links work."""

import re
import shlex
from pathlib import Path

import pytest

from vqvae_jax import registry

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_python_blocks_run(finished_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(finished_run)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["images"].shape == (5, 8, 8, 1)
    assert namespace["nats"].shape == (5,)
    assert namespace["gradient"].shape == (8, 16, 16, 64)
    assert namespace["z_q"].shape == (8, 16, 16, 64)
    assert "(8, 16, 16, 1)" in capsys.readouterr().out


@pytest.mark.slow
def test_commands_for_trained_models_run_as_printed(
    command, finished_run, tmp_path, monkeypatch
):
    """In one folder, one after the other, each without an error."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(finished_run)
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^vqvae-jax (.*)$", README, re.MULTILINE)
    ran = []
    for line in lines:
        words = shlex.split(line)
        name = words[0]
        if not registry.is_available(registry.COMMANDS[name].configure):
            continue
        found = command(*words)
        assert (found.code, found.err) == (0, ""), line
        ran.append(name)
    assert {"info", "sample", "reconstruct", "interpolate", "encode"} <= set(ran)
    for name in ("reconstructed/china.png", "samples/contact_sheet.png", "3to8"):
        assert (tmp_path / name).exists()


def test_both_commands_install_what_they_need():
    first, second = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    assert "pip install -e '.[train]' -c constraints.txt\n" in first
    assert first.endswith("launch.py --config experiments/digits.py\n")
    assert "pip install -r requirements.txt -c constraints.txt\n" in second
    assert second.endswith("-m pytest -n 2 --dist loadfile\n")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        text = (ROOT / path).read_bytes()
        if anchor:
            headings = re.findall(r"^#+ (.*)$", text.decode(), re.MULTILINE)
            kept = [re.sub(r"[^\w -]", "", each.lower()) for each in headings]
            assert anchor in [each.replace(" ", "-") for each in kept], link
    assert len(links) > 10 or page != "README.md"
