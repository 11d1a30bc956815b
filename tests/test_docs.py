"""The pages of docs/ build without a warning, and ask nobody for anything."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vqvae_jax
from vqvae_jax import quantizers

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    for package in ("furo", "myst_parser", "sphinx"):
        pytest.importorskip(package)
    found = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", tmp_path],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout + found.stderr == ""
    pages = {path.stem: path.read_text() for path in tmp_path.glob("*.html")}
    written = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert written | {"api"} <= pages.keys()
    # What a browser fetches at once: scripts, pictures and styles, not links.
    fetched = r'(?:src|<link[^>]* href)="(https?:[^"]*)"'
    assert not [url for page in pages.values() for url in re.findall(fetched, page)]
    documented = set(re.findall(r' id="vqvae_jax\.([^"]*)"', pages["api"]))
    assert {*vqvae_jax.__all__} - {"quantizer"} <= documented
    assert {f"quantizer.{name}" for name in quantizers.__all__} <= documented
    assert {"VQVAE.decode", "GAN.sample"} <= documented
