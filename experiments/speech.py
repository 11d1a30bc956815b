"""Speech as in section 4.3: codes of a waveform, and a WaveNet that says them again.

eSpeak NG speaks, since VCTK cannot be had everywhere: nothing to download, and the time
of each phone is known.

Variants:
  (none)         K = 512, a code for 64 samples (250 a second), 36 speakers: the decoder
                 is told who speaks, so that another speaker can say the same.
  phonemes       K = 128, a code for 640 samples (25 a second): do codes mean phonemes?
  unconditional  a code for 128 samples, and a prior over windows of 320 codes, 2.6 s:
                 speech from nothing.
  small, phonemes_small, unconditional_small
                 sizes, speakers and steps for a CPU.
"""

from ml_collections import ConfigDict

VARIANTS = (
    "",
    "phonemes",
    "unconditional",
    "small",
    "phonemes_small",
    "unconditional_small",
)


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of a variant."""
    if variant not in VARIANTS:
        raise ValueError(
            f"experiments/speech.py has no variant {variant!r}; there are "
            f"{', '.join(filter(None, VARIANTS))}"
        )
    config = _full()
    if "phonemes" in variant:
        config.model.update({"num_codes": 128, "downsampling": 640})
    if "unconditional" in variant:
        config.model.downsampling = 128
        _follow_by_prior(config)
    # Equation 3 has the log p of all samples of a code beside one commitment; here both
    # are means. With 0.25 itself z_e shrinks to a point before the decoder listens.
    config.model.beta = 0.25 / config.model.downsampling
    if "small" in variant:
        _make_small(config)
    return config


def _full() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "source": "tfds",
                "name": "speech/english",
                "data_dir": "",
                "sample_rate": 16_000,
                # 0.48 s, a multiple of all downsamplings.
                "crop_samples": 7680,
                "validation_fraction": 0.05,
                "skip_corrupt": False,
                "num_workers": 0,
            },
            "model": {
                "kind": "speech",
                "num_codes": 512,
                "dim": 64,
                "beta": 0.0,
                "codebook_update": "ema",
                "ema_decay": 0.99,
                "codebook_init": "kmeans",
                "restart_below": 0.5,
                "downsampling": 64,
                "units": 256,
                "residual_blocks": 2,
                "stacks": 3,
                "layers": 10,
                "wavenet_units": 128,
                "skip_units": 256,
                "jitter": 0.0,
                "dtype": "bfloat16",
            },
            "training": {
                "steps": 200_000,
                "batch_size": 32,
                "learning_rate": 3e-4,
                "beta1": 0.9,
                "schedule": "cosine",
                "warmup_steps": 1000,
                "gradient_clip": 1.0,
                "params_ema_decay": 0.999,
                "patience": 0,
                "log_every": 100,
                "checkpoint_every": 5000,
                "keep": 2,
                "init_batches": 4,
                "profile_steps": 0,
            },
            # Utterances, each said by its speaker and by another one.
            "samples": {
                "num_samples": 64,
                "batch_size": 64,
                "temperature": 1.0,
                "top_k": 0,
                "top_p": 1.0,
                "guidance": 1.0,
            },
            "evaluation": {
                "batch_size": 16,
                "classify_samples": False,
                "train_grids": 10_000,
            },
        }
    )


def _follow_by_prior(config: ConfigDict) -> None:
    """Add a WaveNet over the codes."""
    config.sequence_prior = ConfigDict(
        {
            "conditional": False,
            "latents": 320,
            "stacks": 3,
            "layers": 8,
            "units": 192,
            "skip_units": 256,
            "dropout": 0.1,
            "dtype": "bfloat16",
        }
    )
    config.sequence_prior_training = ConfigDict(
        {
            "steps": 50_000,
            "batch_size": 64,
            "learning_rate": 3e-4,
            "beta1": 0.9,
            "schedule": "cosine",
            "warmup_steps": 500,
            "gradient_clip": 1.0,
            "params_ema_decay": 0.999,
            "patience": 5,
            "log_every": 100,
            "checkpoint_every": 1000,
            "keep": 2,
            "init_batches": 1,
            "profile_steps": 0,
        }
    )


def _make_small(config: ConfigDict) -> None:
    """Ten speakers, and networks that a CPU trains in minutes."""
    config.data.name = "speech/small"
    config.data.crop_samples = 3840
    config.model.update(
        {
            "dim": 32,
            "units": 64,
            "residual_blocks": 1,
            "stacks": 2,
            "layers": 8,
            "wavenet_units": 32,
            "skip_units": 64,
            "dtype": "float32",
        }
    )
    if config.model.downsampling > 64:
        # A code is used less than half of a time a step in the mean, and one that is
        # not must be found dead within tens of steps, not hundreds.
        config.model.update({"ema_decay": 0.95, "restart_below": 0.1})
    config.training.update(
        {
            "steps": 600,
            "batch_size": 8,
            "learning_rate": 4e-3,
            "warmup_steps": 30,
            "params_ema_decay": 0.99,
            "log_every": 25,
            "checkpoint_every": 300,
            "init_batches": 8,
        }
    )
    config.samples.update({"num_samples": 24, "batch_size": 24})
    # Sixteen utterances' logits take 7 GiB.
    config.evaluation.batch_size = 4
    if "sequence_prior" in config:
        config.sequence_prior.update(
            {
                "stacks": 2,
                "layers": 6,
                "units": 64,
                "skip_units": 64,
                "dtype": "float32",
            }
        )
        config.sequence_prior_training.update(
            {
                "steps": 400,
                "batch_size": 8,
                "learning_rate": 2e-3,
                "warmup_steps": 20,
                "params_ema_decay": 0.98,
                "log_every": 50,
                "checkpoint_every": 200,
            }
        )
