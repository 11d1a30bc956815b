"""The page: well-formed, self-contained, escaped and accessible."""

import base64
import io
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqvae_jax.report import image_grid
from vqvae_jax.report.page import (
    Picture,
    Section,
    Sound,
    Widget,
    asset,
    render,
)

ROOT = Path(__file__).parents[2]
HOSTILE = "<script>alert('x & y')</script> \"quoted\""


def png(width=2, value=0):
    return image_grid.png(np.full((1, width, 1), value, np.uint8))


PNG = png()


def make_page(results=None, title="VQ-VAE: run", sections=(), config=None, **options):
    return render(
        title,
        results=results or {},
        sections=sections,
        config=config or {"seed": 0},
        **options,
    )


@pytest.fixture
def render_and_read(read):
    """A function that renders a page and parses it."""
    return lambda *args, **options: read(make_page(*args, **options))


def test_is_well_formed_and_self_contained(read):
    contents = [png(value=1), png(value=2)]
    pictures = [
        Picture(contents[0], "A first", "caption"),
        Picture(contents[1], "A second"),
    ]
    page = make_page(
        {"test_loss": 0.5},
        sections=[Section("Samples", "Some text.", pictures), Section("None", "")],
        summary="A summary.",
    )
    assert page.startswith("<!doctype html>")
    reader = read(page)
    assert reader.texts["h2"] == ["Results", "Samples", "None"]
    assert reader.texts["p"] == ["A summary.", "Some text."]
    assert reader.texts["figcaption"] == ["caption"]
    images = reader.of("img")
    assert [image["alt"] for image in images] == ["A first", "A second"]
    prefix = "data:image/png;base64,"
    assert all(image["src"].startswith(prefix) for image in images)
    found = [base64.b64decode(image["src"][len(prefix) :]) for image in images]
    assert found == contents
    assert not {"iframe", "object", "base", "form"} & {t for t, _ in reader.tags}
    addresses = [
        value
        for _, attrs in reader.tags
        for name, value in attrs.items()
        if name in ("href", "src", "srcset")
    ]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in page
    assert "@import" not in page
    assert "http" not in page.replace("http-equiv", "")
    (policy,) = (a["content"] for a in reader.of("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none';")
    assert reader.of("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in reader.of("meta")
    viewport = "width=device-width, initial-scale=1"
    assert {"name": "viewport", "content": viewport} in reader.of("meta")


def test_each_sound_has_a_named_player_with_the_embedded_file(render_and_read):
    sounds = [Sound(bytes(range(256)), "First", "caption"), Sound(b"two", "Second")]
    reader = render_and_read(sections=[Section("Sounds", "", sounds=sounds)])
    players = reader.of("audio")
    assert [player["aria-label"] for player in players] == ["First", "Second"]
    assert all("controls" in player for player in players)
    # Opening the page must not decode the sounds.
    assert all(player["preload"] in ("none", "metadata") for player in players)
    prefix = "data:audio/wav;base64,"
    assert all(player["src"].startswith(prefix) for player in players)
    contents = [base64.b64decode(player["src"][len(prefix) :]) for player in players]
    assert contents == [bytes(range(256)), b"two"]
    assert reader.texts["figcaption"] == ["caption"]
    assert [attrs.get("class") for attrs in reader.of("div")] == ["sounds"]


def test_section_without_sounds_has_no_container_for_them(render_and_read):
    assert not render_and_read(sections=[Section("None", "")]).of("div")


def test_section_order_is_text_table_sounds_pictures(render_and_read):
    section = Section(
        "All", "Text.", [Picture(PNG, "")], [("head",), ("row",)], [Sound(b"", "")]
    )
    tags = [tag for tag, _ in render_and_read(sections=[section]).tags]
    indices = [tags.index(tag) for tag in ("h2", "p", "table", "audio", "img")]
    assert indices == sorted(indices)


def test_everything_is_escaped(read):
    picture = Picture(PNG, HOSTILE, HOSTILE)
    plot = Picture(b'<svg width="9pt"></svg>', HOSTILE, HOSTILE)
    page = make_page(
        {HOSTILE: 1},
        title=HOSTILE,
        sections=[
            Section(
                HOSTILE,
                HOSTILE,
                [picture, picture._replace(image=png(2000)), plot],
                [(HOSTILE,), (HOSTILE, HOSTILE)],
                [Sound(b"", HOSTILE, HOSTILE)],
                [picture],
            )
        ],
        config={"data": {"name": HOSTILE}},
        summary=HOSTILE,
        command=HOSTILE,
    )
    reader = read(page)
    # The page contains only its own script.
    assert page.count("<script") == 1
    for tag in ("title", "h1", "h2", "p", "a", "code", "figcaption", "th", "td"):
        assert HOSTILE in reader.texts[tag], tag
    assert HOSTILE in reader.texts["caption"]
    assert reader.texts["figcaption"] == [HOSTILE] * 5
    assert [image["alt"] for image in reader.of("img")] == [HOSTILE] * 3
    assert [plot["aria-label"] for plot in reader.of("svg")] == [HOSTILE]
    assert [player["aria-label"] for player in reader.of("audio")] == [HOSTILE]
    assert "<script>alert('x & y')" in reader.texts["pre"][0]


def test_header_shows_the_command_if_given(render_and_read):
    command = "python launch.py --config experiments/digits.py"
    assert render_and_read(command=command).texts["code"] == [command]
    assert not render_and_read().of("code")


def test_results_are_a_named_table(render_and_read):
    reader = render_and_read({"test_psnr_db": 22.0, "novel": 2.5})
    assert reader.texts["caption"] == ["Results"]
    assert reader.texts["th"] == ["Test PSNR (dB)", "Novel"]
    assert reader.texts["td"] == ["22", "2.5"]
    assert reader.texts["dt"] == ["PSNR of reconstructed test images (dB)"]
    assert reader.texts["summary"] == ["Config", "All 2 results"]


def test_tables_have_the_section_name_and_a_header(render_and_read):
    table = [("", "ours"), ("loss", "1")]
    reader = render_and_read(sections=[Section("Comparison", "", table=table)])
    assert reader.texts["caption"] == ["Comparison"]
    scopes = [attrs["scope"] for attrs in reader.of("th")]
    assert scopes == ["col", "row"]
    assert reader.texts["th"] == ["ours", "loss"]


def test_links_lead_to_all_sections_for_any_heading(render_and_read):
    headings = ("Samples", "Samples", "results", "?", "What is it?")
    sections = [Section(heading, "") for heading in headings]
    reader = render_and_read({"loss": 1.0}, sections=sections)
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    links = [attrs["href"][1:] for attrs in reader.of("a")]
    assert links[0] == "main"
    assert links[1:] == [attrs["id"] for attrs in reader.of("section")]
    assert links[2] == "samples"
    assert links[-1] == "what-is-it"
    assert reader.texts["a"][1:] == ["Results", *headings]


def test_page_has_one_h1_followed_by_h2_headings(render_and_read):
    sections = [Section("A", "", [Picture(PNG, "a")]), Section("B", "")]
    tags = [tag for tag, _ in render_and_read({"loss": 1.0}, sections=sections).tags]
    assert [tag for tag in tags if re.fullmatch("h[1-6]", tag)] == ["h1", *["h2"] * 3]


def test_plot_is_inlined_with_its_text_alternative(render_and_read):
    plot = Picture(b'<svg width="10pt"><text>inside</text></svg>', "What it shows")
    reader = render_and_read(sections=[Section("A", "", cards=[plot])])
    (svg,) = reader.of("svg")
    named = {"role": "img", "aria-label": "What it shows", "width": "10pt"}
    assert svg == {**named, "style": "max-width: min(44rem, 15pt)"}
    assert reader.texts["text"] == ["inside"]


@pytest.mark.parametrize(
    ("contents", "kind"),
    [
        ([png(1200), png(1201)], ""),
        ([f'<svg x="" width="{w}pt"></svg>'.encode() for w in (480, 480.5)], "plot"),
    ],
    ids=["picture", "plot"],
)
def test_wide_picture_scrolls_and_is_focusable(render_and_read, contents, kind):
    pictures = [Picture(content, "A strip") for content in contents]
    narrow, wide = render_and_read(sections=[Section("A", "", pictures)]).of("figure")
    assert narrow == ({"class": kind} if kind else {})
    expected = {"class": f"{kind} wide".strip(), "tabindex": "0", "role": "group"}
    assert wide == {**expected, "aria-label": "A strip"}


def test_animation_has_a_still_image_for_reduced_motion(render_and_read):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("#ff0000", "#0000ff")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], loop=0)
    reader = render_and_read(
        sections=[Section("A", "", [Picture(buffer.getvalue(), "moves")])]
    )
    (source,) = reader.of("source")
    assert source["media"] == "(prefers-reduced-motion: reduce)"
    still = base64.b64decode(source["srcset"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(still)) as image:
        assert image.size == (4, 3)
        assert image.getpixel((0, 0)) == (255, 0, 0)
    (animation,) = reader.of("img")
    assert animation["alt"] == "moves"
    gif = base64.b64decode(animation["src"].removeprefix("data:image/gif;base64,"))
    assert gif == buffer.getvalue()
    assert "Pause" in reader.texts["button"]


def test_widget_script_follows_the_script_of_the_page(read):
    widget = Widget("<p>markup</p>", "const widget = 1;")
    reader = read(make_page(sections=[Section("A", "", widget=widget)]))
    assert reader.texts["p"] == ["markup"]
    assert [text.strip() for text in reader.texts["script"]] == [
        asset("page.js").strip(),
        "const widget = 1;",
    ]


def test_package_data_includes_all_non_python_files():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["vqvae_jax"]
    package = ROOT / "vqvae_jax"
    installed = {path for pattern in patterns for path in package.glob(pattern)}
    files = {path for path in package.rglob("*") if path.is_file()}
    others = {p for p in files if p.suffix not in (".py", ".pyc")}
    assert others == installed
    assert {path.name for path in others} >= {"style.css", "page.js"}
