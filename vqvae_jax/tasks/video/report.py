"""The report's sections on a video model, with strips of frames and animations."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from vqvae_jax.data.source import read_many, stack
from vqvae_jax.pipeline.run import Context
from vqvae_jax.report.page import Picture, Section
from vqvae_jax.tasks.video.evaluation import CLIPS

# Number of clips to render.
SHOWN = 4

# Pixels.
_GAP = 3
_LABEL = 104
_LINE = 20
_BAR = 4
_SIDE = 84
_GIVEN, _DRAWN = "#dd6b20", "#2b6cb0"
# Font sizes in pixels; the report shows strips at about half size.
_STRIP_FONT, _ANIMATION_FONT = 22, 15
_INK, _PAPER = "#4a5568", "#ffffff"
_MILLISECONDS = 160


def video_sections(context: Context) -> list[Section]:
    """Return the sections of recorded clips beside those drawn under each action."""
    workdir, _, dataset = context
    samples = workdir.read_samples(CLIPS)
    codes, given = samples["codes"], int(samples["given_frames"])
    names = ("filmed", *map(str, samples["class_names"]))
    shape = samples["images"].shape[1:]
    images = samples["images"].reshape(*codes.shape[:3], *shape)
    starts = samples["frame"][:SHOWN].tolist()
    animations, strips = [], []
    for drawn, start in zip(images, starts, strict=False):
        filmed = stack(read_many(dataset.test, range(start, start + codes.shape[2])))
        clips = np.concatenate([filmed["image"][None], drawn])
        under = f"test frames from {start} on"
        animations.append(
            Picture(animation_gif(clips, names, given=given), f"Animation, {under}")
        )
        strips.append(Picture(strip_png(clips, names, given=given), f"Strip, {under}"))
    text = (
        f"{given} frames are given, marked by an orange bar. Frames marked by a blue "
        "bar are generated: all codes are drawn first, then decoded at once."
    )
    return [
        Section("Video", text, cards=animations),
        Section(
            "Video, frame by frame", "One column per step, one row per action.", strips
        ),
    ]


def strip_png(
    clips: UInt8[np.ndarray, "R T H W C"], names: Sequence[str], *, given: int
) -> bytes:
    """Return a PNG with one row of frames per clip.

    A bar above the frames is orange over given frames and blue over generated ones.
    """
    rows, time = clips.shape[:2]
    height, width = _tile(clips)
    canvas = Image.new(
        "RGB",
        (
            _LABEL + time * (width + _GAP) - _GAP,
            _BAR + rows * (height + _GAP),
        ),
        _PAPER,
    )
    draw = ImageDraw.Draw(canvas)
    for t in range(time):
        left = _LABEL + t * (width + _GAP)
        colour = _GIVEN if t < given else _DRAWN
        draw.rectangle((left, 0, left + width - 1, _BAR - 1), fill=colour)
    for row, (clip, name) in enumerate(zip(clips, names, strict=True)):
        top = _BAR + _GAP + row * (height + _GAP)
        _write(draw, name, 0, top + height // 2, size=_STRIP_FONT)
        for t, frame in enumerate(clip):
            canvas.paste(_image(frame), (_LABEL + t * (width + _GAP), top))
    return _encoded(canvas, "PNG", optimize=True)


def animation_gif(
    clips: UInt8[np.ndarray, "R T H W C"], names: Sequence[str], *, given: int
) -> bytes:
    """Return a looping GIF of clips side by side; an orange bar marks given frames."""
    rows, time = clips.shape[:2]
    height, width = _tile(clips)
    size = (rows * (width + _GAP) - _GAP, _LINE + _BAR + height)
    frames = []
    for t in range(time):
        canvas = Image.new("RGB", size, _PAPER)
        draw = ImageDraw.Draw(canvas)
        colour = _GIVEN if t < given else _DRAWN
        for row, name in enumerate(names):
            left = row * (width + _GAP)
            _write(draw, name, left, _LINE // 2, size=_ANIMATION_FONT)
            bar = (left, _LINE, left + width - 1, _LINE + _BAR - 1)
            draw.rectangle(bar, fill=colour)
            canvas.paste(_image(clips[row, t]), (left, _LINE + _BAR))
        frames.append(canvas.quantize(128, dither=Image.Dither.NONE))
    # Hold the last frame longer, to show where the loop restarts.
    durations = [_MILLISECONDS] * (time - 1) + [5 * _MILLISECONDS]
    return _encoded(
        frames[0],
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
    )


def _tile(clips: np.ndarray) -> tuple[int, int]:
    factor = _factor(clips.shape[3])
    return clips.shape[2] * factor, clips.shape[3] * factor


def _factor(width: int) -> int:
    return max(1, _SIDE // width)


def _image(frame: UInt8[np.ndarray, "H W C"]) -> Image.Image:
    factor = _factor(frame.shape[1])
    frame = frame.repeat(factor, axis=0).repeat(factor, axis=1)
    return Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)


def _write(
    draw: ImageDraw.ImageDraw, text: str, left: int, middle: int, *, size: int
) -> None:
    font = ImageFont.load_default(size=size)
    draw.text((left, middle), text, fill=_INK, font=font, anchor="lm")


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
