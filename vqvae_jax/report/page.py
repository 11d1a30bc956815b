"""A run's web page: one file that needs nothing else."""

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

# Pixels, and points of a plot, across; what is wider scrolls on a small screen.
_WIDE, _WIDE_PLOT = 1200, 480
# Nothing is fetched, whatever a name or a script says.
_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


class Picture(NamedTuple):
    """A PNG, GIF or, as `figures.svg` makes it, SVG, with its text alternative."""

    image: bytes
    alt: str
    caption: str = ""


class Sound(NamedTuple):
    """A WAV file to be played from the page, with its name for those who cannot see.

    The caption stands above the player.
    """

    wav: bytes
    label: str
    caption: str = ""


class Widget(NamedTuple):
    """HTML and the script that makes it live; names in the HTML are escaped."""

    markup: str
    script: str


class Section(NamedTuple):
    """A heading, a sentence below it, and what there is to read, hear, see and touch.

    The first row of the table is its head. Cards are pictures that stand beside each
    other as far as there is room, the others below each other.
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
    """Return the page as HTML with its pictures, sounds and scripts inside.

    Args:
      title: of the page.
      results: shown as a table, the most sought ones above it.
      sections: in order.
      config: shown on demand.
      summary: a sentence on what was run.
      command: what was typed to run it.
    """
    anchors = _anchors(sections)
    body = "\n".join(map(_section, sections, anchors))
    scripts = [asset("page.js"), *(s.widget.script for s in sections if s.widget)]
    of_results = _results(results) if results else ""
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
<a class="skip" href="#main">To the content</a>
<header>
<button type="button" id="theme" aria-pressed="false" hidden>Dark theme</button>
<h1>{html.escape(title)}</h1>
{_paragraph(summary)}{_command(command)}{_config(config)}{_navigation(links)}</header>
<main id="main" tabindex="-1">
{of_results}{body}
</main>
{"".join(f"<script>{chr(10)}{script}</script>{chr(10)}" for script in scripts)}</body>
</html>
"""


def asset(name: str, *, package: str = __package__) -> str:
    """Return the text of a file that lies in a package, by default in this one."""
    return importlib.resources.files(package).joinpath(name).read_text("utf-8")


def _anchors(sections: Sequence[Section]) -> list[str]:
    """Return a name for each section, that an address may end with; all differ."""
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
            # A head without a word is no head.
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
    of_style = f' class="{style}"' if style else ""
    name = html.escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="Table: {name}">'
        f'<table{of_style}>\n<caption class="unseen">{name}</caption>\n{head}'
        f"<tbody>{body}\n</tbody></table></div>\n"
    )


def _figure(picture: Picture) -> str:
    alt, caption = html.escape(picture.alt), _caption(picture.caption)
    if picture.image.startswith(b"<svg"):
        return _plot(picture.image.decode(), alt, caption)
    if picture.image.startswith(b"GIF"):
        return _film(picture.image, alt, caption)
    with Image.open(io.BytesIO(picture.image)) as image:
        width, height = image.size
    size = f'width="{width}" height="{height}"'
    return (
        f"<figure{_attributes('', alt, width > _WIDE)}>{caption}"
        f'<img src="{_data("image/png", picture.image)}" alt="{alt}" {size}></figure>'
    )


def _plot(svg: str, alt: str, caption: str) -> str:
    """Show a plot, enlarged by half at most where there is room."""
    width = float(re.match(r'<svg[^>]* width="([\d.]+)pt"', svg)[1])
    style = f"max-width: min(44rem, {1.5 * width:g}pt)"
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{alt}" style="{style}"', 1)
    attributes = _attributes("plot", alt, width > _WIDE_PLOT)
    return f"<figure{attributes}>{caption}{svg}</figure>"


def _attributes(style: str, alt: str, is_wide: bool) -> str:
    """Return the class of a figure, and what a reader needs where it scrolls."""
    styles = " ".join(filter(None, (style, "wide" if is_wide else "")))
    of_style = f' class="{styles}"' if styles else ""
    # A region that scrolls is to be reached by the keyboard.
    reached = f' tabindex="0" role="group" aria-label="{alt}"' if is_wide else ""
    return of_style + reached


def _film(gif: bytes, alt: str, caption: str) -> str:
    """Show an animation, or its first frame to those who want no motion."""
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
    # Metadata is enough to show how long the sound is.
    return (
        f'<figure>{_caption(sound.caption)}<audio controls preload="metadata" '
        f'aria-label="{html.escape(sound.label)}" '
        f'src="{_data("audio/wav", sound.wav)}"></audio></figure>'
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _caption(text: str) -> str:
    return f"<figcaption>{html.escape(text)}</figcaption>" if text else ""
