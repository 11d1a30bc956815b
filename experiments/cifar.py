"""CIFAR-10 as in section 4.1: 32x32x3 images as 8x8x10 codes, and what they are beside.

Variants:
  (none)    the paper's VQ-VAE: 256 units, ten codebooks of K = 512, a 256-way softmax
            for each channel, codebook loss, beta = 0.25, Adam 2e-4, batch 128, 250 000
            steps; then a prior over the 640 codes.
  ema       the same with the EMA codebook of appendix A.1.
  fast      a tenth of the steps: EMA codebook with restarts, twice the batch, a larger
            learning rate with warm-up and cosine decay, gradient clipping, and an
            average of the parameters.
  vae       a continuous VAE of the same encoder, decoder and likelihood, with 8x8x10
            Gaussian latents.
  vimco     8x8x10 discrete latents of the same sizes without quantization: VIMCO with
            50 samples.
  pixelcnn  a PixelCNN on pixels, without a latent.
  gan       a generator and a discriminator of DCGAN's size.
  small, vae_small, vimco_small
            sizes and steps for a CPU, the same for all three; VIMCO has 10 samples.
"""

from ml_collections import ConfigDict

VARIANTS = (
    "",
    "ema",
    "fast",
    "vae",
    "vimco",
    "pixelcnn",
    "gan",
    "small",
    "vae_small",
    "vimco_small",
)
_OF_CODEBOOK = (
    "beta",
    "codebook_update",
    "ema_decay",
    "codebook_init",
    "restart_below",
)


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of a variant."""
    if variant not in VARIANTS:
        raise ValueError(
            f"experiments/cifar.py has no variant {variant!r}; there are "
            f"{', '.join(filter(None, VARIANTS))}"
        )
    config = _paper()
    kind, _, size = variant.partition("_")
    if kind == "ema":
        config.model.codebook_update = "ema"
    if kind == "fast":
        _make_fast(config)
    if "small" in (kind, size):
        _make_small(config)
    if kind in ("vae", "vimco", "pixelcnn", "gan"):
        _use_other_model(config, kind, paper_size=size != "small")
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
                "kind": "vqvae",
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
                "remat": False,
            },
            "training": {
                "steps": 250_000,
                "batch_size": 128,
                "learning_rate": 2e-4,
                "beta1": 0.9,
                "schedule": "constant",
                "warmup_steps": 0,
                "gradient_clip": 0.0,
                "params_ema_decay": 0.0,
                "patience": 0,
                "log_every": 100,
                "checkpoint_every": 5000,
                "accumulate": 1,
                "keep": 2,
                "init_batches": 2,
                "profile_steps": 0,
            },
            "prior": {
                "layers": 15,
                "units": 128,
                "kernel_size": 5,
                "cell_layers": 2,
                "dropout": 0.1,
                "label_dropout": 0.0,
                "dtype": "float32",
                "remat": False,
            },
            "prior_training": {
                "steps": 100_000,
                "batch_size": 128,
                "learning_rate": 3e-4,
                "beta1": 0.9,
                "schedule": "cosine",
                "warmup_steps": 1000,
                "gradient_clip": 1.0,
                "params_ema_decay": 0.0,
                "patience": 0,
                "log_every": 100,
                "checkpoint_every": 5000,
                "accumulate": 1,
                "keep": 2,
                "init_batches": 1,
                "profile_steps": 0,
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
            "units": 32,
            "residual_units": 32,
            "dim": 16,
            "likelihood": "gaussian",
            "codebook_update": "ema",
            "restart_below": 0.5,
        }
    )
    config.training.update(
        {
            "steps": 2000,
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


def _make_fast(config: ConfigDict) -> None:
    """The same architecture in a tenth of the steps."""
    config.model.update({"codebook_update": "ema", "restart_below": 0.1})
    config.training.update(
        {
            "steps": 25_000,
            "batch_size": 256,
            "learning_rate": 8e-4,
            "schedule": "cosine",
            "warmup_steps": 500,
            "gradient_clip": 1.0,
            "params_ema_decay": 0.999,
            "checkpoint_every": 1000,
        }
    )


def _use_other_model(config: ConfigDict, kind: str, *, paper_size: bool) -> None:
    """Keep encoder, decoder, likelihood and training; latents are of the same size."""
    model = config.model
    latents = model.num_codebooks
    del config["prior"], config["prior_training"]
    for name in _OF_CODEBOOK:
        del model[name]
    model.kind = kind
    if kind == "vae":
        for name in ("num_codes", "num_codebooks", "dim"):
            del model[name]
        model.update({"latent_dim": latents, "samples_per_image": 1})
    if kind == "vimco":
        # Each sample of each image goes through the decoder: a CPU affords ten.
        samples = 50 if paper_size else 10
        model.update({"num_samples": samples, "samples_at_once": 1})
        config.evaluation.batch_size = min(48, config.evaluation.batch_size)
    if kind == "pixelcnn":
        config.model = ConfigDict(
            {
                "kind": kind,
                "layers": 15,
                "units": 128,
                "kernel_size": 5,
                "cell_layers": 2,
                "dropout": 0.1,
                "label_dropout": 0.0,
                "dtype": "float32",
                "remat": False,
            }
        )
        config.training.update(
            {"learning_rate": 3e-4, "schedule": "cosine", "params_ema_decay": 0.9999}
        )
    if kind == "gan":
        config.model = ConfigDict(
            {
                "kind": kind,
                "latent_dim": 100,
                "units": 512,
                "stages": 3,
                "r1": 0.1,
                "dtype": "float32",
            }
        )
        config.training.update({"beta1": 0.5, "params_ema_decay": 0.999})
    config.training.init_batches = 1
    # The second batch shows the speed of sampling without its compilation.
    config.samples.update({"num_samples": 160, "batch_size": 80})
