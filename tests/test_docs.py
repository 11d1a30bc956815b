"""The pages of docs/ build without warnings, and name files and tests that exist."""

import ast
import os
import re
from pathlib import Path

import pytest
from launch_checks import python

import vqvae_jax
from vqvae_jax import experiment, options, quantizers, registry

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TESTS = r"\b(?:[\w/]+/)?test_\w+\.py(?:::\w+)*"


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    for package in ("furo", "myst_parser", "sphinx"):
        pytest.importorskip(package)
    words = ("-m", "sphinx", "-q", "-W", "--keep-going", "docs", tmp_path)
    found = python(*words, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert found.returncode == 0, found.stderr
    assert found.stdout + found.stderr == ""
    pages = {path.stem: path.read_text() for path in tmp_path.glob("*.html")}
    written = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert written | {"api"} <= pages.keys()
    # What a browser loads at once: scripts, pictures and styles, but not links.
    loaded = r'(?:src|<link[^>]* href)="(https?:[^"]*)"'
    assert not [url for page in pages.values() for url in re.findall(loaded, page)]
    documented = set(re.findall(r' id="vqvae_jax\.([^"]*)"', pages["api"]))
    assert {*vqvae_jax.__all__} - {"quantizers"} <= documented
    public = [n for n in quantizers.__all__ if callable(getattr(quantizers, n))]
    assert {f"quantizers.{name}" for name in public} <= documented
    assert {"VQVAE.decode", "GAN.sample", "quantizers.VQ.quantize"} <= documented
    # Sphinx shows types that it cannot parse as they are.
    assert "~typing" not in pages["api"]


def definition(tree: ast.AST, name: str) -> ast.AST | None:
    """Return the class or function of a name directly inside another one."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    found = [n for n in tree.body if isinstance(n, kinds) and n.name == name]
    return found[0] if found else None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_tests_that_a_page_names_exist(page):
    for name in re.findall(TESTS, page.read_text(encoding="utf-8")):
        path, *parts = name.split("::")
        assert path.startswith("tests/"), f"{name}: write the path from the root"
        assert (ROOT / path).is_file(), name
        found = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        for part in parts:
            found = definition(found, part)
            assert found is not None, name


def test_the_pattern_finds_tests():
    conformance = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert len(re.findall(TESTS, conformance)) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_files_that_a_page_names_exist(page):
    """Paths of the repository in backticks; variants follow a colon."""
    roots = "benchmarks|docs|experiments|tests|vqvae_jax"
    pattern = rf"`((?:{roots})/[\w./]*)(?::[^`]*)?`"
    for path in re.findall(pattern, page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


@pytest.fixture(scope="module")
def keys() -> set[str]:
    """The keys of all configs, and of studies."""
    found = {"names", "seeds"}
    for quantizer in quantizers.MEMBERS.values():
        section = options.flatten(options.defaults(quantizer))
        found |= {f"model.quantizer.{key}" for key in section}
    for kind, spec in registry.MODELS.items():
        for second_stage in spec.second_stages or (None,):
            found |= options.flatten(
                experiment.default_config(kind, second_stage)
            ).keys()
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_config_keys_that_a_page_names_exist(page, keys):
    if page.stem in ("CHANGELOG", "config"):
        pytest.skip("names keys of version 0.1, or is tested in test_config_reference")
    text = page.read_text(encoding="utf-8")
    sections = "data|evaluation|model|prior|training"
    named = re.findall(r"--config\.([\w.]+)", text)
    named += re.findall(rf"`((?:{sections})\.[\w.]+)`", text)
    files = {"data.json", "model.safetensors"}
    assert set(named) - files <= keys
