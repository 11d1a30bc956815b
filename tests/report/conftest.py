"""A reader of pages, and plots as pixels."""

import html.parser
import io

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
