"""p(z): a PixelCNN over the codes of a trained VQ-VAE (section 3, "Prior").

`Prior` holds sizes and options, no arrays, and has the methods that the training loop
asks of any model. A batch is a dict of `codes` `[B, H, W, C]`, `label` `[B]` and `mask`
`[B]` bool.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax import metrics, sampling
from vqvae_jax.errors import require
from vqvae_jax.networks.pixelcnn import PixelCNN

AnyArray = Array | np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prior:
    """Sizes and options of a prior over grids of codes.

    Attributes:
      grid: `(H, W, C)`, taken from the VQ-VAE.
      num_codes: K, taken from the VQ-VAE.
      class_names: what labels 0, 1, ... mean; empty for an unconditional prior.
      layers: gated layers of the PixelCNN.
      units: their channels.
      kernel_size: odd.
      cell_layers: residual layers between a cell's context and its logits.
      dropout: rate while training.
      dtype: compute dtype, "float32" or "bfloat16".
    """

    grid: tuple[int, int, int]
    num_codes: int
    class_names: tuple[str, ...] = ()
    layers: int = 15
    units: int = 128
    kernel_size: int = 5
    cell_layers: int = 1
    dropout: float = 0.0
    dtype: str = "float32"

    def __post_init__(self):
        """Check every option, so that a mistake is told before anything is built."""
        for name in ("num_codes", "layers", "units", "kernel_size"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}")
        require(
            self.kernel_size % 2 == 1,
            f"kernel_size must be odd, got {self.kernel_size}",
        )
        require(
            self.cell_layers >= 0,
            f"cell_layers must not be negative, got {self.cell_layers}",
        )
        require(
            0 <= self.dropout < 1,
            f"dropout must be in [0, 1), got {self.dropout}",
        )
        require(
            self.dtype in ("float32", "bfloat16"),
            f"dtype must be one of float32, bfloat16, got {self.dtype!r}",
        )

    @property
    def num_classes(self) -> int:
        """The classes that samples can be drawn from, 0 if there are none."""
        return len(self.class_names)

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Any:
        """Initialise the PixelCNN at random; of the batch only shapes matter."""
        codes, labels = batch["codes"][:1], batch["label"][:1]
        return self._network.init(key, codes, self._condition(labels))

    def trainable(self, params: Any) -> Any:
        """Mark with True the leaves that follow the gradient: all."""
        return jax.tree.map(lambda _: True, params)

    def loss(
        self, params: Any, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return -log p(z) in nats a code, with dropout."""
        nll = -self._log_prob(params, batch["codes"], batch["label"], key)
        nats_per_code = nll / math.prod(self.grid)
        loss = metrics.masked_mean(nats_per_code, batch["mask"])
        return loss, (self._metrics(nats_per_code, batch["mask"]), None)

    def update(self, params: Any, key: PRNGKeyArray, carry: None, *, axis_name=None):
        """Return the parameters: the gradient does it all."""
        del key, carry, axis_name
        return params

    def evaluate(self, params: Any, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return bits per code, without dropout."""
        nll = -self._log_prob(params, batch["codes"], batch["label"])
        nats_per_code = nll / math.prod(self.grid)
        loss = metrics.mean(nats_per_code, batch["mask"])
        return {**self._metrics(nats_per_code, batch["mask"]), "loss": loss}

    def log_prob(
        self,
        params: Any,
        codes: Int[AnyArray, "B H W C"],
        *,
        labels: Int[AnyArray, " B"] | None = None,
    ) -> Float[Array, " B"]:
        """Return log p(z) in nats, exactly, for each grid of codes.

        Raises:
          UserError: the codes are not a grid of this model, or labels are missing.
        """
        self._check_codes(codes)
        codes = jnp.asarray(codes)
        return self._log_prob(params, codes, self._check_labels(labels, codes.shape[0]))

    def sample(
        self,
        params: Any,
        key: PRNGKeyArray,
        *,
        labels: Int[AnyArray, " B"] | None = None,
        num_samples: int | None = None,
        temperature: float = 1.0,
    ) -> Int[Array, "B H W C"]:
        """Draw grids of codes by ancestral sampling.

        Args:
          params: the prior's parameters.
          key: decides the draw.
          labels: `[B]`, a class for each sample, if the prior is class-conditional.
          num_samples: B, if it is not.
          temperature: below 1 for likelier, above 1 for more varied samples.

        Raises:
          UserError: labels are missing or not wanted, or temperature <= 0.
        """
        if labels is not None:
            num_samples = labels.shape[0]
        require(num_samples is not None, "labels or num_samples must be given")
        labels = self._check_labels(labels, num_samples)

        def logits_fn(codes):
            return self._network.apply(params, codes, self._condition(labels))

        return sampling.ancestral(
            logits_fn, key, shape=(num_samples, *self.grid), temperature=temperature
        )

    @property
    def _network(self) -> PixelCNN:
        return PixelCNN(
            num_codes=self.num_codes,
            codes_per_cell=self.grid[-1],
            num_classes=self.num_classes,
            layers=self.layers,
            units=self.units,
            kernel_size=self.kernel_size,
            cell_layers=self.cell_layers,
            dropout=self.dropout,
            dtype=jnp.dtype(self.dtype),
        )

    def _log_prob(self, params, codes, labels, dropout_key=None) -> Float[Array, " B"]:
        rngs = {} if dropout_key is None else {"dropout": dropout_key}
        logits = self._network.apply(params, codes, self._condition(labels), rngs=rngs)
        chosen = jnp.take_along_axis(logits, codes[..., None], axis=-1)[..., 0]
        log_p = chosen - jax.nn.logsumexp(logits, axis=-1)
        return log_p.reshape(codes.shape[0], -1).sum(axis=1)

    def _metrics(self, nats_per_code, mask) -> dict:
        return {"bits_per_code": metrics.mean(nats_per_code / math.log(2), mask)}

    def _condition(self, labels):
        return labels if self.num_classes else None

    def _check_codes(self, codes):
        require(
            codes.ndim == 4 and codes.shape[1:] == self.grid,
            f"codes must have shape [B, {', '.join(map(str, self.grid))}], got "
            f"{codes.shape}",
        )

    def _check_labels(self, labels, batch_size: int) -> Int[Array, " B"] | None:
        if self.num_classes == 0:
            require(labels is None, "this prior was trained without labels")
            return None
        require(
            labels is not None,
            f"labels are needed, one of {self.num_classes} classes for each sample",
        )
        require(
            labels.shape == (batch_size,),
            f"labels must have shape [{batch_size}], got {labels.shape}",
        )
        return jnp.asarray(labels)
