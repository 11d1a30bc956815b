"""Colours of the page: contrast of text and plots in both themes."""

import re

import pytest

from vqvae_jax.report import figures
from vqvae_jax.report.page import asset

COLOURS = {
    name: dict(zip(("light", "dark"), pair, strict=True))
    for name, *pair in re.findall(
        r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", asset("style.css")
    )
}
TEXT = ("ink", "soft", "accent")
BEHIND = ("paper", "card")


def test_contrast_matches_wcag(contrast):
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    # The lightest grey that WCAG allows for text on white.
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("name", TEXT)
def test_text_contrast(contrast, name, behind, theme):
    assert contrast(COLOURS[name][theme], COLOURS[behind][theme]) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", sorted(set(figures.VARIABLES.values()) - {"line"}))
def test_plot_contrast(contrast, name, theme):
    assert contrast(COLOURS[name][theme], COLOURS["card"][theme]) >= 3


def test_variables_are_defined_and_text_uses_only_text_colours():
    style = asset("style.css")
    assert set(figures.VARIABLES.values()) <= set(COLOURS)
    used = set(re.findall(r"var\(--([\w-]+)\)", style))
    assert used <= {*COLOURS, "mono"}
    texts = set(re.findall(r"(?:^|[\s{;])color: ([^;}]+)", style))
    assert texts <= {f"var(--{name})" for name in TEXT}
