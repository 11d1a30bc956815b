"""The latent playground: change codes of an image and see the decoder's output.

Every available change is decoded in advance and embedded in the page as a difference to
the image; differences are mostly zero and deflate well. Running the decoder in the
browser would be specific to one architecture and one likelihood, and its size would
grow with the network (12 MB in float16 for the paper's CIFAR-10 decoder). This approach
needs only `decode`. Its page size and its run time are bounded by a window of at most
16 x 16 cells, `_DECODED` changes and `_CHARACTERS` characters. Larger models offer
fewer images, fewer codes to choose from, and a smaller window.

The displayed image matches the decoder's output after one change to within 1 of 255:
differences of 1, which are widespread but invisible, are dropped. The differences of
several changes are added, which is exact where they do not overlap.
"""

import base64
import html
import json
import math
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from vqvae_jax.report import image_grid
from vqvae_jax.report.page import Section, Widget, asset
from vqvae_jax.report.reconstructions import Reconstructed

# Side of the editable window in cells; more cells would be too small for touch screens.
_WINDOW = 16
# Limits on the images, the offered codes, the decoded changes and their characters in
# the page.
_PICTURES = 4
_CHOICES = 16
_DECODED = 2048
_CHARACTERS = 1_500_000
# A further image is worth less than this number of codes to choose from.
_FEW_CHOICES = 8
# Batch size for decoding.
_BATCH = 64
# Largest invisible difference, out of 255.
_INVISIBLE = 1

Decode = Callable[[Int[np.ndarray, "B h w G"]], UInt8[np.ndarray, "B H W C"]]


class Changes(NamedTuple):
    """An image, its codes, and the difference that each change of one code makes.

    picture: the part of the decoded image that `codes` covers.
    part: that part, as slices of rows and columns.
    codes: codes of the editable window.
    palette: n codes of each codebook to choose from.
    added: for each of the n choices, deflated uint8 `[h, w, G, H, W, C]`: the values to
      add to `picture` modulo 256 when the code of a cell is replaced by the choice.
    start: index of a cell in raster order and index into the palette, for the change of
      the first codebook that changes the image the most.
    """

    picture: UInt8[np.ndarray, "H W C"]
    part: tuple[slice, slice]
    codes: Int[np.ndarray, "h w G"]
    palette: Int[np.ndarray, "n G"]
    added: tuple[bytes, ...]
    start: tuple[int, int]


def playground_section(
    decode: Decode,
    shown: Reconstructed,
    embeddings: Float[np.ndarray, "G K D"],
    counts: Int[np.ndarray, "G K"],
    colours: UInt8[np.ndarray, "G K 3"],
) -> Section:
    """Return the playground of some images' codes.

    Args:
      decode: maps codes to images.
      shown: the images; those with the most different codes are offered.
      embeddings: embeddings of the codes.
      counts: number of uses of each code; unused codes are offered last.
      colours: RGB colours of the codes.
    """
    num_codes = embeddings.shape[1]
    sides = window_of(shown.codes.shape[1:])
    per_choice = math.prod(sides) * shown.codes.shape[-1]
    fitting = _DECODED // (per_choice * min(num_codes, _FEW_CHOICES))
    count = max(1, min(_PICTURES, len(shown.codes), fitting))
    size = min(_CHOICES, num_codes, max(1, _DECODED // (per_choice * count)))
    palette = np.stack(
        [diverse(e, c, size) for e, c in zip(embeddings, counts, strict=True)], axis=1
    )
    variety = [len(np.unique(codes)) for codes in shown.codes]
    chosen = np.argsort(variety, kind="stable")[::-1][:count].tolist()
    pictures = [
        precompute(
            decode, shown.codes[i], palette, characters=_CHARACTERS // len(chosen)
        )
        for i in chosen
    ]
    size = min(len(picture.added) for picture in pictures)
    heading = "Latent playground"
    if size == 0:
        return Section(
            heading,
            "The changes of this decoder's images are too large to be shown here: each "
            "code changes much of a large image.",
        )
    text = (
        "Replace codes of a test image and see how the decoder's output changes: "
        "select a cell of the code grid, then a new code. The effects of several "
        "changes are added, which is exact where they do not overlap."
    )
    if shown.codes.shape[1:3] != sides:
        text += " Only the middle of the image is shown."
    markup = _markup(pictures, palette[:size], shown, chosen, colours)
    widget = Widget(markup, asset("playground.js", package=__package__))
    return Section(heading, text, widget=widget)


def window_of(grid: tuple[int, int, int]) -> tuple[int, int]:
    """Return the sides of the window in which codes can be changed."""
    height, width, books = grid
    # With at least two codes to choose from.
    side = max(1, min(_WINDOW, math.isqrt(_DECODED // (2 * books))))
    return min(side, height), min(side, width)


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
    decode: Decode,
    codes: Int[np.ndarray, "h w G"],
    palette: Int[np.ndarray, "n G"],
    *,
    characters: int,
) -> Changes:
    """Decode an image once for each code in its centre and each code of the palette.

    The palette is truncated to the codes that fit into so many characters.
    """
    sides = window_of(codes.shape)
    top, left = (
        (whole - side) // 2 for whole, side in zip(codes.shape, sides, strict=False)
    )
    window = codes[top : top + sides[0], left : left + sides[1]]
    whole = decode(codes[None])[0]
    cell_height, cell_width = (whole.shape[i] // codes.shape[i] for i in range(2))
    part = (
        slice(top * cell_height, (top + window.shape[0]) * cell_height),
        slice(left * cell_width, (left + window.shape[1]) * cell_width),
    )
    indices = np.array(list(np.ndindex(window.shape))) + np.array([top, left, 0])
    added, used, effects = [], 0, []
    for choice in palette:
        changed = np.repeat(codes[None], len(indices), axis=0)
        changed[np.arange(len(indices)), *indices.T] = choice[indices[:, 2]]
        decoded = _decode_in_batches(decode, changed)[:, *part]
        difference = decoded.astype(np.int16) - whole[part]
        difference[np.abs(difference) <= _INVISIBLE] = 0
        packed = zlib.compress(difference.astype(np.uint8).tobytes(), level=9)
        used += 4 * len(packed) // 3
        if used > characters:
            break
        added.append(packed)
        effects.append(_effects(difference.reshape(*window.shape, -1)))
    start = (0, 0)
    if effects:
        choice, cell = np.unravel_index(np.argmax(effects), np.shape(effects))
        start = (int(cell), int(choice))
    return Changes(
        whole[part], part, window, palette[: len(added)], tuple(added), start
    )


def _effects(difference: Int[np.ndarray, "h w G values"]) -> Int[np.ndarray, " cells"]:
    """Return the sum of absolute differences for each cell's first code."""
    return np.abs(difference[..., 0, :].astype(np.int64)).sum(axis=-1).ravel()


def _decode_in_batches(decode: Decode, codes: np.ndarray) -> np.ndarray:
    """Decode in batches of equal size, to compile only one program."""
    padded = np.concatenate([codes, np.repeat(codes[:1], -len(codes) % _BATCH, axis=0)])
    batches = np.split(padded, len(padded) // _BATCH)
    return np.concatenate([np.asarray(decode(b)) for b in batches])[: len(codes)]


def _markup(
    pictures: Sequence[Changes],
    palette: Int[np.ndarray, "n G"],
    shown: Reconstructed,
    chosen: Sequence[int],
    colours: UInt8[np.ndarray, "G K 3"],
) -> str:
    facts = {
        "grid": pictures[0].codes.shape,
        "size": pictures[0].picture.shape,
        "palette": palette.tolist(),
        "colours": [[f"#{bytes(c).hex()}" for c in book] for book in colours],
        "heat": _base64(image_grid.heat(np.linspace(0, 1, 256)).tobytes()),
        "shown": image_grid.ERROR_SHOWN,
        "pictures": [
            {
                "original": _base64(shown.originals[i][picture.part].tobytes()),
                "decoded": _base64(picture.picture.tobytes()),
                "codes": picture.codes.ravel().tolist(),
                "changes": [_base64(each) for each in picture.added[: len(palette)]],
                "start": [picture.start[0], min(picture.start[1], len(palette) - 1)],
            }
            for i, picture in zip(chosen, pictures, strict=True)
        ],
    }
    names = [
        f"{number}: {shown.names[i]}" if shown.names[i] else f"{number}"
        for number, i in enumerate(chosen, start=1)
    ]
    books = range(1, pictures[0].codes.shape[-1] + 1)
    selects = _select("Image", "picture", names) + _select(
        "Codebook", "codebook", books
    )
    return f"""<div class="playground" hidden>
<div>
<div class="views">
<figure><figcaption>Test image</figcaption>
<canvas class="original" role="img" aria-label="Test image"></canvas></figure>
<figure><figcaption>Its reconstruction</figcaption>
<canvas class="before" role="img" aria-label="Reconstruction"></canvas></figure>
<figure><figcaption>After the changes</figcaption>
<div class="view"><canvas class="decoded" role="img" aria-label="Decoder output">\
</canvas><div class="mark" hidden></div></div></figure>
<figure><figcaption>Absolute change per pixel</figcaption>
<canvas class="changed" role="img" aria-label="Change of each pixel"></canvas>
<div class="scale"><span>0</span><canvas class="heat" role="img" \
aria-label="Colours of changes from 0 to {image_grid.ERROR_SHOWN}"></canvas>\
<span>{image_grid.ERROR_SHOWN}+</span></div></figure>
</div>
<p role="status"></p>
<button type="button" class="undo">Undo</button>
<button type="button" class="reset">Reset to original codes</button>
</div>
<div>
{selects}<fieldset><legend>Code grid: select a cell</legend>
<div class="cells"></div></fieldset>
<fieldset><legend>New code for the selected cell</legend>
<div class="codes"></div></fieldset>
</div>
<script type="application/json">{json.dumps(facts)}</script>
</div>
<noscript><p>{html.escape(_NO_SCRIPT)}</p></noscript>
"""


def _select(label: str, name: str, options: Sequence[object]) -> str:
    """Return a menu; nothing if there is no choice."""
    if len(options) < 2:
        return ""
    items = "".join(f"<option>{html.escape(str(each))}</option>" for each in options)
    return (
        f'<p><label class="named" for="playground-{name}">{label}</label>'
        f'<select id="playground-{name}" class="{name}">{items}</select></p>\n'
    )


_NO_SCRIPT = "The playground needs JavaScript."


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
