"""The playground in Chromium: its pixels, its controls and their accessibility.

`tests/report/test_browser.py` checks the page around it.
"""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from vqvae_jax.contrib.playground.playground import playground_section
from vqvae_jax.report import image_grid
from vqvae_jax.report.page import render

COLUMNS, BOOKS, NUM_CODES = 4, 2, 6
CODES = np.arange(3 * COLUMNS * BOOKS).reshape(3, COLUMNS, BOOKS) % NUM_CODES


def decode(codes):
    """Decode to cells of 2x2 pixels; a code also affects the cell to its right."""
    total = codes @ [9, 3]
    total[:, :, 1:] += total[:, :, :-1] // 3
    grey = total.repeat(2, axis=1).repeat(2, axis=2)[..., None]
    return np.add(grey, [0, 40, 80]).astype(np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rng = np.random.default_rng(0)
    section = playground_section(
        decode,
        CODES,
        rng.normal(size=(BOOKS, NUM_CODES, 3)),
        np.ones((BOOKS, NUM_CODES), int),
        rng.integers(256, size=(BOOKS, NUM_CODES, 3), dtype=np.uint8),
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    page = render("run", results={}, sections=[section], config={})
    path.write_text(page, encoding="utf-8")
    return path


def pixels(page, name):
    """Return the pixels of a canvas of the playground."""
    canvas = page.get_by_role("img", name=name)
    address = canvas.evaluate("(canvas) => canvas.toDataURL()")
    png = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def choose(page, cell, choice):
    page.locator(".cells label").nth(cell).click()
    page.locator(".codes label").nth(choice).click()
    row, column = divmod(cell, COLUMNS)
    status = page.get_by_role("status")
    status.get_by_text(f"Row {row + 1}, column {column + 1}: code").wait_for()
    status.get_by_text("pixels change").wait_for()


def assert_shows(page, cell, book, code):
    codes = CODES.copy()
    codes[*divmod(cell, COLUMNS), book] = code
    original, changed = decode(CODES[None])[0], decode(codes[None])[0]
    np.testing.assert_array_equal(pixels(page, "Decoder output"), changed)
    error = image_grid.error_map(original, changed)
    shown = pixels(page, "Change of each pixel")
    assert np.abs(shown.astype(int) - error).max() <= 4
    count = np.count_nonzero((original != changed).any(axis=-1))
    replaced = f"code {CODES[*divmod(cell, COLUMNS), book]} replaced by {code}. "
    status = page.get_by_role("status").inner_text()
    assert f"{replaced}{count} of {3 * COLUMNS * 4} pixels change" in status


def test_playground_matches_the_decoder(open_page, path):
    """Compares all pixels, for cells on the edge and inside, in both codebooks."""
    page = open_page(path)
    # The page starts with a change.
    page.get_by_role("status").get_by_text("pixels change").wait_for()
    for cell, code in ((0, 5), (6, 1), (11, 4)):
        choose(page, cell, code)
        assert_shows(page, cell, 0, code)
    page.get_by_label("Codebook").select_option("2")
    choose(page, 5, 0)
    assert_shows(page, 5, 1, 0)
    page.get_by_role("button", name="Reset to original codes").click()
    page.get_by_text("Select a cell, then a new code.").wait_for()
    np.testing.assert_array_equal(
        pixels(page, "Decoder output"), decode(CODES[None])[0]
    )
    assert not pixels(page, "Change of each pixel")[..., 0].any()
    assert not page.locator(".mark").is_visible()


def test_mark_covers_the_selected_cell(open_page, path):
    page = open_page(path, width=1280)
    choose(page, 6, 2)
    view, mark = (
        page.locator(name).bounding_box() for name in (".view canvas", ".mark")
    )
    assert mark["x"] == pytest.approx(view["x"] + 2 / 4 * view["width"], abs=1)
    assert mark["y"] == pytest.approx(view["y"] + 1 / 3 * view["height"], abs=1)
    assert mark["width"] == pytest.approx(view["width"] / 4, abs=1)


def test_code_numbers_have_sufficient_contrast(open_page, path, contrast):
    """axe-core skips them, since they are hidden from screen readers."""
    swatches = (
        open_page(path)
        .locator(".swatch")
        .evaluate_all(
            """(swatches) => swatches.map((e) => {
          const style = getComputedStyle(e);
          return [style.color, style.backgroundColor];
        })"""
        )
    )
    assert len(swatches) == 3 * COLUMNS + NUM_CODES
    for pair in swatches:
        ink, behind = (
            "#" + bytes(map(int, re.findall(r"\d+", colour))).hex() for colour in pair
        )
        assert contrast(ink, behind) >= 4.5


def test_arrow_keys_move_through_the_grid(open_page, path):
    page = open_page(path)
    page.locator(".cells input").first.focus()
    for key, cell in (
        ("ArrowDown", "Row 2, column 1"),
        ("ArrowRight", "Row 2, column 2"),
        ("ArrowUp", "Row 1, column 2"),
    ):
        page.keyboard.press(key)
        page.get_by_role("status").get_by_text(cell).wait_for()
    # At the top row, the key has no effect.
    page.keyboard.press("ArrowUp")
    assert page.locator(".cells input").nth(1).is_checked()


def test_playground_is_replaced_by_a_line_of_text_without_scripts(open_page, path):
    page = open_page(path, java_script_enabled=False)
    assert not page.locator(".playground").is_visible()
    assert page.locator("noscript p").is_visible()
