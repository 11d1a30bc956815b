"""p(z): a PixelCNN over the codes of a trained VQ-VAE (section 3, "Prior").

`Prior` holds sizes and options, no arrays, and implements `training.Model`. A batch is
a dict of `codes` `[B, H, W, C]`, `label` `[B]` and `mask` `[B]` bool, with `vector` and
`features` where the prior is conditioned on them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax import likelihoods, metrics, options, sampling
from vqvae_jax.models.base import (
    Shapes,
    TrainedByGradient,
    codes_batch,
    require_pixelcnn,
    require_sides,
)
from vqvae_jax.networks.cell_decoder import projected
from vqvae_jax.networks.pixelcnn import Condition, PixelCNN
from vqvae_jax.options import GIVEN
from vqvae_jax.runtime.arrays import (
    AnyArray,
    common_size,
    require_range,
    require_shape,
)
from vqvae_jax.runtime.errors import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prior(TrainedByGradient):
    """A PixelCNN over grids of codes, class-conditional where there are classes.

    Attributes:
      grid: `(H, W, C)`, the VQ-VAE's.
      num_codes: K, the VQ-VAE's.
      class_names: of labels 0, 1, ...; empty for a prior without labels.
      vector_features: size of a vector that each grid depends on, 0 for none.
      map_features: channels of a map `[H, W]` that each grid depends on, 0 for none.
      network: the PixelCNN's sizes.
      label_dropout: fraction of labels withheld in training; above 0 the prior also
        samples without labels, and with guidance.
      code_vectors: `[C, K, D]`, the codebooks, from which `init` derives the
        embeddings so that similar codes start near each other; None for a random start.
    """

    grid: Annotated[tuple[int, int, int], GIVEN]
    num_codes: Annotated[int, GIVEN, ">= 1"]
    class_names: Annotated[tuple[str, ...], GIVEN] = ()
    vector_features: Annotated[int, GIVEN, ">= 0"] = 0
    map_features: Annotated[int, GIVEN, ">= 0"] = 0
    network: PixelCNN = PixelCNN()
    label_dropout: Annotated[float, ">= 0", "< 1"] = 0.0
    code_vectors: Annotated[AnyArray | None, GIVEN] = dataclasses.field(
        default=None, compare=False, repr=False
    )

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        require_sides("grid", self.grid)
        options.check(self)

    def init_batch(self) -> Shapes:
        """Return the shapes of a batch that `init` accepts."""
        return codes_batch(self.grid)

    @property
    def num_classes(self) -> int:
        """Classes that samples can be drawn from, 0 without labels."""
        return len(self.class_names)

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Any:
        """Initialise the PixelCNN; the batch gives the shapes."""
        first = {name: array[:1] for name, array in batch.items()}
        params = self.pixelcnn.init(key, first["codes"], self._condition_of(first))
        if self.code_vectors is not None:
            network = params["params"]
            keys = jax.random.split(key)
            for part, table_key in zip(
                (network, network["cell_decoder"]), keys, strict=True
            ):
                tables = part["embedding"]["tables"]
                vectors = projected(table_key, self.code_vectors, tables)
                part["embedding"]["tables"] = vectors
        return params

    def loss(
        self, params: Any, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return -log p(z) in nats per code, with dropout."""
        dropout_key, label_key = jax.random.split(key)
        condition = self._condition_of(batch)
        if self.num_classes and self.label_dropout:
            withheld = jax.random.bernoulli(
                label_key, self.label_dropout, condition.labels.shape
            )
            labels = jnp.where(withheld, self.num_classes, condition.labels)
            condition = condition._replace(labels=labels)
        log_p = self._log_p(params, batch["codes"], condition, dropout_key)
        loss = metrics.masked_mean(-log_p, batch["mask"], batch.get("global_mask"))
        return loss, (self._metrics(-log_p, batch["mask"]), None)

    def evaluate(self, params: Any, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return bits per code, and the `bits` of each grid, without dropout."""
        mask = batch["mask"]
        log_p = self._log_p(params, batch["codes"], self._condition_of(batch))
        bits = -log_p.reshape(log_p.shape[0], -1).sum(axis=1) / math.log(2)
        return {
            **self._metrics(-log_p, mask),
            "loss": metrics.mean(-log_p, mask),
            "bits": metrics.of_each(bits, mask),
        }

    def evaluate_with_marginal(
        self, params: Any, batch: Mapping[str, Array]
    ) -> metrics.Metrics:
        """Return `evaluate`'s metrics, and each grid's `marginal_bits`."""
        condition = {name: batch.get(name) for name in ("vector", "features")}
        log_p = self.marginal_log_prob(params, batch["codes"], **condition)
        marginal = metrics.of_each(-log_p / math.log(2), batch["mask"])
        return {**self.evaluate(params, batch), "marginal_bits": marginal}

    def log_prob(
        self,
        params: Any,
        codes: Int[AnyArray, "B H W C"],
        *,
        labels: Int[AnyArray, " B"] | None = None,
        vector: Float[AnyArray, "B V"] | None = None,
        features: Float[AnyArray, "B H W M"] | None = None,
        given: Int[AnyArray, "B H W C"] | None = None,
        dropout_key: PRNGKeyArray | None = None,
    ) -> Float[Array, " B"]:
        """Return log p(z) in nats, exactly, for each grid of codes.

        Args:
          params: the prior's parameters.
          codes: the grids.
          labels: a class for each, if the prior is class-conditional.
          vector: the condition of each, if the prior has `vector_features`.
          features: the condition map of each, if the prior has `map_features`.
          given: as in `sample`; only codes where it is -1 count, which makes the sum
            the log-probability that `sample` draws these codes there.
          dropout_key: enables dropout, as in training.

        Raises:
          UserError: the codes or the condition do not fit this model.
        """
        require_pixelcnn("prior", self, params)
        self._check_codes("codes", codes, lowest=0)
        condition = self.condition(codes.shape[0], labels, vector, features)
        log_p = self._log_p(params, jnp.asarray(codes), condition, dropout_key)
        if given is not None:
            self._check_codes("given", given, lowest=sampling.FREE)
            log_p = jnp.where(jnp.asarray(given) == sampling.FREE, log_p, 0.0)
        return log_p.reshape(codes.shape[0], -1).sum(axis=1)

    def marginal_log_prob(
        self,
        params: Any,
        codes: Int[AnyArray, "B H W C"],
        *,
        vector: Float[AnyArray, "B V"] | None = None,
        features: Float[AnyArray, "B H W M"] | None = None,
    ) -> Float[Array, " B"]:
        """Return log p(z) in nats where the class of a grid is not known.

        p(z) is the mean of p(z given c) over the classes c, which takes one pass for
        each class. Without classes it is `log_prob`.

        Raises:
          UserError: the codes or the condition do not fit this model.
        """
        if not self.num_classes:
            return self.log_prob(params, codes, vector=vector, features=features)

        def given_class(label):
            labels = jnp.full(codes.shape[:1], label)
            return self.log_prob(
                params, codes, labels=labels, vector=vector, features=features
            )

        log_p = jax.lax.map(given_class, jnp.arange(self.num_classes))
        return jax.nn.logsumexp(log_p, axis=0) - math.log(self.num_classes)

    def sample(
        self,
        params: Any,
        key: PRNGKeyArray,
        *,
        labels: Int[AnyArray, " B"] | None = None,
        num_samples: int | None = None,
        vector: Float[AnyArray, "B V"] | None = None,
        features: Float[AnyArray, "B H W M"] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float | None = None,
        given: Int[AnyArray, "B H W C"] | None = None,
        leading: Int[AnyArray, "B R W C"] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Int[Array, "B H W C"]:
        """Draw grids of codes, in time linear in the number of cells.

        Compiled once for each number of samples, top_k and `progress`. Temperature,
        top_p, guidance, labels and given codes change without recompilation.

        Args:
          params: the prior's parameters.
          key: decides the draw.
          labels: `[B]`, a class for each sample, if the prior is class-conditional.
          num_samples: B, where no array determines it.
          vector: the condition of each sample, if the prior has `vector_features`.
          features: the condition map of each, if the prior has `map_features`.
          temperature: below 1 for likelier, above 1 for more varied samples.
          top_k: draw each code from the k most likely.
          top_p: draw each code from the most likely with this total probability.
          guidance: weight of the label; 1 is the model itself, above 1 exaggerates the
            label (classifier-free guidance; needs label_dropout).
          given: codes to keep, -1 at codes to draw. Each code is drawn given the codes
            before it in raster order; given codes after it have no influence. This is
            not the exact conditional distribution of the missing codes.
          leading: the first R rows, to complete; exact, as they come first.
          progress: called with the number of finished rows, after each row. It is
            compiled into the program: pass the same function each time.

        Raises:
          UserError: labels are missing, unexpected or not classes, an option is
            invalid, or an array does not fit this grid.
        """
        require_pixelcnn("prior", self, params)
        sampling.require_drawable(temperature=temperature, top_k=top_k, top_p=top_p)
        batch = common_size(num_samples, labels, vector, features, given, leading)
        condition = self.condition(batch, labels, vector, features)
        if given is not None:
            self._check_codes("given", given, lowest=sampling.FREE, batch=batch)
        if leading is not None:
            self._check_leading(leading, batch)
        if guidance is not None:
            require(
                labels is not None and self.label_dropout > 0,
                "guidance needs labels, and a prior trained with label_dropout above 0",
            )
            without = jnp.full_like(condition.labels, self.num_classes)
            condition = jax.tree.map(lambda x: jnp.concatenate([x, x]), condition)
            condition = condition._replace(
                labels=condition.labels.at[batch:].set(without)
            )
        return self._draw(
            params,
            key,
            condition,
            (temperature, top_p, guidance),
            None if given is None else jnp.asarray(given, jnp.int32),
            None if leading is None else jnp.asarray(leading, jnp.int32),
            batch=batch,
            top_k=top_k,
            progress=progress,
        )

    @functools.partial(jax.jit, static_argnames=("self", "batch", "top_k", "progress"))
    def _draw(
        self, params, key, condition, options, given, leading, *, batch, top_k, progress
    ) -> Int[Array, "B H W C"]:
        temperature, top_p, guidance = options

        def adjust(logits):
            if guidance is not None:
                logits = sampling.guided(logits, scale=guidance)
            return sampling.truncated(
                logits, temperature=temperature, top_k=top_k, top_p=top_p
            )

        return sampling.cached(
            self.pixelcnn,
            params,
            key,
            shape=(batch, *self.grid),
            condition=condition,
            adjust=adjust,
            copies=1 if guidance is None else 2,
            given=given,
            leading=leading,
            progress=progress,
        )

    @property
    def channels(self) -> int:
        """Channels of the PixelCNN."""
        return self.network.channels

    @property
    def pixelcnn(self) -> PixelCNN:
        """The network, built for these codes and conditions."""
        # One more class for withheld labels.
        withheld = 1 if self.num_classes and self.label_dropout else 0
        return self.network.clone(
            num_codes=self.num_codes,
            codes_per_cell=self.grid[-1],
            num_classes=self.num_classes + withheld,
            vector_features=self.vector_features,
            map_features=self.map_features,
        )

    def _log_p(
        self, params, codes, condition, dropout_key=None
    ) -> Float[Array, "B H W C"]:
        rngs = {} if dropout_key is None else {"dropout": dropout_key}
        logits = self.pixelcnn.apply(params, codes, condition, rngs=rngs)
        return likelihoods.log_p_of(logits, codes)

    def _metrics(self, nats, mask) -> dict:
        return {"bits_per_code": metrics.mean(nats / math.log(2), mask)}

    def _condition_of(self, batch: Mapping[str, Array]) -> Condition:
        return Condition(
            labels=batch["label"] if self.num_classes else None,
            vector=batch.get("vector"),
            features=batch.get("features"),
        )

    def condition(
        self, batch: int, labels=None, vector=None, features=None
    ) -> Condition:
        """Return the condition of a batch of grids, as the PixelCNN takes it.

        Raises:
          UserError: labels are missing, unexpected, or not classes.
        """
        if labels is None and self.num_classes:
            require(
                self.label_dropout > 0,
                f"labels are needed, one of {self.num_classes} classes for each sample",
            )
            labels = jnp.full((batch,), self.num_classes)
        elif labels is not None:
            self._check_labels(labels, batch)
        arrays = (None if x is None else jnp.asarray(x) for x in (vector, features))
        labels = None if labels is None else jnp.asarray(labels)
        return Condition(labels, *arrays)

    def _check_codes(self, name, codes, *, lowest: int, batch: int | str = "B"):
        require_shape(name, codes, batch, *self.grid)
        require_range(name, codes, lowest, self.num_codes)

    def _check_leading(self, leading, batch: int):
        height, width, per_cell = self.grid
        require_shape(
            "leading", leading, batch, f"fewer than {height}", width, per_cell
        )
        require(
            0 < leading.shape[1] < height,
            f"leading must have 1 ... {height - 1} rows, got {leading.shape[1]}",
        )
        require_range("leading", leading, 0, self.num_codes)

    def _check_labels(self, labels, batch: int):
        require(self.num_classes > 0, "this prior was trained without labels")
        require_shape("labels", labels, batch)
        require_range("labels", labels, 0, self.num_classes)
