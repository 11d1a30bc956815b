"""The latent playground: change one code of an image and see the decoder's output.

Every available change is decoded in advance and embedded in the page as a difference to
the image; differences are mostly zero and deflate well. Running the decoder in the
browser would allow several changes at a time, but would be specific to one architecture
and one likelihood, and its size would grow with the network (12 MB in float16 for the
paper's CIFAR-10 decoder). This approach needs only `decode`. Its page size and its run
time are bounded by a window of at most 16 x 16 cells, `_DECODED` changes and
`_CHARACTERS` characters. Larger models offer fewer codes to choose from.

The displayed image matches the decoder's output to within 1 of 255: differences of 1,
which are widespread but invisible, are dropped.
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

# Side of the editable window in cells; more cells would be too small for touch screens.
_WINDOW = 16
# Limits on the offered codes, the decoded changes and their characters in the page.
_CHOICES = 16
_DECODED = 2048
_CHARACTERS = 1_500_000
# Batch size for decoding.
_BATCH = 64
# Largest invisible difference, out of 255.
_INVISIBLE = 1

Decode = Callable[[Int[np.ndarray, "B h w G"]], UInt8[np.ndarray, "B H W C"]]


class Changes(NamedTuple):
    """An image, its codes, and the difference that each change of one code makes.

    picture: the part of the image that `codes` covers.
    codes: codes of the editable window.
    palette: n codes of each codebook to choose from.
    added: for each of the n choices, deflated uint8 `[h, w, G, H, W, C]`: the values to
      add to `picture` modulo 256 when the code of a cell is replaced by the choice.
    start: index of a cell in raster order and index into the palette, for the change of
      the first codebook that changes the image the most.
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
    """Return the playground of an image's codes, or None if it would be too large.

    Args:
      decode: maps codes to images.
      codes: codes of the image.
      embeddings: embeddings of the codes.
      counts: number of uses of each code; unused codes are offered last.
      colours: RGB colours of the codes.
    """
    rows, columns, books = codes[:_WINDOW, :_WINDOW].shape
    size = min(_CHOICES, embeddings.shape[1], _DECODED // (rows * columns * books))
    if size < 1:
        return None
    palette = np.stack(
        [diverse(e, c, size) for e, c in zip(embeddings, counts, strict=True)], axis=1
    )
    changes = precompute(decode, codes, palette)
    if not changes.added:
        return None
    text = (
        "Replace one code of a test image and see how the decoder's output changes: "
        "select a cell of the code grid, then a new code. Only one code is changed at "
        "a time."
    )
    if codes.shape[:2] != changes.codes.shape[:2]:
        text += " Only the middle of the image is shown."
    widget = Widget(
        _markup(changes, colours), asset("playground.js", package=__package__)
    )
    return Section("Latent playground", text, widget=widget)


def diverse(
    embeddings: Float[np.ndarray, "K D"], counts: Int[np.ndarray, " K"], n: int
) -> Int[np.ndarray, " n"]:
    """Select n diverse codes and return them in ascending order.

    Starts with the most used code and repeatedly adds the code farthest from those
    selected. Unused codes are selected only after all used ones.
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
    """Decode an image once for each code in its centre and each code of the palette.

    The palette is truncated to the codes that fit into the page.
    """
    top, left = (max(0, (side - _WINDOW) // 2) for side in codes.shape[:2])
    window = codes[top : top + _WINDOW, left : left + _WINDOW]
    whole = decode(codes[None])[0]
    cell_height, cell_width = (whole.shape[i] // codes.shape[i] for i in range(2))
    part = (
        slice(top * cell_height, (top + window.shape[0]) * cell_height),
        slice(left * cell_width, (left + window.shape[1]) * cell_width),
    )
    indices = np.array(list(np.ndindex(window.shape))) + np.array([top, left, 0])
    added, characters, effects = [], 0, []
    for choice in palette:
        changed = np.repeat(codes[None], len(indices), axis=0)
        changed[np.arange(len(indices)), *indices.T] = choice[indices[:, 2]]
        decoded = _decode_in_batches(decode, changed)[:, *part]
        difference = decoded.astype(np.int16) - whole[part]
        difference[np.abs(difference) <= _INVISIBLE] = 0
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
    """Return the sum of absolute differences for each cell's first code."""
    return np.abs(difference[..., 0, :].astype(np.int64)).sum(axis=-1).ravel()


def _decode_in_batches(decode: Decode, codes: np.ndarray) -> np.ndarray:
    """Decode in batches of equal size, to compile only one program."""
    padded = np.concatenate([codes, np.repeat(codes[:1], -len(codes) % _BATCH, axis=0)])
    batches = np.split(padded, len(padded) // _BATCH)
    return np.concatenate([np.asarray(decode(b)) for b in batches])[: len(codes)]


def _markup(changes: Changes, colours: UInt8[np.ndarray, "G K 3"]) -> str:
    books = changes.codes.shape[-1]
    facts = {
        "grid": changes.codes.shape,
        "size": changes.picture.shape,
        "codes": changes.codes.ravel().tolist(),
        "palette": changes.palette.tolist(),
        "colours": [[f"#{bytes(c).hex()}" for c in book] for book in colours],
        "picture": _base64(changes.picture.tobytes()),
        "changes": [_base64(packed) for packed in changes.added],
        "start": changes.start,
        "heat": _base64(image_grid.heat(np.linspace(0, 1, 256)).tobytes()),
        "shown": image_grid.ERROR_SHOWN,
    }
    codebook_select = ""
    if books > 1:
        options = "".join(f"<option>{book + 1}</option>" for book in range(books))
        codebook_select = (
            '<p><label class="named" for="playground-codebook">Codebook</label>'
            '<select id="playground-codebook" class="codebook">'
            f"{options}</select></p>\n"
        )
    return f"""<div class="playground" hidden>
<div>
<div class="views">
<figure><figcaption>Decoder output</figcaption>
<div class="view"><canvas class="decoded" role="img" aria-label="Decoder output">\
</canvas><div class="mark" hidden></div></div></figure>
<figure><figcaption>Absolute change per pixel</figcaption>
<canvas class="changed" role="img" aria-label="Change of each pixel"></canvas></figure>
</div>
<p role="status"></p>
<button type="button" class="reset">Reset to original codes</button>
</div>
<div>
{codebook_select}<fieldset><legend>Code grid: select a cell</legend>
<div class="cells"></div></fieldset>
<fieldset><legend>New code for the selected cell</legend>
<div class="codes"></div></fieldset>
</div>
<script type="application/json">{json.dumps(facts)}</script>
</div>
<noscript><p>{html.escape(_NO_SCRIPT)}</p></noscript>
"""


_NO_SCRIPT = "The playground needs JavaScript."


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
