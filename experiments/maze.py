"""First-person frames as in section 4.2: 84x84x3 images as 21x21x1 codes, and a prior.

ViZDoom plays them, since DeepMind Lab cannot be had everywhere: nothing to download.

Variants:
  (none)  K = 512, squared error, 256 units, codebook loss, beta = 0.25, Adam 2e-4,
          batch 128.
  small   sizes and steps for a CPU.
  global  a second VQ-VAE instead of the prior: the 441 codes of a frame as three, 27
          bits, with a PixelCNN as decoder; beside it, what the paper claims it is
          better than: a VAE with the same networks, and the PixelCNN without latents.
  global_small  the same for a CPU.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "small", "global", "global_small")


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of a variant."""
    if variant not in VARIANTS:
        raise ValueError(
            f"experiments/maze.py has no variant {variant!r}; there are "
            f"{', '.join(filter(None, VARIANTS))}"
        )
    config = _full()
    if "small" in variant:
        _make_small(config)
    if "global" in variant:
        _follow_by_hierarchy(config)
    if variant == "global_small":
        _make_hierarchy_small(config)
    return config


def _full() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "source": "tfds",
                "name": "maze/my_way_home",
                "data_dir": "",
                "image_size": 84,
                "channels": 3,
                # Left would become right.
                "random_flip": False,
                "validation_fraction": 0.05,
                "skip_corrupt": False,
                "num_workers": 0,
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
                "remat": False,
            },
            "training": {
                "steps": 50_000,
                "batch_size": 128,
                "learning_rate": 2e-4,
                "beta1": 0.9,
                "schedule": "constant",
                "warmup_steps": 0,
                "gradient_clip": 0.0,
                "params_ema_decay": 0.0,
                "patience": 0,
                "log_every": 100,
                "checkpoint_every": 1000,
                "accumulate": 1,
                "keep": 2,
                "init_batches": 1,
                "profile_steps": 0,
            },
            "prior": {
                "layers": 15,
                "units": 128,
                "kernel_size": 5,
                "cell_layers": 1,
                "dropout": 0.2,
                "label_dropout": 0.0,
                "dtype": "bfloat16",
                "remat": False,
            },
            "prior_training": {
                "steps": 20_000,
                "batch_size": 64,
                "learning_rate": 3e-4,
                "beta1": 0.9,
                "schedule": "cosine",
                "warmup_steps": 500,
                "gradient_clip": 1.0,
                "params_ema_decay": 0.999,
                "patience": 0,
                "log_every": 100,
                "checkpoint_every": 1000,
                "accumulate": 1,
                "keep": 2,
                "init_batches": 1,
                "profile_steps": 0,
            },
            "samples": {
                "num_samples": 100,
                "batch_size": 100,
                "temperature": 1.0,
                "top_k": 0,
                "top_p": 1.0,
                "guidance": 1.0,
            },
            "evaluation": {
                "batch_size": 96,
                "classify_samples": False,
                "train_grids": 10_000,
            },
        }
    )


def _make_small(config: ConfigDict) -> None:
    """Fewer units and steps; the EMA codebook with restarts settles in fewer steps."""
    config.data.name = "maze/small"
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
            "steps": 800,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "log_every": 50,
            "checkpoint_every": 400,
            "init_batches": 4,
        }
    )
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
            "batch_size": 16,
            "learning_rate": 2e-3,
            "warmup_steps": 40,
            "params_ema_decay": 0.99,
            "log_every": 50,
            "checkpoint_every": 200,
        }
    )
    config.samples.update({"num_samples": 32, "batch_size": 32})


def _follow_by_hierarchy(config: ConfigDict) -> None:
    """Put a second VQ-VAE, whose decoder has the prior's size, in the prior's place."""
    pixelcnn = config.prior.to_dict()
    del pixelcnn["label_dropout"]
    config.hierarchy = ConfigDict(
        {
            **pixelcnn,
            "latents": 3,
            "latent_codes": 512,
            "dim": 64,
            "stages": 2,
            "encoder_units": 128,
            "residual_blocks": 2,
            "residual_units": 64,
            "map_features": 64,
            "beta": 0.25,
            "codebook_update": "ema",
            "ema_decay": 0.99,
            "codebook_init": "kmeans",
            # A code is used 64 / 512 times a step in the mean.
            "restart_below": 0.01,
        }
    )
    config.hierarchy_training = config.prior_training
    # Codebooks of 512 rows start from as many frames.
    config.hierarchy_training.init_batches = 16
    del config["prior"], config["prior_training"]


def _make_hierarchy_small(config: ConfigDict) -> None:
    """Fewer channels and cells seen: three PixelCNNs are trained, not one."""
    config.hierarchy.update(
        {
            "layers": 4,
            "units": 32,
            "kernel_size": 3,
            "dropout": 0.0,
            "dim": 16,
            "encoder_units": 64,
            "residual_blocks": 1,
            "residual_units": 32,
            "map_features": 32,
            # A code is used 16 / 512 times a step in the mean: with 0.99 it would
            # still be where it started when training ends.
            "ema_decay": 0.9,
            "restart_below": 3e-4,
        }
    )
    config.hierarchy_training.update(
        {"steps": 600, "checkpoint_every": 200, "init_batches": 64}
    )
