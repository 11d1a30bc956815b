"""Readers of pages: a parser and a browser; and plots as pixels."""

import html.parser
import io
import shutil

import numpy as np
import pytest
from PIL import Image

VOID = {"meta", "img", "br", "link", "source", "input"}


class Reader(html.parser.HTMLParser):
    """Collects tags, attributes and text; fails where tags do not nest."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.texts = [], [], {}
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="session")
def read():
    """The function from a page to what a parser finds in it."""
    return Reader


@pytest.fixture(scope="session")
def pixels_of():
    """The function from a plot to its pixels on white, RGB."""

    def pixels(figure):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="white")
        return np.asarray(Image.open(buffer).convert("RGB"), np.int32)

    return pixels


def luminance(colour):
    """The relative luminance of WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.fixture(scope="session")
def contrast():
    """The function from two colours, "#rrggbb", to their contrast of WCAG 2.2."""

    def of(one, other):
        light, dark = sorted((luminance(one), luminance(other)), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    return of


@pytest.fixture(scope="module")
def browser():
    """Chromium; what a module's tests need of runs has to be there before."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs Playwright: pip install playwright"
    )
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """The function that opens a file; whatever it asks for or complains of fails."""
    contexts, complaints = [], []

    def opened(path, *, width=390, theme="light", **options):
        size = {"width": width, "height": 800}
        context = browser.new_context(viewport=size, color_scheme=theme, **options)
        contexts.append(context)
        page, address = context.new_page(), path.as_uri()

        def tell_request(request):
            if request.url != address and not request.url.startswith("data:"):
                complaints.append(request.url)

        page.on("request", tell_request)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture(scope="session")
def barriers():
    """The function from an open page to what axe-core finds, and where."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="needs axe-core: pip install axe-playwright-python",
    )

    def find(page):
        return [
            (violation["id"], node["html"])
            for violation in axe.Axe().run(page).response["violations"]
            for node in violation["nodes"]
        ]

    return find
