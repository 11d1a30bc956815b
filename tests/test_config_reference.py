"""docs/config.md: current, and complete."""

import importlib.util
import re
from pathlib import Path

import pytest

from vqvae_jax import likelihoods, registry
from vqvae_jax.experiment import default_config
from vqvae_jax.options import flatten
from vqvae_jax.runtime.errors import UserError

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def reference():
    """The script that writes the page."""
    path = DOCS / "write_config_reference.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page():
    return (DOCS / "config.md").read_text(encoding="utf-8")


def test_the_page_is_current(reference, page):
    message = "docs/config.md is not current: run python docs/write_config_reference.py"
    assert page == reference.page(), message


def test_every_key_has_a_description(reference):
    """In the "Attributes:" of the docstring of the dataclass that owns it."""
    missing = {
        f"{key.owner.__name__}.{key.field.name}"
        for key in reference.all_keys()
        if not reference.description(key)
    }
    assert missing == set()


def test_every_key_of_every_config_is_listed(page):
    """By its name, or by a row `section.*` that refers to another table."""
    rows = re.findall(r"^\| `([\w.*]+)` \|", page, flags=re.MULTILINE)
    listed = {row for row in rows if not row.endswith("*")}
    sections = tuple(row.removesuffix("*") for row in rows if row.endswith("*"))
    for kind, spec in registry.MODELS.items():
        for second in (None, *spec.second_stages):
            for key in flatten(default_config(kind, second)):
                # All training sections have one table.
                key = re.sub(r"^\w+_training\.", "training.", key)
                is_listed = key in listed or key.startswith(sections)
                assert is_listed or key in ("seed", "model.kind"), key


def test_every_likelihood_is_listed(page):
    with pytest.raises(UserError) as error:
        likelihoods.by_name("")
    names = str(error.value).partition("choose one of ")[2].split(", ")
    assert len(names) >= 5
    assert [name for name in names if f'`"{name}"`' not in page] == []


def test_links_lead_to_headings(page):
    headings = re.findall(r"^#+ `?([\w ]+)`?$", page, flags=re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert len(anchors) == len(headings)
    assert {*re.findall(r"\]\(#([\w-]+)\)", page)} <= anchors
