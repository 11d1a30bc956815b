"""A run's web page: one file that needs nothing else."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# Results whose names need more than their words.
_TITLES = {
    "codebook_active_codes": "Codes in use (test)",
    "codebook_codes": "Codebook size",
    "code_bits": "Bits of an image's codes",
    "code_bits_learned_prior": "Bits of an image's codes, learned prior (test)",
    "compression_ratio": "Compression",
    "compression_ratio_learned_prior": "Compression, learned prior (test)",
    "image_bits": "Bits of an image",
    "marginal_bits_per_code": "Bits per code by frequency alone (test)",
    "prior_bits_per_code": "Prior bits per code (test)",
    "test_bits_per_dim_learned_prior": "Test bits/dim, learned prior",
    "test_bits_per_dim_uniform_prior": "Test bits/dim, uniform prior",
}
_WORDS = {
    "db": "(dB)",
    "kl": "KL",
    "mcd": "MCD",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "train": "training",
    "vae": "VAE",
}
_SPLITS = ("train", "validation", "test")


class Picture(NamedTuple):
    """A PNG or GIF of the page, with its text alternative."""

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


class Section(NamedTuple):
    """A heading, a sentence below it, rows of a table, sounds and pictures.

    The first row of the table is its head.
    """

    heading: str
    text: str
    pictures: Sequence[Picture]
    table: Sequence[Sequence[str]] = ()
    sounds: Sequence[Sound] = ()


def render(
    title: str,
    *,
    results: Mapping[str, float | int],
    sections: Sequence[Section],
    config: Mapping[str, Any],
) -> str:
    """Return the page as HTML with its pictures and sounds inside."""
    shown = [(_readable(name), _formatted(name, v)) for name, v in results.items()]
    body = "\n".join(_section(section) for section in sections)
    if shown:
        body = f"<section>\n<h2>Results</h2>\n{_table(shown)}\n</section>\n{body}"
    config_text = html.escape(json.dumps(config, indent=2))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
{body}
<section>
<h2>Config</h2>
<details><summary>config.json</summary><pre>{config_text}</pre></details>
</section>
</main>
</body>
</html>
"""


def _section(section: Section) -> str:
    pictures = "\n".join(_figure(picture) for picture in section.pictures)
    text = f"<p>{html.escape(section.text)}</p>" if section.text else ""
    table = ""
    if section.table:
        head = "".join(f"<th scope=col>{html.escape(x)}</th>" for x in section.table[0])
        table = _table(section.table[1:], f"<tr>{head}</tr>\n", "wide")
    sounds = ""
    if section.sounds:
        players = "\n".join(_player(sound) for sound in section.sounds)
        sounds = f"<div class=sounds>\n{players}\n</div>\n"
    return (
        f"<section>\n<h2>{html.escape(section.heading)}</h2>\n{text}\n{table}"
        f"{sounds}{pictures}\n</section>"
    )


def _table(rows: Sequence[Sequence[str]], head: str = "", style: str = "") -> str:
    body = "\n".join(
        f"<tr><th scope=row>{html.escape(row[0])}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    of_style = f' class="{style}"' if style else ""
    return f"<div class=scroll><table{of_style}>\n{head}{body}\n</table></div>\n"


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.image).decode("ascii")
    kind = "gif" if picture.image.startswith(b"GIF") else "png"
    return (
        f'<figure>{_caption(picture.caption)}<img src="data:image/{kind};base64,{data}"'
        f' alt="{html.escape(picture.alt)}"></figure>'
    )


def _player(sound: Sound) -> str:
    data = base64.b64encode(sound.wav).decode("ascii")
    # Metadata is enough to show how long the sound is.
    return (
        f"<figure>{_caption(sound.caption)}<audio controls preload=metadata "
        f'aria-label="{html.escape(sound.label)}" src="data:audio/wav;base64,{data}">'
        "</audio></figure>"
    )


def _caption(text: str) -> str:
    return f"<figcaption>{html.escape(text)}</figcaption>" if text else ""


def _readable(name: str) -> str:
    if name in _TITLES:
        return _TITLES[name]
    *words, last = name.split("_")
    words.append(f"({last})" if last in _SPLITS else last)
    text = " ".join(_WORDS.get(word, word) for word in words)
    return text[:1].upper() + text[1:]


def _formatted(name: str, value: float | int) -> str:
    return f"{value:.1%}" if name.endswith("_accuracy") else _number(value)


def _number(value: float | int) -> str:
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


_STYLE = """
:root { color-scheme: light dark; --ink: #1a202c; --paper: #fdfdfc; --line: #d9dde3;
  --soft: #4a5568; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14171c;
  --line: #333a45; --soft: #a3adba; } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p { color: var(--soft); margin: 0 0 1rem; max-width: 42rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem 1.5rem .3rem 0;
  text-align: left; font-weight: 400; }
td { text-align: right; padding-right: 0; }
.scroll { overflow-x: auto; }
.wide th, .wide td { text-align: left; vertical-align: top; padding-right: 1rem;
  font-size: .9rem; }
.wide th[scope=col] { font-weight: 600; }
figure { margin: 0 0 .75rem; overflow-x: auto; }
figcaption { color: var(--soft); font-size: .9rem; }
img { max-width: 100%; height: auto; border-radius: 4px; display: block; }
.sounds { display: grid; gap: .75rem 1.25rem; margin-bottom: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
.sounds figure { display: flex; flex-direction: column; justify-content: flex-end;
  gap: .25rem; margin: 0; min-width: 0; }
.scroll + .sounds { margin-top: 1rem; }
audio { width: 100%; height: 2.5rem; }
pre { overflow-x: auto; font-size: .8rem; }
"""
