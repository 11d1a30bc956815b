"""The page: well-formed, self-contained, escaped, with readable names and numbers."""

import base64
import html.parser

import pytest

from vqvae_jax.report.page import Picture, Section, Sound, render

VOID = {"meta", "img", "br", "link"}
HOSTILE = "<script>alert('x & y')</script> \"quoted\""


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


def make_page(results=None, title="VQ-VAE: run", sections=(), config=None):
    return render(
        title, results=results or {}, sections=sections, config=config or {"seed": 0}
    )


def shown(results):
    """Return {name: number} as a reader sees them."""
    texts = Reader(make_page(results)).texts
    return dict(zip(texts["th"], texts["td"], strict=True))


def test_is_well_formed_and_needs_nothing_else():
    pictures = [Picture(b"one", "A first", "caption"), Picture(b"two", "A second")]
    page = make_page(
        {"test_loss": 0.5},
        sections=[Section("Samples", "Some text.", pictures), Section("None", "", [])],
    )
    assert page.startswith("<!doctype html>")
    reader = Reader(page)
    assert reader.texts["h2"] == ["Results", "Samples", "None", "Config"]
    assert reader.texts["p"] == ["Some text."]
    assert reader.texts["figcaption"] == ["caption"]
    images = reader.of("img")
    assert [image["alt"] for image in images] == ["A first", "A second"]
    prefix = "data:image/png;base64,"
    assert all(image["src"].startswith(prefix) for image in images)
    contents = [base64.b64decode(image["src"][len(prefix) :]) for image in images]
    assert contents == [b"one", b"two"]
    assert not {"script", "link", "iframe", "object"} & {t for t, _ in reader.tags}
    assert not any("href" in attrs for _, attrs in reader.tags)
    assert "url(" not in page
    assert "@import" not in page
    assert reader.of("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in reader.of("meta")


def test_each_sound_has_a_named_player_with_the_whole_file_in_it():
    sounds = [Sound(bytes(range(256)), "First", "caption"), Sound(b"two", "Second")]
    page = make_page(sections=[Section("Sounds", "", [], sounds=sounds)])
    reader = Reader(page)
    players = reader.of("audio")
    assert [player["aria-label"] for player in players] == ["First", "Second"]
    assert all("controls" in player for player in players)
    # A page of many sounds decodes none of them before it is asked to.
    assert all(player["preload"] in ("none", "metadata") for player in players)
    prefix = "data:audio/wav;base64,"
    assert all(player["src"].startswith(prefix) for player in players)
    contents = [base64.b64decode(player["src"][len(prefix) :]) for player in players]
    assert contents == [bytes(range(256)), b"two"]
    assert reader.texts["figcaption"] == ["caption"]
    assert [attrs.get("class") for attrs in reader.of("div")] == ["sounds"]


def test_a_section_without_sounds_has_no_place_for_them():
    page = make_page(sections=[Section("None", "", [])])
    assert not Reader(page).of("div")


def test_a_section_goes_from_its_text_over_table_and_sounds_to_the_pictures():
    section = Section(
        "All", "Text.", [Picture(b"", "")], [("head",), ("row",)], [Sound(b"", "")]
    )
    tags = [tag for tag, _ in Reader(make_page(sections=[section])).tags]
    places = [tags.index(tag) for tag in ("h2", "p", "table", "audio", "img")]
    assert places == sorted(places)


def test_everything_is_escaped():
    page = make_page(
        {HOSTILE: 1},
        title=HOSTILE,
        sections=[
            Section(
                HOSTILE,
                HOSTILE,
                [Picture(b"", HOSTILE, HOSTILE)],
                sounds=[Sound(b"", HOSTILE, HOSTILE)],
            )
        ],
        config={"data": {"name": HOSTILE}},
    )
    reader = Reader(page)
    assert "<script" not in page
    for tag in ("title", "h1", "p", "figcaption", "th"):
        assert HOSTILE in reader.texts[tag]
    assert HOSTILE in reader.texts["h2"]
    assert reader.texts["figcaption"] == [HOSTILE, HOSTILE]
    assert [image["alt"] for image in reader.of("img")] == [HOSTILE]
    assert [player["aria-label"] for player in reader.of("audio")] == [HOSTILE]
    assert "<script>alert('x & y')" in reader.texts["pre"][0]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("test_psnr_db", "Test PSNR (dB)"),
        ("test_loss", "Test loss"),
        ("test_ssim", "Test SSIM"),
        ("compression_ratio", "Compression"),
        ("prior_train_grids_evaluated", "Prior training grids evaluated"),
        ("test_bits_per_dim_uniform_prior", "Test bits/dim, uniform prior"),
        ("test_bits_per_dim_learned_prior", "Test bits/dim, learned prior"),
        ("codebook_perplexity", "Codebook perplexity"),
        ("codebook_active_codes", "Codes in use (test)"),
        ("codebook_codes", "Codebook size"),
        ("prior_bits_per_code", "Prior bits per code (test)"),
        ("prior_bits_per_code_validation", "Prior bits per code (validation)"),
        ("prior_bits_per_code_train", "Prior bits per code (train)"),
        ("train_images_per_second", "Training images per second"),
        ("prior_train_steps", "Prior training steps"),
        ("sample_class_accuracy", "Sample class accuracy"),
        ("novel", "Novel"),
    ],
)
def test_names_read_well(name, title):
    assert list(shown({name: 1.5})) == [title]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (250_000, "250,000"),
        (64.0, "64"),
        (31.41592, "31.42"),
        (0.000123456, "0.0001235"),
        (-2.5, "-2.5"),
        (12_345.678, "12,346"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_are_rounded(value, text):
    assert list(shown({"test_loss": value}).values()) == [text]


def test_accuracies_are_percentages():
    values = {"sample_class_accuracy": 0.9275, "real_class_accuracy": 1.0}
    assert list(shown(values).values()) == ["92.8%", "100.0%"]


def test_results_keep_their_order():
    assert list(shown({"b": 1, "a": 2, "c": 3})) == ["B", "A", "C"]
