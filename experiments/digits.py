"""scikit-learn's handwritten digits, 8x8: a minute on a laptop, nothing to download."""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; there are no variants."""
    if variant:
        raise ValueError(f"experiments/digits.py has no variant {variant!r}")
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "source": "tfds",
                "name": "digits",
                "data_dir": "",
                "image_size": 8,
                "channels": 1,
                "random_flip": False,
                "validation_fraction": 0.1,
                "skip_corrupt": False,
                "num_workers": 0,
            },
            "model": {
                "kind": "vqvae",
                "num_codes": 16,
                "num_codebooks": 1,
                "dim": 16,
                "stages": 1,
                "units": 64,
                "residual_blocks": 2,
                "residual_units": 32,
                "likelihood": "mse",
                "beta": 0.25,
                "codebook_update": "ema",
                "ema_decay": 0.99,
                "codebook_init": "kmeans",
                "restart_below": 0.1,
                "dtype": "float32",
            },
            "training": {
                "steps": 3000,
                "batch_size": 64,
                "learning_rate": 1e-3,
                "beta1": 0.9,
                "schedule": "cosine",
                "warmup_steps": 0,
                "gradient_clip": 0.0,
                "params_ema_decay": 0.0,
                "patience": 0,
                "log_every": 100,
                "checkpoint_every": 500,
                "keep": 2,
                "init_batches": 16,
                "profile_steps": 0,
            },
            "prior": {
                "layers": 4,
                "units": 128,
                "kernel_size": 3,
                "cell_layers": 1,
                "dropout": 0.6,
                "label_dropout": 0.0,
                "dtype": "float32",
            },
            "prior_training": {
                "steps": 400,
                "batch_size": 64,
                "learning_rate": 1e-3,
                "beta1": 0.9,
                "schedule": "cosine",
                "warmup_steps": 0,
                "gradient_clip": 1.0,
                "params_ema_decay": 0.99,
                "patience": 2,
                "log_every": 100,
                "checkpoint_every": 100,
                "keep": 2,
                "init_batches": 1,
                "profile_steps": 0,
            },
            "samples": {
                "num_samples": 1000,
                "batch_size": 500,
                "temperature": 0.95,
                "top_k": 0,
                "top_p": 1.0,
                "guidance": 1.0,
            },
            "evaluation": {
                "batch_size": 120,
                "classify_samples": True,
                "train_grids": 10_000,
            },
        }
    )
