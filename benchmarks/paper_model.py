"""The paper's CIFAR-10 model as the benchmarks train it, and its arithmetic."""

import dataclasses
import functools

import jax
import numpy as np

from benchmarks.timing import Run
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.training.config import TrainingConfig
from vqvae_jax.training.optimizer import make_optimizer
from vqvae_jax.training.state import init_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Section 4.1's; 8x8x10 latents come from two stages and ten codebooks."""

    likelihood: str = "mse"
    batch: int = 64
    side: int = 32
    units: int = 256
    num_codebooks: int = 10
    num_codes: int = 512
    dim: int = 64

    @property
    def outputs(self) -> int:
        """Channels that the decoder ends in."""
        return 3 * (256 if self.likelihood == "categorical" else 1)


TINY = Architecture(batch=4, side=16, units=8, num_codebooks=2, num_codes=16, dim=4)


def training_flops(sizes: Architecture) -> int:
    """Count a step's multiplications and additions in convolutions and distances.

    The backward pass costs two forward passes, but for the first layer, whose input
    needs no gradient, and for the distances, which have none.
    """
    units, features = sizes.units, sizes.num_codebooks * sizes.dim
    full, half, quarter = (sizes.side // 2**i for i in range(3))
    block = quarter**2 * (9 + 1) * units**2
    first = half**2 * 16 * 3 * units
    others = (
        quarter**2 * 16 * units**2
        + 2 * block
        + quarter**2 * units * features
        + quarter**2 * 9 * features * units
        + 2 * block
        + half**2 * 4 * units**2
        + full**2 * 4 * units * sizes.outputs
    )
    distances = quarter**2 * features * sizes.num_codes
    return 2 * sizes.batch * (2 * first + 3 * others + distances)


def random_batch(sizes: Architecture) -> dict[str, np.ndarray]:
    """Return a batch as the input pipelines give it."""
    shape = (sizes.batch, sizes.side, sizes.side, 3)
    return {
        "image": np.random.default_rng(0).integers(0, 256, shape, np.uint8),
        "label": np.zeros(sizes.batch, np.int32),
        "mask": np.ones(sizes.batch, bool),
    }


def model(sizes: Architecture, *, dtype: str = "float32") -> VQVAE:
    """Return the model."""
    return VQVAE(
        image_shape=(sizes.side, sizes.side, 3),
        num_codes=sizes.num_codes,
        num_codebooks=sizes.num_codebooks,
        dim=sizes.dim,
        units=sizes.units,
        residual_units=sizes.units,
        likelihood=sizes.likelihood,
        codebook_init="uniform",
        dtype=dtype,
    )


def training_step(sizes: Architecture, *, dtype: str = "float32") -> Run:
    """Return a function that trains for one step of this project's own loop."""
    trained = model(sizes, dtype=dtype)
    batch = jax.device_put(random_batch(sizes))
    key = jax.random.key(0)
    trainable = trained.trainable(jax.eval_shape(trained.init, key, batch))
    optimizer = make_optimizer(
        TrainingConfig(steps=1, batch_size=sizes.batch), trainable
    )
    init = jax.jit(functools.partial(init_state, trained, optimizer))
    train_step = jax.jit(make_train_step(trained, optimizer), donate_argnums=0)
    state = init(key, batch)

    def step():
        nonlocal state
        state, metrics = train_step(state, batch)
        jax.block_until_ready((state, metrics))

    return step
