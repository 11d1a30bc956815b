"""p(z_t | z_<t, a_<t): video in the space of codes (section 4.4).

The codes of a frame are drawn by a PixelCNN, conditioned on a map that tells of the
frames before it and of the actions between them. `Video` holds sizes and options, no
arrays, and has the methods that the training loop asks of any model. A batch is a dict
of `codes` `[B, T, H, W, C]`, `action` `[B, T]`, of which the last one led out of the
clip, and `mask` `[B]` bool.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax import likelihoods, metrics, sampling
from vqvae_jax.models.base import (
    TrainedByGradient,
    require_dtype,
    require_odd,
    require_pixelcnn,
    require_sides,
)
from vqvae_jax.networks.cell_decoder import projected
from vqvae_jax.networks.pixelcnn import Condition, PixelCNN
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.video.frame_context import FrameContext

# Names of what clips are drawn under besides one action.
RECORDED, UNTOLD = "recorded", "without actions"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Video(TrainedByGradient):
    """Sizes and options of a model of clips.

    Attributes:
      grid: `(H, W, C)` of a frame, taken from the VQ-VAE.
      num_codes: K, taken from the VQ-VAE.
      action_names: what actions 0, 1, ... mean, taken from the frames.
      actions: whether the model is told of actions at all.
      clip_frames: of the clips to train on.
      given_frames: that a clip to be drawn starts from.
      generated_frames: to draw after them.
      context_layers: of the context in time, which sees 2^context_layers frames; 0 for
        frames that know nothing of each other.
      context_units: their channels.
      context_kernel_size: odd.
      layers: gated layers of the PixelCNN.
      units: their channels.
      kernel_size: odd.
      cell_layers: residual layers between a cell's context and its logits.
      dropout: rate while training.
      dtype: compute dtype, "float32" or "bfloat16".
      remat: compute what lies inside the PixelCNN's layers again for the gradient.
      code_vectors: `[C, K, D]`, the codebook's rows, where `init` starts the embeddings
        so that like codes are near each other; None for a random start.
    """

    grid: tuple[int, int, int]
    num_codes: int
    action_names: tuple[str, ...] = ()
    actions: bool = True
    clip_frames: int = 16
    given_frames: int = 6
    generated_frames: int = 10
    context_layers: int = 4
    context_units: int = 128
    context_kernel_size: int = 3
    layers: int = 15
    units: int = 128
    kernel_size: int = 5
    cell_layers: int = 1
    dropout: float = 0.0
    dtype: str = "float32"
    remat: bool = False
    code_vectors: np.ndarray | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    def __post_init__(self):
        """Check every option, so that a mistake is told before anything is built."""
        require_sides("grid", self.grid)
        ones = ("given_frames", "generated_frames", "num_codes", "layers", "units")
        least = dict.fromkeys((*ones, "context_units"), 1) | {"clip_frames": 2}
        least |= {"context_layers": 0, "cell_layers": 0}
        for name, low in least.items():
            value = getattr(self, name)
            require(value >= low, f"{name} must be at least {low}, got {value}")
        require_odd("kernel_size", self.kernel_size)
        require_odd("context_kernel_size", self.context_kernel_size)
        require(0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}")
        require_dtype(self.dtype)

    @property
    def num_actions(self) -> int:
        """The actions that the model is told of, 0 if it is not."""
        return len(self.action_names) if self.actions and self.context_layers else 0

    @property
    def rows(self) -> tuple[str, ...]:
        """What a clip is drawn under: each action held, and then the recorded ones."""
        return (*self.action_names, RECORDED) if self.num_actions else (UNTOLD,)

    @property
    def frames_alone(self) -> "Video":
        """The same PixelCNN without context: what a model of single frames reaches."""
        return dataclasses.replace(self, context_layers=0)

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Any:
        """Initialise both networks; of the batch only shapes matter."""
        context_key, pixelcnn_key, past_key, own_key = jax.random.split(key, 4)
        codes, actions = jax.tree.map(
            lambda x: x[:1], (batch["codes"], self._actions_of(batch))
        )
        params, condition = {}, Condition()
        if self.context_layers:
            params["context"] = self._context.init(context_key, codes, actions)
            features = jnp.zeros((1, *self.grid[:2], self.context_units))
            condition = Condition(features=features)
        params["pixelcnn"] = self._network.init(pixelcnn_key, codes[:, 0], condition)
        if self.code_vectors is None:
            return params
        for network, table, table_key in (
            ("context", "CodeEmbedding_0", past_key),
            ("pixelcnn", "embedding", own_key),
        ):
            if network in params:
                place = params[network]["params"][table]
                vectors = projected(table_key, self.code_vectors, place["tables"])
                place["tables"] = vectors
        return params

    def loss(
        self, params: Any, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return -log p of a clip in nats a code, with dropout."""
        nats = -self._log_p(params, batch["codes"], self._actions_of(batch), key)
        loss = metrics.masked_mean(nats, batch["mask"], batch.get("global_mask"))
        return loss, (self._metrics(nats, batch["mask"]), None)

    def evaluate(self, params: Any, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return bits, without dropout, of a code and of a frame that has a past."""
        nats = -self._log_p(params, batch["codes"], self._actions_of(batch))
        loss = metrics.mean(nats, batch["mask"])
        return {**self._metrics(nats, batch["mask"]), "loss": loss}

    def log_prob(
        self,
        params: Any,
        codes: Int[AnyArray, "B T H W C"],
        *,
        actions: Int[AnyArray, "B S"] | None = None,
    ) -> Float[Array, "B T"]:
        """Return log p in nats of each frame given those before it.

        Their sum over T is that of the clip. `actions` led from each frame to the next.

        Raises:
          UserError: the codes or actions do not fit this model.
        """
        require_pixelcnn("model", self, params["pixelcnn"])
        self._check_codes("codes", codes)
        self._check_actions(actions, codes.shape[0], codes.shape[1])
        actions = None if actions is None else jnp.asarray(actions)
        return self._log_p(params, jnp.asarray(codes), actions).sum(axis=(2, 3, 4))

    def sample(
        self,
        params: Any,
        key: PRNGKeyArray,
        given: Int[AnyArray, "B G H W C"],
        *,
        actions: Int[AnyArray, "B S"] | None = None,
        num_frames: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Int[Array, "B N H W C"]:
        """Draw the codes of the frames that follow.

        Nothing but codes is drawn or read; they become pixels afterwards, all at once.
        Compiled once for each number of clips and frames, top_k and `progress`.

        Args:
          params: the model's parameters.
          key: decides the draw.
          given: the codes of the first G frames.
          actions: what leads from each frame to the next, to the last one drawn: T is
            G + N. If the model is told of actions.
          num_frames: N, `generated_frames` if nothing says it.
          temperature: below 1 for likelier, above 1 for more varied frames.
          top_k: draw each code from the k likeliest.
          top_p: draw each code from the likeliest that have this probability together.
          progress: called with the number of finished rows of a frame, for each row;
            compiled in and kept with the program: pass the same one each time.

        Raises:
          UserError: an option cannot be, or an array is not for this model.
        """
        require_pixelcnn("model", self, params["pixelcnn"])
        sampling.require_drawable(temperature=temperature, top_k=top_k, top_p=top_p)
        self._check_codes("given", given)
        num_frames = self.generated_frames if num_frames is None else num_frames
        require(num_frames >= 1, f"num_frames must be at least 1, got {num_frames}")
        batch, first = given.shape[:2]
        self._check_actions(actions, batch, first + num_frames)
        return self._draw(
            params,
            key,
            jnp.asarray(given, jnp.int32),
            None if actions is None else jnp.asarray(actions, jnp.int32),
            (temperature, top_p),
            num_frames=num_frames,
            top_k=top_k,
            progress=progress,
        )

    @functools.partial(
        jax.jit, static_argnames=("self", "num_frames", "top_k", "progress")
    )
    def _draw(
        self, params, key, given, actions, options, *, num_frames, top_k, progress
    ) -> Int[Array, "B N H W C"]:
        temperature, top_p = options
        batch, first = given.shape[:2]
        adjust = functools.partial(
            sampling.truncated, temperature=temperature, top_k=top_k, top_p=top_p
        )

        def tell(queues, *frame):
            if not self.context_layers:
                return queues, Condition()
            queues, features = self._context.apply(
                params["context"], queues, *frame, method="next_frame"
            )
            return queues, Condition(features=features)

        def next_frame(carry, frame):
            queues, previous = carry
            key, *told = frame
            queues, condition = tell(queues, *told, previous)
            drawn = sampling.cached(
                self._network,
                params["pixelcnn"],
                key,
                shape=(batch, *self.grid),
                condition=condition,
                adjust=adjust,
                progress=progress,
            )
            return (queues, drawn), drawn

        # Nothing led to the first frame, and none was before it.
        led = None if actions is None else jnp.pad(actions, ((0, 0), (1, 0))).T
        told = jnp.arange(first + num_frames), led
        past = jax.tree.map(lambda x: x[:first], told)
        to_come = jax.tree.map(lambda x: x[first:], told)
        queues, _ = lax.scan(
            lambda queues, frame: (tell(queues, *frame)[0], None),
            self._context.empty_queues(batch, *self.grid[:2]),
            (*past, jnp.roll(jnp.moveaxis(given, 1, 0), 1, axis=0)),
        )
        frames = jax.random.split(key, num_frames), *to_come
        _, drawn = lax.scan(next_frame, (queues, given[:, -1]), frames)
        return jnp.moveaxis(drawn, 0, 1)

    @property
    def _context(self) -> FrameContext:
        return FrameContext(
            num_codes=self.num_codes,
            codes_per_cell=self.grid[-1],
            num_actions=self.num_actions,
            layers=self.context_layers,
            units=self.context_units,
            kernel_size=self.context_kernel_size,
            dropout=self.dropout,
            dtype=jnp.dtype(self.dtype),
        )

    @property
    def _network(self) -> PixelCNN:
        return PixelCNN(
            num_codes=self.num_codes,
            codes_per_cell=self.grid[-1],
            map_features=self.context_units if self.context_layers else 0,
            layers=self.layers,
            units=self.units,
            kernel_size=self.kernel_size,
            cell_layers=self.cell_layers,
            dropout=self.dropout,
            dtype=jnp.dtype(self.dtype),
            remat=self.remat,
        )

    def _log_p(self, params, codes, actions, key=None) -> Float[Array, "B T H W C"]:
        keys = [None, None] if key is None else jax.random.split(key)
        of_context, of_pixelcnn = ({} if k is None else {"dropout": k} for k in keys)
        condition = Condition()
        if self.context_layers:
            told = params["context"], codes, actions
            condition = Condition(features=self._context.apply(*told, rngs=of_context))
        # To the PixelCNN the frames of all clips are one batch.
        batch, time = codes.shape[:2]
        frames, condition = jax.tree.map(
            lambda x: x.reshape(batch * time, *x.shape[2:]), (codes, condition)
        )
        logits = self._network.apply(
            params["pixelcnn"], frames, condition, rngs=of_pixelcnn
        )
        return likelihoods.log_p_of(logits, frames).reshape(codes.shape)

    def _metrics(self, nats: Float[Array, "B T H W C"], mask) -> dict:
        bits = nats / math.log(2)
        # The first frame has no past to learn from.
        later = metrics.mean(bits[:, 1:], mask)
        codes = math.prod(self.grid)
        return {
            "bits_per_code": metrics.mean(bits, mask),
            "bits_per_later_frame": later._replace(total=codes * later.total),
        }

    def _actions_of(self, batch: Mapping[str, Array]) -> Int[Array, "B S"] | None:
        return batch["action"][:, :-1] if self.num_actions else None

    def _check_codes(self, name, codes):
        require_shape(name, codes, "B", "T", *self.grid)
        require(codes.shape[1] > 0, f"{name} must have at least one frame")
        require_range(name, codes, 0, self.num_codes)

    def _check_actions(self, actions, batch: int, frames: int):
        names = ", ".join(self.action_names)
        require(
            (actions is not None) == (self.num_actions > 0),
            f"actions are needed, one of {names} between each two frames"
            if self.num_actions
            else "actions were given to a model that is not told of them",
        )
        if actions is not None:
            require_shape("actions", actions, batch, frames - 1)
            require_range("actions", actions, 0, self.num_actions)
