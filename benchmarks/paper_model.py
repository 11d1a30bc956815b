"""The paper's CIFAR-10 model as the benchmarks train it, and its operation count."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.timing import Run
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.quantizers import VQ
from vqvae_jax.training.config import TrainingConfig, make_optimizer
from vqvae_jax.training.step import init_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Section 4.1's: two downsamplings and ten codebooks give 8x8x10 latents."""

    likelihood: str = "mse"
    batch: int = 64
    side: int = 32
    channels: int = 256
    num_codebooks: int = 10
    num_codes: int = 512
    dim: int = 64

    @property
    def outputs(self) -> int:
        """Number of output channels of the decoder."""
        return 3 * (256 if self.likelihood == "categorical" else 1)


TINY = Architecture(batch=4, side=16, channels=8, num_codebooks=2, num_codes=16, dim=4)


def training_flops(sizes: Architecture) -> int:
    """Count a step's multiplications and additions in convolutions and distances.

    The backward pass costs two forward passes, except for the first layer, whose input
    needs no gradient, and for the distances, which have no gradient.
    """
    channels, features = sizes.channels, sizes.num_codebooks * sizes.dim
    full, half, quarter = (sizes.side // 2**i for i in range(3))
    block = quarter**2 * (9 + 1) * channels**2
    first = half**2 * 16 * 3 * channels
    others = (
        quarter**2 * 16 * channels**2
        + 2 * block
        + quarter**2 * channels * features
        + quarter**2 * 9 * features * channels
        + 2 * block
        + half**2 * 4 * channels**2
        + full**2 * 4 * channels * sizes.outputs
    )
    distances = quarter**2 * features * sizes.num_codes
    return 2 * sizes.batch * (2 * first + 3 * others + distances)


def random_batch(sizes: Architecture) -> dict[str, np.ndarray]:
    """Return a batch as the input pipelines produce it."""
    shape = (sizes.batch, sizes.side, sizes.side, 3)
    return {
        "image": np.random.default_rng(0).integers(0, 256, shape, np.uint8),
        "label": np.zeros(sizes.batch, np.int32),
        "mask": np.ones(sizes.batch, bool),
    }


def model(sizes: Architecture, *, dtype: str = "float32") -> VQVAE:
    """Build the model."""
    sections = {"channels": sizes.channels, "dtype": dtype}
    return VQVAE(
        image_shape=(sizes.side, sizes.side, 3),
        quantizer=VQ(
            num_codes=sizes.num_codes,
            num_codebooks=sizes.num_codebooks,
            dim=sizes.dim,
            codebook_init="uniform",
        ),
        encoder=Encoder(residual_channels=sizes.channels, **sections),
        decoder=Decoder(residual_channels=sizes.channels, **sections),
        likelihood=sizes.likelihood,
    )


class Step(NamedTuple):
    """A training step.

    run: performs one step.
    num_bytes: bytes that it reads and writes, as counted by XLA for the compiled
      program.
    """

    run: Run
    num_bytes: float


def training_step(sizes: Architecture, *, dtype: str = "float32") -> Step:
    """Return the training step of this project's loop."""
    trained = model(sizes, dtype=dtype)
    batch = jax.device_put(random_batch(sizes))
    key = jax.random.key(0)
    trainable = trained.trainable(jax.eval_shape(trained.init, key, batch))
    optimizer = make_optimizer(
        TrainingConfig(steps=1, batch_size=sizes.batch), trainable
    )
    state = jax.jit(functools.partial(init_state, trained, optimizer))(key, batch)
    train_step = jax.jit(make_train_step(trained, optimizer), donate_argnums=0)
    compiled = train_step.lower(state, batch).compile()

    def run():
        nonlocal state
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))

    return Step(run, compiled.cost_analysis()["bytes accessed"])
