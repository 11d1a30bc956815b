"""How a kind of model goes from files to codes, and from codes to files, by batches."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Shaped, UInt8

from vqvae_jax.cli.models import Loaded, rate_of
from vqvae_jax.cli.outputs import png
from vqvae_jax.data.batches import eval_batches
from vqvae_jax.data.folder import FolderSource
from vqvae_jax.runtime.arrays import require_range, require_shape
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.speech import audio as audio_lib
from vqvae_jax.tasks.speech.sound import wav

Codes = Int[np.ndarray, "..."]
Images = UInt8[np.ndarray, "B h w c"]


class ImageCoder:
    """Of a VQ-VAE of images.

    Attributes:
      suffix: of what codes are made to.
    """

    suffix = ".png"

    def __init__(self, loaded: Loaded, *, batch_size: int):
        """Compile nothing yet."""
        self._model, self._params = loaded.model, loaded.params
        self._batch_size = batch_size
        self._encode = jax.jit(loaded.model.encode)
        self._decode = jax.jit(loaded.model.decode)

    def codes_of(self, paths: Sequence[str]) -> list[Codes]:
        """Return the codes of image files."""
        codes = each_image(
            functools.partial(self._encode, self._params),
            paths,
            self._model.image_shape,
            batch_size=self._batch_size,
        )
        return list(codes)

    def require_codes(self, codes: Codes, *, where: Path) -> None:
        """Raise UserError unless codes are those of an image; `where` is named."""
        require_shape(f"the codes in {where}", codes, *self._model.grid)
        require_range(f"the codes in {where}", codes, 0, self._model.num_codes)

    def made_of(self, codes: Sequence[Codes], number: int = 0) -> list[bytes]:
        """Return an image file for the codes of each image of a batch."""
        del number  # Nothing is drawn.
        stacked = np.zeros((self._batch_size, *self._model.grid), np.int32)
        stacked[: len(codes)] = codes
        images = np.asarray(self._decode(self._params, stacked))
        return [png(image) for image in images[: len(codes)]]


class SpeechCoder:
    """Of a VQ-VAE of speech.

    Attributes:
      suffix: of what codes are made to.
    """

    suffix = ".wav"

    def __init__(
        self,
        loaded: Loaded,
        *,
        batch_size: int,
        speaker: int = 0,
        seed: int = 0,
        shaping: dict[str, Any] | None = None,
    ):
        """Compile nothing yet.

        Args:
          loaded: the model.
          batch_size: of all batches; the last is filled up.
          speaker: who says codes if nobody else is asked to.
          seed: decides how.
          shaping: temperature, top_k and top_p of the samples of sound.
        """
        self._model, self._params = loaded.model, loaded.params
        self._rate, self._batch_size = rate_of(loaded), batch_size
        self._speakers = np.full(batch_size, speaker, np.int32)
        self._key = jax.random.key(seed)
        self._encode = jax.jit(loaded.model.encode)
        decode = functools.partial(loaded.model.decode, **(shaping or {}))
        self._decode = jax.jit(decode)

    def codes_of(self, paths: Sequence[str]) -> list[Codes]:
        """Return the codes of recordings."""
        clips = [audio_lib.read(path, rate=self._rate) for path in paths]
        audio, mask = self._padded(clips, self._codes_at_once * self._downsampling)
        codes = np.asarray(self._encode(self._params, audio, mask))
        lengths = [self._model.num_latents(len(clip)) for clip in clips]
        return [row[:length] for row, length in zip(codes, lengths, strict=False)]

    def require_codes(self, codes: Codes, *, where: Path) -> None:
        """Raise UserError unless codes are of an utterance; `where` is named."""
        require_shape(f"the codes in {where}", codes, "n")
        require(len(codes) > 0, f"there are no codes in {where}")
        require_range(f"the codes in {where}", codes, 0, self._model.num_codes)

    def made_of(
        self,
        codes: Sequence[Codes],
        number: int = 0,
        speakers: Int[np.ndarray, " B"] | None = None,
    ) -> list[bytes]:
        """Return a sound file for the codes of each utterance of a batch.

        Args:
          codes: of each utterance.
          number: of the batch; another one draws other sounds.
          speakers: who says each.
        """
        rows, mask = self._padded(codes, self._codes_at_once)
        said = self._decode(
            self._params,
            jax.random.fold_in(self._key, number),
            rows,
            speakers=self._speakers if speakers is None else speakers,
            mask=mask,
        )
        return [
            wav(clip[: len(one) * self._downsampling], rate=self._rate)
            for clip, one in zip(np.asarray(said), codes, strict=False)
        ]

    @property
    def _downsampling(self) -> int:
        return self._model.downsampling

    @property
    def _codes_at_once(self) -> int:
        """Codes of a second: few lengths, as each is compiled anew."""
        return -(-self._rate // self._downsampling)

    def _padded(self, sequences: Sequence[np.ndarray], multiple_of: int) -> Any:
        """Return sequences as a batch, zeros behind each, and its mask."""
        lengths = np.zeros(self._batch_size, int)
        lengths[: len(sequences)] = [len(sequence) for sequence in sequences]
        longest = -(-max(lengths) // multiple_of) * multiple_of
        batch = np.zeros((self._batch_size, longest), sequences[0].dtype)
        for row, sequence in zip(batch, sequences, strict=False):
            row[: len(sequence)] = sequence
        return batch, np.arange(longest) < lengths[:, None]


def each_image(
    function: Callable[[Images], Shaped[jax.Array, "B ..."]],
    paths: Sequence[str],
    image_shape: tuple[int, int, int],
    *,
    batch_size: int,
) -> Iterator[Shaped[np.ndarray, "..."]]:
    """Yield what a function makes of image files, fitted to a shape, batch by batch."""
    side, _, channels = image_shape
    source = FolderSource(paths, [0] * len(paths), image_size=side, channels=channels)
    for batch in eval_batches(source, batch_size=batch_size):
        yield from np.asarray(function(batch["image"]))[batch["mask"]]
