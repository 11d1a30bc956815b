"""The README's Python runs as printed, and what it links to is there."""

import re
from pathlib import Path

import pytest

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
    assert namespace["gradient"][0].shape == (1, 512, 64)
    assert "(8, 16, 16, 1)" in capsys.readouterr().out


def test_the_two_commands_are_there():
    first, second = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    assert "requirements.txt" in first
    assert first.endswith("launch.py --config experiments/digits.py\n")
    assert second.endswith("-m pytest -n 2 --dist loadfile\n")


def test_what_it_links_to_is_there():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 10
    for link in links:
        path, _, anchor = link.partition("#")
        text = (ROOT / path).read_bytes()
        if anchor:
            headings = re.findall(r"^#+ (.*)$", text.decode(), re.MULTILINE)
            kept = [re.sub(r"[^\w -]", "", each.lower()) for each in headings]
            assert anchor in [each.replace(" ", "-") for each in kept]
