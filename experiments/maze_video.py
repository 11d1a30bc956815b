"""Action-conditional video in the space of codes (section 4.4), on first-person frames.

The VQ-VAE is that of experiments/maze.py; a model of clips of its codes follows. Six
frames of a test clip are given and ten are drawn, under each action and under the
recorded ones.

Variants:
  (none)                 the full sizes.
  without_actions        the same, but told of no action.
  small                  sizes and steps for a CPU.
  small_without_actions  both.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "without_actions", "small", "small_without_actions")


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of a variant."""
    if variant not in VARIANTS:
        raise ValueError(
            f"experiments/maze_video.py has no variant {variant!r}; there are "
            f"{', '.join(filter(None, VARIANTS))}"
        )
    config = _full()
    if variant.startswith("small"):
        _make_small(config)
    config.video.actions = not variant.endswith("without_actions")
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
            "video": {
                "actions": True,
                "clip_frames": 16,
                "given_frames": 6,
                "generated_frames": 10,
                "context_layers": 4,
                "context_units": 192,
                "context_kernel_size": 5,
                "layers": 10,
                "units": 128,
                "kernel_size": 5,
                "cell_layers": 1,
                "dropout": 0.1,
                "dtype": "bfloat16",
                "remat": False,
            },
            "video_training": {
                "steps": 30_000,
                "batch_size": 16,
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
            # Clips; each is drawn once an action and once more.
            "samples": {
                "num_samples": 64,
                "batch_size": 32,
                "temperature": 1.0,
                "top_k": 0,
                "top_p": 1.0,
                "guidance": 1.0,
            },
            "evaluation": {
                "batch_size": 40,
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
    config.video.update(
        {
            "context_layers": 3,
            "context_units": 48,
            "context_kernel_size": 3,
            "layers": 3,
            "units": 48,
            "kernel_size": 3,
            "dropout": 0.0,
            "dtype": "float32",
        }
    )
    config.video_training.update(
        {
            "steps": 300,
            "batch_size": 2,
            "learning_rate": 4e-3,
            "warmup_steps": 20,
            "params_ema_decay": 0.98,
            "log_every": 20,
            "checkpoint_every": 100,
        }
    )
    config.samples.update({"num_samples": 16, "batch_size": 8, "temperature": 0.9})
    config.evaluation.batch_size = 16
