"""The latent playground: change one code of a picture and see what the decoder makes.

Every change that can be chosen is decoded beforehand and sent along as what it adds to
the picture: mostly zeros, which deflate well. A copy of the decoder that runs in the
browser would allow several changes at a time, but holds for one architecture and one
likelihood, and grows with the network (the paper's for CIFAR-10 is 12 MB as float16);
this needs `decode` and nothing else. Both its size and the time to make it are bounded:
a window of at most 16 x 16 cells, `_DECODED` changes and `_CHARACTERS` of the page.
Larger models offer fewer codes to choose from.

What a reader sees is the decoder's picture to within 1 of 255: changes by 1, which
reach far and which nobody sees, are left out.
"""

import base64
import html
import json
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from vqvae_jax.report import image_grid
from vqvae_jax.report.page import Section, Widget, asset

# Cells a side of what can be changed: more are too small for a finger.
_WINDOW = 16
# Codes to choose from, changes that are decoded for them, and letters they may take.
_CHOICES = 16
_DECODED = 2048
_CHARACTERS = 1_500_000
# Pictures decoded at once.
_BATCH = 64
# Of 255, and not to be seen.
_UNSEEN = 1

Decode = Callable[[Int[np.ndarray, "B h w G"]], UInt8[np.ndarray, "B H W C"]]


class Changes(NamedTuple):
    """A picture, its codes, and what each change of one code adds to it.

    picture: `[H, W, C]`, the part that the codes below are of.
    codes: `[h, w, G]`.
    palette: `[n, G]`, codes to choose from, of each codebook.
    added: n times `[h, w, G, H, W, C]` uint8, what is to be added modulo 256 when the
      code of a cell becomes that of the palette; deflated.
    start: a cell, counted along the rows, and the place in the palette of the code of
      the first codebook that changes the picture most there.
    """

    picture: UInt8[np.ndarray, "H W C"]
    codes: Int[np.ndarray, "h w G"]
    palette: Int[np.ndarray, "n G"]
    added: tuple[bytes, ...]
    start: tuple[int, int]


def playground_section(
    decode: Decode,
    codes: Int[np.ndarray, "h w G"],
    embeddings: Float[np.ndarray, "G K D"],
    counts: Int[np.ndarray, "G K"],
    colours: UInt8[np.ndarray, "G K 3"],
) -> Section | None:
    """Return the playground of a picture's codes; None where it would be too large.

    Args:
      decode: from codes to images.
      codes: of the picture.
      embeddings: what codes stand for.
      counts: how often each code is used; those that are not are offered last.
      colours: of the codes.
    """
    rows, columns, books = codes[:_WINDOW, :_WINDOW].shape
    most = min(_CHOICES, embeddings.shape[1], _DECODED // (rows * columns * books))
    if most < 1:
        return None
    palette = np.stack(
        [diverse(e, c, most) for e, c in zip(embeddings, counts, strict=True)], axis=1
    )
    changes = precompute(decode, codes, palette)
    if not changes.added:
        return None
    text = (
        "Choose a cell of the grid and another code for it: the decoder's picture "
        "changes around that cell. One code is changed at a time."
    )
    if codes.shape[:2] != changes.codes.shape[:2]:
        text += " The middle of the picture is shown."
    widget = Widget(
        _markup(changes, colours), asset("playground.js", package=__package__)
    )
    return Section("Latent playground", text, widget=widget)


def diverse(
    embeddings: Float[np.ndarray, "K D"], counts: Int[np.ndarray, " K"], n: int
) -> Int[np.ndarray, " n"]:
    """Return n codes that differ much, in ascending order, used ones before others.

    The most used one, then again and again the one farthest from those chosen.
    """
    distance = np.where(counts > 0, np.inf, -1.0)
    chosen = [int(counts.argmax())]
    while len(chosen) < n:
        to_last = np.linalg.norm(embeddings - embeddings[chosen[-1]], axis=1)
        distance = np.minimum(distance, np.where(counts > 0, to_last, -1.0))
        distance[chosen] = -2.0
        chosen.append(int(distance.argmax()))
    return np.array(sorted(chosen))


def precompute(
    decode: Decode, codes: Int[np.ndarray, "h w G"], palette: Int[np.ndarray, "n G"]
) -> Changes:
    """Decode a picture with each code of its middle changed to each of the palette.

    As many codes of the palette are kept as fit into the page.
    """
    top, left = (max(0, (side - _WINDOW) // 2) for side in codes.shape[:2])
    window = codes[top : top + _WINDOW, left : left + _WINDOW]
    whole = decode(codes[None])[0]
    tall, wide = (whole.shape[i] // codes.shape[i] for i in range(2))
    part = (
        slice(top * tall, (top + window.shape[0]) * tall),
        slice(left * wide, (left + window.shape[1]) * wide),
    )
    places = np.array(list(np.ndindex(window.shape))) + np.array([top, left, 0])
    added, characters, effects = [], 0, []
    for choice in palette:
        changed = np.repeat(codes[None], len(places), axis=0)
        changed[np.arange(len(places)), *places.T] = choice[places[:, 2]]
        decoded = _decoded(decode, changed)[:, *part]
        difference = decoded.astype(np.int16) - whole[part]
        difference[np.abs(difference) <= _UNSEEN] = 0
        packed = zlib.compress(difference.astype(np.uint8).tobytes(), level=9)
        characters += 4 * len(packed) // 3
        if characters > _CHARACTERS:
            break
        added.append(packed)
        effects.append(_effects(difference.reshape(*window.shape, -1)))
    start = (0, 0)
    if effects:
        choice, cell = np.unravel_index(np.argmax(effects), np.shape(effects))
        start = (int(cell), int(choice))
    return Changes(whole[part], window, palette[: len(added)], tuple(added), start)


def _effects(difference: Int[np.ndarray, "h w G values"]) -> Int[np.ndarray, " cells"]:
    """Return how much the change of each cell's first code changes the picture."""
    return np.abs(difference[..., 0, :].astype(np.int64)).sum(axis=-1).ravel()


def _decoded(decode: Decode, codes: np.ndarray) -> np.ndarray:
    """Decode in batches of one size, so that one program is compiled."""
    filled = np.concatenate([codes, np.repeat(codes[:1], -len(codes) % _BATCH, axis=0)])
    batches = np.split(filled, len(filled) // _BATCH)
    return np.concatenate([np.asarray(decode(b)) for b in batches])[: len(codes)]


def _markup(changes: Changes, colours: UInt8[np.ndarray, "G K 3"]) -> str:
    books = changes.codes.shape[-1]
    facts = {
        "grid": changes.codes.shape,
        "size": changes.picture.shape,
        "codes": changes.codes.ravel().tolist(),
        "palette": changes.palette.tolist(),
        "colours": [[f"#{bytes(c).hex()}" for c in of_book] for of_book in colours],
        "picture": _text(changes.picture.tobytes()),
        "changes": [_text(packed) for packed in changes.added],
        "start": changes.start,
        "heat": _text(image_grid.heat(np.linspace(0, 1, 256)).tobytes()),
        "shown": image_grid.ERROR_SHOWN,
    }
    choice = ""
    if books > 1:
        options = "".join(f"<option>{book + 1}</option>" for book in range(books))
        choice = (
            '<p><label class="named" for="playground-codebook">Codebook</label>'
            '<select id="playground-codebook" class="codebook">'
            f"{options}</select></p>\n"
        )
    return f"""<div class="playground" hidden>
<div>
<div class="views">
<figure><figcaption>Decoded</figcaption>
<div class="view"><canvas class="decoded" role="img" aria-label="Decoded picture">\
</canvas><div class="mark" hidden></div></div></figure>
<figure><figcaption>What the change does</figcaption>
<canvas class="changed" role="img" aria-label="Change of each pixel"></canvas></figure>
</div>
<p role="status"></p>
<button type="button" class="reset">Back to its own codes</button>
</div>
<div>
{choice}<fieldset><legend>The picture's codes</legend>
<div class="cells"></div></fieldset>
<fieldset><legend>To become code</legend>
<div class="codes"></div></fieldset>
</div>
<script type="application/json">{json.dumps(facts)}</script>
</div>
<noscript><p>{html.escape(_NO_SCRIPT)}</p></noscript>
"""


_NO_SCRIPT = "This part of the page needs JavaScript."


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
