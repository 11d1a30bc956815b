"""The slides' last table: GAN, VAE, PixelCNN and VQ-VAE under one budget, measured.

Variants:
  (none)  on scikit-learn's handwritten digits: 1 500 steps of 32 images each; the
          VQ-VAE has 1 050 of them, its prior 450. Three seeds, minutes on a CPU.
  cifar   on CIFAR-10, 25 000 steps of 128 each; the VQ-VAE and its prior share them.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "cifar")


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of a variant."""
    if variant not in VARIANTS:
        raise ValueError(
            f"experiments/comparison.py has no variant {variant!r}; there are "
            f"{', '.join(filter(None, VARIANTS))}"
        )
    on_cifar = variant == "cifar"
    steps = 25_000 if on_cifar else 1500
    steps_of_prior = 3 * steps // 10
    stages, units = (2, 256) if on_cifar else (1, 64)
    autoencoder = {
        "stages": stages,
        "units": units,
        "residual_blocks": 2,
        "residual_units": units if on_cifar else 32,
        "likelihood": "categorical",
        "dtype": "float32",
        "remat": False,
    }
    pixelcnn = {
        "layers": 15 if on_cifar else 4,
        "units": 128 if on_cifar else 32,
        "kernel_size": 5 if on_cifar else 3,
        "cell_layers": 1,
        "dropout": 0.1 if on_cifar else 0.3,
        "label_dropout": 0.0,
        "dtype": "float32",
        "remat": False,
    }
    models = {
        "gan": {
            "latent_dim": 100 if on_cifar else 32,
            "units": 512 if on_cifar else 64,
            "stages": 3 if on_cifar else 2,
            "r1": 0.1,
            "dtype": "float32",
        },
        "vae": {
            **autoencoder,
            "latent_dim": 10 if on_cifar else 2,
            "samples_per_image": 1,
        },
        "pixelcnn": pixelcnn,
        "vqvae": {
            **autoencoder,
            "num_codes": 512 if on_cifar else 64,
            "num_codebooks": 10 if on_cifar else 1,
            "dim": 32 if on_cifar else 16,
            "beta": 0.25,
            "codebook_update": "ema",
            "ema_decay": 0.99,
            "codebook_init": "kmeans",
            "restart_below": 0.1,
        },
    }
    systems = {}
    for kind, model in models.items():
        systems[kind] = {
            "seed": 0,
            "data": _data(on_cifar),
            "model": {"kind": kind, **model},
            "training": _training(steps, on_cifar),
            "samples": _samples(on_cifar),
            "evaluation": {
                "batch_size": 96 if on_cifar else 120,
                "classify_samples": False,
                "train_grids": 10_000,
            },
        }
    # With the usual 0.9 both players' steps overshoot, and the samples collapse.
    systems["gan"]["training"]["beta1"] = 0.5 if on_cifar else 0.0
    vqvae = systems["vqvae"]
    vqvae["training"] = _training(steps - steps_of_prior, on_cifar)
    vqvae["training"]["init_batches"] = 4
    vqvae["prior"] = pixelcnn
    vqvae["prior_training"] = _training(steps_of_prior, on_cifar)
    return ConfigDict({"seeds": 3, "systems": systems})


def _data(on_cifar: bool) -> dict:
    return {
        "source": "tfds",
        "name": "cifar10" if on_cifar else "digits",
        "data_dir": "",
        "image_size": 32 if on_cifar else 8,
        "channels": 3 if on_cifar else 1,
        "random_flip": False,
        "validation_fraction": 0.05 if on_cifar else 0.1,
        "skip_corrupt": False,
        "num_workers": 0,
    }


def _training(steps: int, on_cifar: bool) -> dict:
    return {
        "steps": steps,
        "batch_size": 128 if on_cifar else 32,
        "learning_rate": 2e-4 if on_cifar else 1e-3,
        "beta1": 0.9,
        "schedule": "cosine",
        "warmup_steps": steps // 50,
        "gradient_clip": 1.0,
        "params_ema_decay": 0.999 if on_cifar else 0.99,
        "patience": 0,
        "log_every": steps // 20,
        "checkpoint_every": steps // 10,
        "accumulate": 1,
        "keep": 2,
        "init_batches": 1,
        "profile_steps": 0,
    }


def _samples(on_cifar: bool) -> dict:
    return {
        "num_samples": 320 if on_cifar else 600,
        "batch_size": 80 if on_cifar else 200,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "guidance": 1.0,
    }
