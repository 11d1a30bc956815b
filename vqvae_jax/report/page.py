"""The HTML report of a run, as one self-contained page."""

import base64
import html
import importlib.resources
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from vqvae_jax.report.readable import highlights, rows

# Widths in pixels, and in points for plots. Wider figures scroll on small screens.
_WIDE, _WIDE_PLOT = 1200, 480
# Block every network request, whatever the names and scripts on the page contain.
_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


class Picture(NamedTuple):
    """A PNG, a GIF or an SVG from `figures.svg`, with its text alternative."""

    image: bytes
    alt: str
    caption: str = ""


class Sound(NamedTuple):
    """A WAV file with an audio player.

    wav: the file.
    label: accessible name of the player.
    caption: text above the player.
    """

    wav: bytes
    label: str
    caption: str = ""


class Widget(NamedTuple):
    """HTML and the script that drives it; names in the HTML must be escaped already."""

    markup: str
    script: str


class Section(NamedTuple):
    """A section of the page.

    heading: its heading.
    text: a paragraph below the heading.
    pictures: shown in one column, after everything but the widget.
    table: rows of cells; the first row is the header.
    sounds: audio players.
    cards: pictures shown in as many columns as fit.
    widget: an interactive element at the end of the section.
    """

    heading: str
    text: str
    pictures: Sequence[Picture] = ()
    table: Sequence[Sequence[str]] = ()
    sounds: Sequence[Sound] = ()
    cards: Sequence[Picture] = ()
    widget: Widget | None = None


def render(
    title: str,
    *,
    results: Mapping[str, float | int],
    sections: Sequence[Section],
    config: Mapping[str, Any],
    summary: str = "",
    command: str = "",
) -> str:
    """Return the page as HTML, with pictures, sounds and scripts embedded.

    Args:
      title: title of the page.
      results: metrics by name, shown as a table with highlights above it.
      sections: sections in order.
      config: config of the run, in a collapsed block.
      summary: one sentence that describes the run.
      command: command line that started the run.
    """
    anchors = _anchors(sections)
    body = "\n".join(map(_section, sections, anchors))
    scripts = [asset("page.js"), *(s.widget.script for s in sections if s.widget)]
    results_section = _results(results) if results else ""
    links = [("results", "Results")] if results else []
    links += [(a, s.heading) for a, s in zip(anchors, sections, strict=True)]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{asset("style.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to content</a>
<header>
<button type="button" id="theme" hidden>Dark theme</button>
<h1>{html.escape(title)}</h1>
{_paragraph(summary)}{_command(command)}{_config(config)}{_navigation(links)}</header>
<main id="main" tabindex="-1">
{results_section}{body}
</main>
{"".join(f"<script>{chr(10)}{script}</script>{chr(10)}" for script in scripts)}</body>
</html>
"""


def asset(name: str, *, package: str = __package__) -> str:
    """Return the text of a file in a package, by default this one."""
    return importlib.resources.files(package).joinpath(name).read_text("utf-8")


def _anchors(sections: Sequence[Section]) -> list[str]:
    """Return a unique fragment identifier for each section."""
    names = [re.sub(r"\W+", "-", s.heading.lower()).strip("-") for s in sections]
    taken = {"", "main", "results", "theme"}
    return [
        name if name not in taken and name not in names[:i] else f"{name}-{i}"
        for i, name in enumerate(names)
    ]


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>\n" if text else ""


def _command(command: str) -> str:
    text = html.escape(command)
    return f'<pre class="command"><code>{text}</code></pre>\n' if command else ""


def _config(config: Mapping[str, Any]) -> str:
    text = html.escape(json.dumps(config, indent=2))
    return f"<details><summary>Config</summary><pre>{text}</pre></details>\n"


def _navigation(links: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f'<li><a href="#{anchor}">{html.escape(heading)}</a></li>'
        for anchor, heading in links
    )
    return f'<nav aria-label="Sections"><ul>{items}</ul></nav>\n' if links else ""


def _results(results: Mapping[str, float | int]) -> str:
    tiles = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(number)}</dd></div>"
        for name, number in highlights(results)
    )
    tiles = f'<dl class="tiles">{tiles}</dl>\n' if tiles else ""
    return (
        f'<section id="results">\n<h2>Results</h2>\n{tiles}'
        f"<details><summary>All {len(results)} results</summary>\n"
        f"{_table(rows(results), caption='Results')}</details>\n</section>\n"
    )


def _section(section: Section, anchor: str) -> str:
    table = sounds = cards = ""
    if section.table:
        head = "".join(
            f'<th scope="col">{html.escape(x)}</th>'
            if x
            # An empty header cell is a data cell to assistive technology.
            else "<td></td>"
            for x in section.table[0]
        )
        table = _table(
            section.table[1:],
            head=f"<thead><tr>{head}</tr></thead>\n",
            caption=section.heading,
            style="wide",
        )
    if section.sounds:
        players = "\n".join(_player(sound) for sound in section.sounds)
        sounds = f'<div class="sounds">\n{players}\n</div>\n'
    if section.cards:
        figures = "\n".join(_figure(picture) for picture in section.cards)
        cards = f'<div class="cards">\n{figures}\n</div>\n'
    pictures = "".join(f"{_figure(picture)}\n" for picture in section.pictures)
    widget = section.widget.markup if section.widget else ""
    return (
        f'<section id="{anchor}">\n<h2>{html.escape(section.heading)}</h2>\n'
        f"{_paragraph(section.text)}{table}{sounds}{cards}{pictures}{widget}</section>"
    )


def _table(
    rows: Sequence[Sequence[str]], *, caption: str, head: str = "", style: str = ""
) -> str:
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    attribute = f' class="{style}"' if style else ""
    name = html.escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="Table: {name}">'
        f'<table{attribute}>\n<caption class="visually-hidden">{name}</caption>\n{head}'
        f"<tbody>{body}\n</tbody></table></div>\n"
    )


def _figure(picture: Picture) -> str:
    alt, caption = html.escape(picture.alt), _caption(picture.caption)
    if picture.image.startswith(b"<svg"):
        return _plot(picture.image.decode(), alt, caption)
    if picture.image.startswith(b"GIF"):
        return _animation(picture.image, alt, caption)
    with Image.open(io.BytesIO(picture.image)) as image:
        width, height = image.size
    size = f'width="{width}" height="{height}"'
    return (
        f"<figure{_attributes('', alt, width > _WIDE)}>{caption}"
        f'<img src="{_data("image/png", picture.image)}" alt="{alt}" {size}></figure>'
    )


def _plot(svg: str, alt: str, caption: str) -> str:
    """Return a figure with an inline SVG, enlarged by at most half."""
    width = float(re.match(r'<svg[^>]* width="([\d.]+)pt"', svg)[1])
    style = f"max-width: min(44rem, {1.5 * width:g}pt)"
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{alt}" style="{style}"', 1)
    attributes = _attributes("plot", alt, width > _WIDE_PLOT)
    return f"<figure{attributes}>{caption}{svg}</figure>"


def _attributes(style: str, alt: str, is_wide: bool) -> str:
    """Return the attributes of a figure; a wide one is a named scroll region."""
    styles = " ".join(filter(None, (style, "wide" if is_wide else "")))
    style_attribute = f' class="{styles}"' if styles else ""
    # Keyboard users must be able to focus a region to scroll it.
    focusable = f' tabindex="0" role="group" aria-label="{alt}"' if is_wide else ""
    return style_attribute + focusable


def _animation(gif: bytes, alt: str, caption: str) -> str:
    """Return an animation that falls back to its first frame for reduced motion."""
    still = io.BytesIO()
    with Image.open(io.BytesIO(gif)) as film:
        film.convert("RGB").save(still, "PNG", optimize=True)
    return (
        f'<figure class="film">{caption}<picture><source '
        'media="(prefers-reduced-motion: reduce)" '
        f'srcset="{_data("image/png", still.getvalue())}">'
        f'<img src="{_data("image/gif", gif)}" alt="{alt}"></picture>'
        '<button type="button" hidden>Pause</button></figure>'
    )


def _player(sound: Sound) -> str:
    # Loading the metadata alone is enough to show the duration.
    return (
        f'<figure>{_caption(sound.caption)}<audio controls preload="metadata" '
        f'aria-label="{html.escape(sound.label)}" '
        f'src="{_data("audio/wav", sound.wav)}"></audio></figure>'
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _caption(text: str) -> str:
    return f"<figcaption>{html.escape(text)}</figcaption>" if text else ""
