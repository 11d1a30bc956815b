"""CIFAR-10 as in section 4.1: 32x32x3 images as 8x8x10 codes, and a prior over them.

Variants:
  (none)  the paper's: 256 units, ten codebooks of K = 512, a 256-way softmax for each
          channel, codebook loss, beta = 0.25, Adam 2e-4, batch 128, 250 000 steps.
  ema     the same with the EMA codebook of appendix A.1.
  small   sizes and steps for a CPU.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "ema", "small")


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of a variant."""
    if variant not in VARIANTS:
        raise ValueError(
            f"experiments/cifar.py has no variant {variant!r}; there are "
            f"{', '.join(filter(None, VARIANTS))}"
        )
    config = _paper()
    if variant == "ema":
        config.model.codebook_update = "ema"
    if variant == "small":
        _make_small(config)
    return config


def _paper() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "source": "tfds",
                "name": "cifar10",
                "data_dir": "",
                "image_size": 32,
                "channels": 3,
                "random_flip": False,
                "validation_fraction": 0.05,
                "skip_corrupt": False,
                "num_workers": 0,
            },
            "model": {
                "num_codes": 512,
                "num_codebooks": 10,
                # The paper does not say; ten codebooks share the encoder's output.
                "dim": 32,
                "stages": 2,
                "units": 256,
                "residual_blocks": 2,
                "residual_units": 256,
                "likelihood": "categorical",
                "beta": 0.25,
                "codebook_update": "loss",
                "ema_decay": 0.99,
                "codebook_init": "kmeans",
                "restart_below": 0.0,
                "dtype": "float32",
            },
            "training": {
                "steps": 250_000,
                "batch_size": 128,
                "learning_rate": 2e-4,
                "schedule": "constant",
                "warmup_steps": 0,
                "gradient_clip": 0.0,
                "params_ema_decay": 0.0,
                "patience": 0,
                "log_every": 100,
                "checkpoint_every": 5000,
                "keep": 2,
                "init_batches": 2,
            },
            "prior": {
                "layers": 15,
                "units": 128,
                "kernel_size": 5,
                "cell_layers": 2,
                "dropout": 0.1,
                "label_dropout": 0.0,
                "dtype": "float32",
            },
            "prior_training": {
                "steps": 100_000,
                "batch_size": 128,
                "learning_rate": 3e-4,
                "schedule": "cosine",
                "warmup_steps": 1000,
                "gradient_clip": 1.0,
                "params_ema_decay": 0.0,
                "patience": 0,
                "log_every": 100,
                "checkpoint_every": 5000,
                "keep": 2,
                "init_batches": 1,
            },
            "samples": {
                "num_samples": 160,
                "batch_size": 160,
                "temperature": 1.0,
                "top_k": 0,
                "top_p": 1.0,
                "guidance": 1.0,
            },
            "evaluation": {
                "batch_size": 200,
                "classify_samples": False,
                "train_grids": 10_000,
            },
        }
    )


def _make_small(config: ConfigDict) -> None:
    """Fewer units and steps, and a Gaussian instead of 768 logits a pixel.

    The discretised Gaussian is a distribution over the 256 values too, so bits/dim
    means the same. The EMA codebook with restarts settles in fewer steps.
    """
    config.model.update(
        {
            "units": 64,
            "residual_units": 64,
            "dim": 16,
            "likelihood": "gaussian",
            "codebook_update": "ema",
            "restart_below": 0.5,
        }
    )
    config.training.update(
        {
            "steps": 3000,
            "batch_size": 32,
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "checkpoint_every": 250,
            "init_batches": 4,
        }
    )
    config.prior.update({"layers": 6, "units": 64, "kernel_size": 3, "cell_layers": 1})
    config.prior_training.update(
        {
            "steps": 800,
            "batch_size": 32,
            "learning_rate": 1e-3,
            "warmup_steps": 100,
            "checkpoint_every": 200,
        }
    )
    config.samples.update({"num_samples": 40, "batch_size": 40})
