"""The page in Chromium: it loads alone, fits a phone, and everybody can use it."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from vqvae_jax.contrib.playground import playground
from vqvae_jax.report import figures, image_grid
from vqvae_jax.report.page import (
    Picture,
    Section,
    Sound,
    render,
)
from vqvae_jax.tasks.speech import sound
from vqvae_jax.tasks.video import gif

RATE = 8000
SECONDS = 0.5
COLUMNS, BOOKS, NUM_CODES = 4, 2, 6
CODES = np.arange(3 * COLUMNS * BOOKS).reshape(3, COLUMNS, BOOKS) % NUM_CODES
# Of each element that can be focused: it was, or it is in a group that was.
NOT_REACHED = """() => [...document.querySelectorAll(
  "a[href], button, summary, select, audio, [tabindex='0'], input:checked")]
  .filter((e) => e.checkVisibility() && !("reached" in e.dataset))
  .map((e) => e.outerHTML.slice(0, 80))"""
# Marks what has the focus, and says how it shows; null when nothing has it.
FOCUSED = """() => {
  const e = document.activeElement;
  if (e === document.body) return null;
  e.dataset.reached = "";
  // The cells and codes show the focus of the inputs over them.
  const shown = e.matches("input") ? e.nextElementSibling : e;
  const style = getComputedStyle(shown);
  const box = shown.getBoundingClientRect();
  return {
    tag: e.tagName,
    outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    inside: box.bottom > 0 && box.top < innerHeight && box.right > 0,
  };
}"""


def decode(codes):
    """Cells of 2x2 pixels; a code reaches the cell to its right, more weakly."""
    total = codes @ [9, 3]
    total[:, :, 1:] += total[:, :, :-1] // 3
    grey = total.repeat(2, axis=1).repeat(2, axis=2)[..., None]
    return np.add(grey, [0, 40, 80]).astype(np.uint8)


def sections():
    """One of each kind, and a wide one of those that there are."""
    rng = np.random.default_rng(0)
    noise = rng.integers(256, size=(2, 9, 30, 30, 3), dtype=np.uint8)
    counts = np.ones((BOOKS, NUM_CODES), int)
    entry = {"stage": "vqvae", "split": "train"}
    entries = [entry | {"step": step, "loss": 1 / step} for step in (1, 2, 3)]
    (curve,) = figures.learning_curves(entries, "vqvae").values()
    names = [f"phoneme {i}" for i in range(40)]
    wave = (9000 * np.sin(np.arange(RATE * SECONDS) / 3)).astype(np.int16)
    names_of_clips = ("filmed", "drawn")
    return [
        Section(
            "Beside the paper",
            "Figures that the paper reports too.",
            table=[("", "this run", "paper"), ("A figure with a long name", "1", "2")],
        ),
        Section(
            "Pictures",
            "",
            [Picture(gif.strips(noise, names_of_clips, given=2), "A strip")],
            cards=[
                Picture(image_grid.png(noise[0, 0]), "Noise", "noise"),
                Picture(gif.animation(noise, names_of_clips, given=2), "A film"),
            ],
        ),
        Section(
            "Plots",
            "",
            [
                Picture(
                    figures.svg(figures.confusion(np.eye(40, dtype=int), names)), "A"
                )
            ],
            cards=[
                Picture(figures.svg(curve), "Loss by step", "Loss"),
                Picture(
                    figures.svg(figures.codebook_usage(np.float64(counts))), "Usage"
                ),
            ],
        ),
        Section(
            "Sounds", "", sounds=[Sound(sound.wav(wave, rate=RATE), "A tone", "tone")]
        ),
        playground.playground_section(
            decode,
            CODES,
            rng.normal(size=(BOOKS, NUM_CODES, 3)),
            counts,
            rng.integers(256, size=(BOOKS, NUM_CODES, 3), dtype=np.uint8),
        ),
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    page = render(
        "VQ-VAE: a_run_with_a_name_that_is_longer_than_a_phone_is_wide",
        results={"test_psnr_db": 22.5, "sample_class_accuracy": 0.5, "loss": 0.1},
        sections=sections(),
        config={"data": {"data_dir": "a/long/path/" * 12}},
        summary="What it is.",
        command=f"python launch.py --config.data.data_dir={'a/long/path/' * 12}",
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def open_details(page):
    for summary in page.locator("summary").all():
        summary.click()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(open_page, path, width):
    page = open_page(path, width=width)
    open_details(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_there_are_no_barriers(open_page, path, barriers, theme, width):
    """Alternatives, names, roles, order and contrast, as axe-core finds them."""
    page = open_page(path, theme=theme, width=width)
    open_details(page)
    assert barriers(page) == []


def test_the_keyboard_reaches_everything_and_is_seen_to(open_page, path):
    page = open_page(path)
    focused = []
    for _ in range(100):
        page.keyboard.press("Tab")
        here = page.evaluate(FOCUSED)
        if here is None:
            break
        focused.append(here)
    assert page.evaluate(NOT_REACHED) == []
    # A player shows its own focus.
    assert all(f["outlined"] for f in focused if f["tag"] != "AUDIO")
    assert all(f["inside"] for f in focused)


def test_the_first_link_skips_to_the_content(open_page, path):
    page = open_page(path)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_theme_is_the_readers_until_the_button_is_pressed(open_page, path):
    of_theme = {
        theme: background(open_page(path, theme=theme)) for theme in ("light", "dark")
    }
    assert of_theme["light"] != of_theme["dark"]
    page = open_page(path, theme="light")
    button = page.get_by_role("button", name="Dark theme")
    for pressed, theme in (("false", "light"), ("true", "dark"), ("false", "light")):
        assert button.get_attribute("aria-pressed") == pressed
        assert background(page) == of_theme[theme]
        button.click()
    # Another visit finds it as it was left.
    page.reload()
    assert background(page) == of_theme["dark"]
    assert button.get_attribute("aria-pressed") == "true"


def pixels(page, name):
    """What a canvas of the playground shows."""
    canvas = page.get_by_role("img", name=name)
    address = canvas.evaluate("(canvas) => canvas.toDataURL()")
    png = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def choose(page, cell, choice):
    page.locator(".cells label").nth(cell).click()
    page.locator(".codes label").nth(choice).click()
    row, column = divmod(cell, COLUMNS)
    told = page.get_by_role("status")
    told.get_by_text(f"Row {row + 1}, column {column + 1}: code").wait_for()
    told.get_by_text("pixels change").wait_for()


def assert_shows(page, cell, book, code):
    codes = CODES.copy()
    codes[*divmod(cell, COLUMNS), book] = code
    own, changed = decode(CODES[None])[0], decode(codes[None])[0]
    np.testing.assert_array_equal(pixels(page, "Decoded picture"), changed)
    error = image_grid.error_map(own, changed)
    shown = pixels(page, "Change of each pixel")
    assert np.abs(shown.astype(int) - error).max() <= 4
    count = np.count_nonzero((own != changed).any(axis=-1))
    of_code = f"code {CODES[*divmod(cell, COLUMNS), book]} becomes {code}. "
    told = page.get_by_role("status").inner_text()
    assert f"{of_code}{count} of {3 * COLUMNS * 4} pixels change" in told


def test_the_playground_shows_what_the_decoder_makes(open_page, path):
    """Pixel by pixel, for cells at an edge and inside, of both codebooks."""
    page = open_page(path)
    # A first change is there before anything is touched.
    page.get_by_role("status").get_by_text("pixels change").wait_for()
    for cell, code in ((0, 5), (6, 1), (11, 4)):
        choose(page, cell, code)
        assert_shows(page, cell, 0, code)
    page.get_by_label("Codebook").select_option("2")
    choose(page, 5, 0)
    assert_shows(page, 5, 1, 0)
    page.get_by_role("button", name="Back to its own codes").click()
    page.get_by_text("Choose a cell, then a code for it.").wait_for()
    np.testing.assert_array_equal(
        pixels(page, "Decoded picture"), decode(CODES[None])[0]
    )
    assert not pixels(page, "Change of each pixel")[..., 0].any()
    assert not page.locator(".mark").is_visible()


def test_the_mark_is_over_the_chosen_cell(open_page, path):
    page = open_page(path, width=1280)
    choose(page, 6, 2)
    view, mark = (
        page.locator(name).bounding_box() for name in (".view canvas", ".mark")
    )
    assert mark["x"] == pytest.approx(view["x"] + 2 / 4 * view["width"], abs=1)
    assert mark["y"] == pytest.approx(view["y"] + 1 / 3 * view["height"], abs=1)
    assert mark["width"] == pytest.approx(view["width"] / 4, abs=1)


def test_numbers_of_codes_can_be_read(open_page, path, contrast):
    """Which axe-core leaves out: they are of no interest to a screen reader."""
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


def test_arrows_go_along_and_across_the_cells(open_page, path):
    page = open_page(path)
    page.locator(".cells input").first.focus()
    for key, place in (
        ("ArrowDown", "Row 2, column 1"),
        ("ArrowRight", "Row 2, column 2"),
        ("ArrowUp", "Row 1, column 2"),
    ):
        page.keyboard.press(key)
        page.get_by_role("status").get_by_text(place).wait_for()
    # There is none above.
    page.keyboard.press("ArrowUp")
    assert page.locator(".cells input").nth(1).is_checked()


@pytest.mark.parametrize("calm", [False, True])
def test_a_film_moves_unless_the_reader_or_the_system_says_no(open_page, path, calm):
    page = open_page(path, reduced_motion="reduce" if calm else "no-preference")
    button = page.locator(".film button")
    for moves in (not calm, calm):
        kind = page.locator(".film img").get_attribute("src")[: len("data:image/gif")]
        assert kind == ("data:image/gif" if moves else "data:image/png")
        assert button.inner_text() == ("Pause" if moves else "Play")
        button.click()


def test_a_sound_can_be_played(open_page, path):
    page = open_page(path)
    page.wait_for_function("document.querySelector('audio').readyState >= 1")
    seconds = page.locator("audio").evaluate("(audio) => audio.duration")
    assert seconds == pytest.approx(SECONDS, abs=0.01)


def test_without_scripts_nothing_is_there_that_does_nothing(open_page, path):
    page = open_page(path, java_script_enabled=False)
    assert not page.locator("button, .playground").filter(visible=True).count()
    assert page.locator("noscript p").is_visible()
    assert page.get_by_alt_text("A film").is_visible()
