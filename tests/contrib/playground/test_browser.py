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
from vqvae_jax.report.reconstructions import Reconstructed

COLUMNS, BOOKS, NUM_CODES = 4, 2, 6
CODES = np.arange(3 * COLUMNS * BOOKS).reshape(3, COLUMNS, BOOKS) % NUM_CODES
# The first has more different codes, so it comes first.
ALL_CODES = np.stack([CODES, CODES // 2])


def decode(codes):
    """Decode to cells of 2x2 pixels; a code also affects the cell to its right."""
    total = codes @ [9, 3]
    total[:, :, 1:] += total[:, :, :-1] // 3
    grey = total.repeat(2, axis=1).repeat(2, axis=2)[..., None]
    return np.add(grey, [0, 40, 80]).astype(np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rng = np.random.default_rng(0)
    decoded = decode(ALL_CODES)
    shown = Reconstructed(255 - decoded, ("cat", "dog"), ALL_CODES, decoded)
    section = playground_section(
        decode,
        shown,
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
    np.testing.assert_array_equal(pixels(page, "Test image"), 255 - original)
    np.testing.assert_array_equal(pixels(page, "Reconstruction"), original)
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
    # The page starts with a change, which its grid shows.
    page.get_by_role("status").get_by_text("pixels change").wait_for()
    assert page.locator(".cells .edited").count() == 1
    reset = page.get_by_role("button", name="Reset to original codes")
    for cell, code in ((0, 5), (6, 1), (11, 2)):
        reset.click()
        choose(page, cell, code)
        assert_shows(page, cell, 0, code)
        changed = page.locator(".cells label").nth(cell)
        assert changed.inner_text() == str(code)
        name = changed.locator("input").get_attribute("aria-label")
        assert name.endswith(f"code {code}, changed")
    reset.click()
    page.get_by_label("Codebook").select_option("2")
    choose(page, 5, 0)
    assert_shows(page, 5, 1, 0)
    reset.click()
    page.get_by_text("Select a cell, then a new code.").wait_for()
    np.testing.assert_array_equal(
        pixels(page, "Decoder output"), decode(CODES[None])[0]
    )
    assert not pixels(page, "Change of each pixel")[..., 0].any()
    assert not page.locator(".mark").is_visible()


def shown_codes(page):
    return [int(text) for text in page.locator(".cells .swatch").all_inner_texts()]


def test_several_changes_are_added_and_undone(open_page, path):
    """Exact, as no two of these cells share pixels."""
    page = open_page(path)
    page.get_by_role("button", name="Reset to original codes").click()
    assert page.get_by_role("button", name="Undo").is_disabled()
    codes, before = CODES.copy(), []
    for cell, code in ((0, 3), (5, 0), (10, 3)):
        before.append(decode(codes[None])[0])
        choose(page, cell, code)
        codes[*divmod(cell, COLUMNS), 0] = code
        expected = decode(codes[None])[0]
        np.testing.assert_array_equal(pixels(page, "Decoder output"), expected)
        assert shown_codes(page) == codes[..., 0].ravel().tolist()
    assert "After 3 changes" in page.get_by_role("status").inner_text()
    for count, expected in zip((2, 1, 0), reversed(before), strict=True):
        page.get_by_role("button", name="Undo").click()
        page.wait_for_function(
            f"document.querySelectorAll('.cells .edited').length === {count}"
        )
        np.testing.assert_array_equal(pixels(page, "Decoder output"), expected)
    assert page.get_by_role("button", name="Undo").is_disabled()
    assert shown_codes(page) == CODES[..., 0].ravel().tolist()


def test_another_image_has_its_own_codes(open_page, path):
    page = open_page(path)
    page.get_by_role("status").get_by_text("pixels change").wait_for()
    page.get_by_label("Image", exact=True).select_option("2: dog")
    page.get_by_text("Select a cell, then a new code.").wait_for()
    other = ALL_CODES[1]
    assert shown_codes(page) == other[..., 0].ravel().tolist()
    original = decode(other[None])[0]
    np.testing.assert_array_equal(pixels(page, "Test image"), 255 - original)
    np.testing.assert_array_equal(pixels(page, "Decoder output"), original)
    choose(page, 7, 5)
    codes = other.copy()
    codes[1, 3, 0] = 5
    np.testing.assert_array_equal(
        pixels(page, "Decoder output"), decode(codes[None])[0]
    )


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
