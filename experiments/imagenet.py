"""ImageNet as in section 4.2: 128x128x3 images as 32x32x1 codes, and a prior over them.

Variants:
  (none)      the paper's: K = 512, squared error, 256 units, codebook loss,
              beta = 0.25, Adam 2e-4, batch 128, 250 000 steps, on TFDS's imagenet2012.
              TFDS wants ILSVRC2012_img_train.tar and _val.tar in its folder
              downloads/manual.
  imagenette  the same on ten of its classes, which TFDS downloads.
  folder      the same on image files: --config.data.data_dir=DIR names the folder that
              holds train/<class>/*.jpg and, if there are any, val and test.
  small       image files too, with sizes and steps for a CPU and a thousand images.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "imagenette", "folder", "small")


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of a variant."""
    if variant not in VARIANTS:
        raise ValueError(
            f"experiments/imagenet.py has no variant {variant!r}; there are "
            f"{', '.join(filter(None, VARIANTS))}"
        )
    config = _paper()
    if variant == "imagenette":
        _use_imagenette(config)
    if variant in ("folder", "small"):
        config.data.update({"source": "folder", "name": ""})
    if variant == "small":
        _make_small(config)
    return config


def _paper() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "source": "tfds",
                "name": "imagenet2012",
                "data_dir": "",
                "image_size": 128,
                "channels": 3,
                "random_flip": True,
                "validation_fraction": 0.01,
                "skip_corrupt": False,
                # Decoding full-size photos keeps more than one process busy.
                "num_workers": 8,
            },
            "model": {
                "kind": "vqvae",
                "num_codes": 512,
                "num_codebooks": 1,
                "dim": 64,
                "stages": 2,
                "units": 256,
                "residual_blocks": 2,
                "residual_units": 256,
                "likelihood": "mse",
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
                "beta1": 0.9,
                "schedule": "constant",
                "warmup_steps": 0,
                "gradient_clip": 0.0,
                "params_ema_decay": 0.0,
                "patience": 0,
                "log_every": 100,
                "checkpoint_every": 5000,
                "keep": 2,
                "init_batches": 1,
                "profile_steps": 0,
            },
            # The size that the gated PixelCNN's paper used for 32x32 ImageNet.
            "prior": {
                "layers": 20,
                "units": 384,
                "kernel_size": 5,
                "cell_layers": 1,
                "dropout": 0.1,
                "label_dropout": 0.0,
                "dtype": "bfloat16",
            },
            "prior_training": {
                "steps": 200_000,
                "batch_size": 128,
                "learning_rate": 3e-4,
                "beta1": 0.9,
                "schedule": "cosine",
                "warmup_steps": 1000,
                "gradient_clip": 1.0,
                "params_ema_decay": 0.9999,
                "patience": 0,
                "log_every": 100,
                "checkpoint_every": 5000,
                "keep": 2,
                "init_batches": 1,
                "profile_steps": 0,
            },
            # Four of each of the thousand classes.
            "samples": {
                "num_samples": 4000,
                "batch_size": 400,
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


def _use_imagenette(config: ConfigDict) -> None:
    """Ten classes and 9469 images: a hundredth of the data, so fewer steps."""
    config.data.update({"name": "imagenette/full-size-v2", "validation_fraction": 0.05})
    config.training.steps = 50_000
    # So few grids are soon known by heart.
    config.prior.dropout = 0.5
    config.prior_training.update({"steps": 20_000, "checkpoint_every": 1000})
    config.samples.update({"num_samples": 160, "batch_size": 160})


def _make_small(config: ConfigDict) -> None:
    """Fewer units and steps; the EMA codebook with restarts settles in fewer steps."""
    config.data.update({"validation_fraction": 0.05, "num_workers": 0})
    config.model.update(
        {
            "dim": 16,
            "units": 64,
            "residual_units": 32,
            "codebook_update": "ema",
            "restart_below": 0.5,
        }
    )
    config.training.update(
        {
            "steps": 1200,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "log_every": 50,
            "checkpoint_every": 300,
            "init_batches": 4,
        }
    )
    # With ten times as many steps a thousand grids would be learned by heart.
    config.prior.update(
        {
            "layers": 4,
            "units": 64,
            "kernel_size": 3,
            "dropout": 0.1,
            "dtype": "float32",
        }
    )
    config.prior_training.update(
        {
            "steps": 400,
            "batch_size": 8,
            "learning_rate": 2e-3,
            "warmup_steps": 40,
            "log_every": 50,
            "checkpoint_every": 100,
        }
    )
    config.samples.update({"num_samples": 40, "batch_size": 40})
    config.evaluation.batch_size = 40
