"""p(z_t | z_<t, a_<t): video in the space of codes (section 4.4).

The codes of a frame are drawn by a PixelCNN, conditioned on a map computed from the
frames before it and the actions between them. `Video` holds sizes and options, no
arrays, and implements `training.Model`. A batch is a dict of `codes` `[B, T, H, W, C]`,
`action` `[B, T]`, the action taken after each frame, and `mask` `[B]` bool.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax import likelihoods, metrics, options, sampling
from vqvae_jax.models.base import (
    Shapes,
    TrainedByGradient,
    require_pixelcnn,
    require_sides,
)
from vqvae_jax.networks.cell_decoder import projected
from vqvae_jax.networks.pixelcnn import Condition, PixelCNN
from vqvae_jax.options import GIVEN
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.video.frame_context import FrameContext

# Names of the rows of a generated clip that do not hold an action.
RECORDED, NO_ACTIONS = "recorded", "without actions"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Video(TrainedByGradient):
    """A model of clips: a context of the past, and a PixelCNN of the next frame.

    Attributes:
      grid: `(H, W, C)` of a frame's codes, the VQ-VAE's.
      num_codes: K, the VQ-VAE's.
      action_names: names of actions 0, 1, ...
      actions: whether the model is conditioned on actions.
      clip_frames: frames of a training clip.
      given_frames: frames that a generated clip starts from.
      generated_frames: frames to draw after them.
      context: of the earlier frames; L layers see 2^L of them. With 0 layers, frames
        are independent of each other.
      pixelcnn: of a frame's codes given its context.
      code_vectors: `[C, K, D]`, the codebooks, from which `init` derives the
        embeddings so that similar codes start near each other; None for a random start.
    """

    grid: Annotated[tuple[int, int, int], GIVEN]
    num_codes: Annotated[int, GIVEN, ">= 1"]
    action_names: Annotated[tuple[str, ...], GIVEN] = ()
    actions: bool = True
    clip_frames: Annotated[int, ">= 2"] = 16
    given_frames: Annotated[int, ">= 1"] = 6
    generated_frames: Annotated[int, ">= 1"] = 10
    context: FrameContext = FrameContext()
    pixelcnn: PixelCNN = PixelCNN()
    code_vectors: Annotated[np.ndarray | None, GIVEN] = dataclasses.field(
        default=None, compare=False, repr=False
    )

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        require_sides("grid", self.grid)
        options.check(self)

    def init_batch(self) -> Shapes:
        """Return the shapes of a batch that `init` accepts."""
        return {
            "codes": jax.ShapeDtypeStruct((1, self.clip_frames, *self.grid), jnp.int32),
            "action": jax.ShapeDtypeStruct((1, self.clip_frames), jnp.int32),
            "mask": jax.ShapeDtypeStruct((1,), bool),
        }

    @property
    def channels(self) -> int:
        """Channels of the PixelCNN."""
        return self.pixelcnn.channels

    @property
    def num_actions(self) -> int:
        """Actions that the model is conditioned on, 0 for none."""
        return len(self.action_names) if self.actions and self.context.layers else 0

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of a clip's samples, each action held and then the recorded actions."""
        return (*self.action_names, RECORDED) if self.num_actions else (NO_ACTIONS,)

    @property
    def frames_alone(self) -> "Video":
        """The same PixelCNN without context, a model of single frames."""
        return dataclasses.replace(self, context=self.context.clone(layers=0))

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Any:
        """Initialise both networks; the batch gives the shapes."""
        context_key, pixelcnn_key, *table_keys = jax.random.split(key, 4)
        codes, actions = jax.tree.map(
            lambda x: x[:1], (batch["codes"], self._actions_of(batch))
        )
        params, condition = {}, Condition()
        if self.context.layers:
            params["context"] = self._context.init(context_key, codes, actions)
            features = jnp.zeros((1, *self.grid[:2], self.context.channels))
            condition = Condition(features=features)
        params["pixelcnn"] = self._network.init(pixelcnn_key, codes[:, 0], condition)
        if self.code_vectors is None:
            return params
        names = ("context", "CodeEmbedding_0"), ("pixelcnn", "embedding")
        for (network, name), table_key in zip(names, table_keys, strict=True):
            if network in params:
                table = params[network]["params"][name]
                vectors = projected(table_key, self.code_vectors, table["tables"])
                table["tables"] = vectors
        return params

    def loss(
        self, params: Any, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return -log p of a clip in nats per code, with dropout."""
        nats = -self._log_p(params, batch["codes"], self._actions_of(batch), key)
        loss = metrics.masked_mean(nats, batch["mask"], batch.get("global_mask"))
        return loss, (self._metrics(nats, batch["mask"]), None)

    def evaluate(self, params: Any, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return the loss, and bits per code and per later frame, without dropout."""
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

        The sum over T is log p of the clip. `actions` are those between frames.

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

        Only codes are drawn and read; all pixels are decoded afterwards, in one batch.
        Compiled once for each number of clips and frames, top_k and `progress`.

        Args:
          params: the model's parameters.
          key: decides the draw.
          given: the codes of the first G frames.
          actions: those between all G + N frames, if the model is conditioned on them.
          num_frames: N, by default `generated_frames`.
          temperature: below 1 for likelier, above 1 for more varied frames.
          top_k: draw each code from the k most likely.
          top_p: draw each code from the most likely with this total probability.
          progress: called with the number of finished rows of a frame, after each row.
            It is compiled into the program: pass the same function each time.

        Raises:
          UserError: an option is invalid, or an array does not fit this model.
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

        def condition_on(queues, *frame):
            if not self.context.layers:
                return queues, Condition()
            queues, features = self._context.apply(
                params["context"], queues, *frame, method="next_frame"
            )
            return queues, Condition(features=features)

        def next_frame(carry, frame):
            queues, previous = carry
            key, *inputs = frame
            queues, condition = condition_on(queues, *inputs, previous)
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

        # The action before each frame; zeros before the first, which has none.
        before = None if actions is None else jnp.pad(actions, ((0, 0), (1, 0))).T
        inputs = jnp.arange(first + num_frames), before
        past = jax.tree.map(lambda x: x[:first], inputs)
        future = jax.tree.map(lambda x: x[first:], inputs)
        queues, _ = lax.scan(
            lambda queues, frame: (condition_on(queues, *frame)[0], None),
            self._context.empty_queues(batch, *self.grid[:2]),
            (*past, jnp.roll(jnp.moveaxis(given, 1, 0), 1, axis=0)),
        )
        frames = jax.random.split(key, num_frames), *future
        _, drawn = lax.scan(next_frame, (queues, given[:, -1]), frames)
        return jnp.moveaxis(drawn, 0, 1)

    @property
    def _context(self) -> FrameContext:
        return self.context.clone(
            num_codes=self.num_codes,
            codes_per_cell=self.grid[-1],
            num_actions=self.num_actions,
        )

    @property
    def _network(self) -> PixelCNN:
        return self.pixelcnn.clone(
            num_codes=self.num_codes,
            codes_per_cell=self.grid[-1],
            map_features=self.context.channels if self.context.layers else 0,
        )

    def _log_p(self, params, codes, actions, key=None) -> Float[Array, "B T H W C"]:
        keys = [None, None] if key is None else jax.random.split(key)
        context_rngs, pixelcnn_rngs = (
            {} if k is None else {"dropout": k} for k in keys
        )
        condition = Condition()
        if self.context.layers:
            features = self._context.apply(
                params["context"], codes, actions, rngs=context_rngs
            )
            condition = Condition(features=features)
        # The frames of all clips are one batch of the PixelCNN.
        batch, time = codes.shape[:2]
        frames, condition = jax.tree.map(
            lambda x: x.reshape(batch * time, *x.shape[2:]), (codes, condition)
        )
        logits = self._network.apply(
            params["pixelcnn"], frames, condition, rngs=pixelcnn_rngs
        )
        return likelihoods.log_p_of(logits, frames).reshape(codes.shape)

    def _metrics(self, nats: Float[Array, "B T H W C"], mask) -> dict:
        bits = nats / math.log(2)
        # The first frame has no past.
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
            else "actions were given to a model without actions",
        )
        if actions is not None:
            require_shape("actions", actions, batch, frames - 1)
            require_range("actions", actions, 0, self.num_actions)
