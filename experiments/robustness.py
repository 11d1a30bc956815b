"""How much a VQ-VAE's results depend on its options; the paper says, not on beta (3.2).

One option of the model is changed at a time: beta from 0.1 to 2, the codes K and their
size D, the codebook's loss or EMA, k-means or a uniform start. On scikit-learn's
digits, three seeds each; other values or seeds by --config.vary.beta, --config.seeds.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; there are no variants."""
    if variant:
        raise ValueError(f"experiments/robustness.py has no variant {variant!r}")
    training = {
        "steps": 1000,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "schedule": "cosine",
        "warmup_steps": 0,
        "gradient_clip": 0.0,
        "params_ema_decay": 0.0,
        "patience": 0,
        "log_every": 250,
        "checkpoint_every": 500,
        "keep": 1,
        "init_batches": 16,
        "profile_steps": 0,
    }
    return ConfigDict(
        {
            "seeds": 3,
            "vary": {
                "beta": (0.1, 0.25, 0.5, 1.0, 2.0),
                "num_codes": (16, 64, 256),
                "dim": (4, 16, 64),
                "codebook_update": ("loss", "ema"),
                "codebook_init": ("kmeans", "uniform"),
            },
            "base": {
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
                    "num_codes": 64,
                    "num_codebooks": 1,
                    "dim": 16,
                    "stages": 1,
                    "units": 64,
                    "residual_blocks": 2,
                    "residual_units": 32,
                    "likelihood": "gaussian",
                    "beta": 0.25,
                    # As in the paper's own results, and nothing that mends a codebook.
                    "codebook_update": "loss",
                    "ema_decay": 0.99,
                    "codebook_init": "kmeans",
                    "restart_below": 0.0,
                    "dtype": "float32",
                },
                "training": training,
                # No prior is trained: bits/dim are those of the uniform prior.
                "prior": {
                    "layers": 1,
                    "units": 16,
                    "kernel_size": 3,
                    "cell_layers": 0,
                    "dropout": 0.0,
                    "label_dropout": 0.0,
                    "dtype": "float32",
                },
                "prior_training": training,
                "samples": {
                    "num_samples": 1,
                    "batch_size": 1,
                    "temperature": 1.0,
                    "top_k": 0,
                    "top_p": 1.0,
                    "guidance": 1.0,
                },
                "evaluation": {
                    "batch_size": 120,
                    "classify_samples": False,
                    "train_grids": 10_000,
                },
            },
        }
    )
