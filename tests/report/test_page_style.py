"""Colours of the page: text and plots stand out from what is behind, in both themes."""

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


def test_contrast_is_that_of_wcag(contrast):
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    # The grey that is known as the lightest one for text on white.
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("name", TEXT)
def test_text_can_be_read(contrast, name, behind, theme):
    assert contrast(COLOURS[name][theme], COLOURS[behind][theme]) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", sorted(set(figures.VARIABLES.values()) - {"line"}))
def test_plots_can_be_seen(contrast, name, theme):
    assert contrast(COLOURS[name][theme], COLOURS["card"][theme]) >= 3


def test_no_variable_is_missing_and_text_has_no_other_colour():
    style = asset("style.css")
    assert set(figures.VARIABLES.values()) <= set(COLOURS)
    used = set(re.findall(r"var\(--([\w-]+)\)", style))
    assert used <= {*COLOURS, "mono"}
    texts = set(re.findall(r"(?:^|[\s{;])color: ([^;}]+)", style))
    assert texts <= {f"var(--{name})" for name in TEXT}
