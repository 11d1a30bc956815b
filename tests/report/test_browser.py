"""The page in Chromium: self-contained, responsive and accessible."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from vqvae_jax import registry
from vqvae_jax.report import figures, image_grid
from vqvae_jax.report.page import Picture, Section, Sound, render
from vqvae_jax.report.reconstructions import Reconstructed

RATE = 8000
SECONDS = 0.5
BOOKS, NUM_CODES = 2, 6
CODES = np.arange(3 * 4 * BOOKS).reshape(3, 4, BOOKS) % NUM_CODES
# Lists the focusable elements that did not receive the focus.
NOT_REACHED = """() => [...document.querySelectorAll(
  "a[href], button, summary, select, audio, [tabindex='0'], input:checked")]
  .filter((e) => e.checkVisibility() && !("reached" in e.dataset))
  .map((e) => e.outerHTML.slice(0, 80))"""
# Marks the focused element and describes its focus indicator; null without focus.
FOCUSED = """() => {
  const e = document.activeElement;
  if (e === document.body) return null;
  e.dataset.reached = "";
  // Cells and codes show the focus indicator of the invisible inputs over them.
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
    """Decode to cells of 2x2 pixels; a code also affects the cell to its right."""
    total = codes @ [9, 3]
    total[:, :, 1:] += total[:, :, :-1] // 3
    grey = total.repeat(2, axis=1).repeat(2, axis=2)[..., None]
    return np.add(grey, [0, 40, 80]).astype(np.uint8)


def tone():
    """Return a WAV file of 16-bit samples."""
    samples = 9000 * np.sin(np.arange(RATE * SECONDS) / 3)
    stream = io.BytesIO()
    wavfile.write(stream, RATE, samples.astype("<i2"))
    return stream.getvalue()


def animation(frames):
    """Return a looping GIF."""
    first, *others = map(Image.fromarray, frames)
    stream = io.BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=others, duration=160, loop=0)
    return stream.getvalue()


def sections():
    """Return sections that cover every kind of content, including wide figures."""
    rng = np.random.default_rng(0)
    noise = rng.integers(256, size=(9, 84, 100, 3), dtype=np.uint8)
    counts = np.ones((BOOKS, NUM_CODES), int)
    entry = {"stage": "vqvae", "split": "train"}
    entries = [entry | {"step": step, "loss": 1 / step} for step in (1, 2, 3)]
    (curve,) = figures.learning_curves(entries, "vqvae").values()
    names = [f"phoneme {i}" for i in range(40)]
    of_codes = [
        registry.load(path)(
            decode,
            Reconstructed(
                decode(CODES[None]), ("a <b>",), CODES[None], decode(CODES[None])
            ),
            rng.normal(size=(BOOKS, NUM_CODES, 3)),
            counts,
            rng.integers(256, size=(BOOKS, NUM_CODES, 3), dtype=np.uint8),
        )
        for path in filter(registry.is_available, registry.REPORT_SECTIONS)
    ]
    return [
        Section(
            "Comparison with the paper",
            "Results that the paper also reports.",
            table=[("", "this run", "paper"), ("A result with a long name", "1", "2")],
        ),
        Section(
            "Pictures",
            "",
            [Picture(image_grid.png(np.concatenate(noise, axis=1)), "A strip")],
            cards=[
                Picture(image_grid.png(noise[0]), "Noise", "noise"),
                Picture(animation(noise), "An animation"),
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
        Section("Sounds", "", sounds=[Sound(tone(), "A tone", "tone")]),
        *of_codes,
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    page = render(
        "VQ-VAE: a_run_with_a_name_that_is_longer_than_a_phone_is_wide",
        results={"test_psnr_db": 22.5, "sample_class_accuracy": 0.5, "loss": 0.1},
        sections=sections(),
        config={"data": {"data_dir": "a/long/path/" * 12}},
        summary="A summary.",
        command=f"python launch.py --config.data.data_dir={'a/long/path/' * 12}",
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def open_details(page):
    for summary in page.locator("summary").all():
        summary.click()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_page_does_not_scroll_horizontally(open_page, path, width):
    page = open_page(path, width=width)
    open_details(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_violations(open_page, path, barriers, theme, width):
    """axe-core checks text alternatives, names, roles, order and contrast."""
    page = open_page(path, theme=theme, width=width)
    open_details(page)
    assert barriers(page) == []


def test_keyboard_reaches_every_control_with_visible_focus(open_page, path):
    page = open_page(path)
    focused = []
    for _ in range(100):
        page.keyboard.press("Tab")
        element = page.evaluate(FOCUSED)
        if element is None:
            break
        focused.append(element)
    assert page.evaluate(NOT_REACHED) == []
    # Audio players draw their focus indicator themselves.
    assert all(f["outlined"] for f in focused if f["tag"] != "AUDIO")
    assert all(f["inside"] for f in focused)


def test_first_link_skips_to_the_content(open_page, path):
    page = open_page(path)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_theme_follows_the_system_until_the_button_is_pressed(open_page, path):
    backgrounds = {
        theme: background(open_page(path, theme=theme)) for theme in ("light", "dark")
    }
    assert backgrounds["light"] != backgrounds["dark"]
    page = open_page(path, theme="light")
    button = page.locator("#theme")
    for theme, other in (("light", "Dark"), ("dark", "Light"), ("light", "Dark")):
        # The button says what a click on it gives.
        assert button.inner_text() == f"{other} theme"
        assert background(page) == backgrounds[theme]
        button.click()
    # The choice persists across visits.
    page.reload()
    assert background(page) == backgrounds["dark"]
    assert button.inner_text() == "Light theme"


@pytest.mark.parametrize("reduced", [False, True])
def test_animation_respects_reduced_motion_and_the_button(open_page, path, reduced):
    page = open_page(path, reduced_motion="reduce" if reduced else "no-preference")
    button = page.locator(".film button")
    for moves in (not reduced, reduced):
        kind = page.locator(".film img").get_attribute("src")[: len("data:image/gif")]
        assert kind == ("data:image/gif" if moves else "data:image/png")
        assert button.inner_text() == ("Pause" if moves else "Play")
        button.click()


def test_sound_is_playable(open_page, path):
    page = open_page(path)
    page.wait_for_function("document.querySelector('audio').readyState >= 1")
    seconds = page.locator("audio").evaluate("(audio) => audio.duration")
    assert seconds == pytest.approx(SECONDS, abs=0.01)


def test_interactive_elements_are_hidden_without_scripts(open_page, path):
    page = open_page(path, java_script_enabled=False)
    assert not page.locator("button, .playground").filter(visible=True).count()
    assert page.get_by_alt_text("An animation").is_visible()
