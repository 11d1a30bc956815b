"""First-person frames (section 4.2): 84x84x3 images as 21x21x1 codes, and a prior.

ViZDoom renders them, as DeepMind Lab is not available everywhere; nothing to download.

Variants:
  (none)  K = 512, squared error, 256 channels, codebook loss, beta = 0.25, Adam 2e-4,
          batch 128.
  small   sizes and steps for a CPU.
  global  a second VQ-VAE instead of the prior: the 441 codes of a frame as three, 27
          bits, with a PixelCNN as decoder; and the two baselines that the paper
          compares it with: a VAE with the same networks, and the PixelCNN without
          latents.
  global_small  the same for a CPU.
"""

from vqvae_jax.experiments import base

FRAMES = {
    # No random flips: left would become right.
    "data.name": "maze/my_way_home",
    "data.image_size": 84,
    "training.steps": 50_000,
    "evaluation.batch_size": 96,
}
# Fewer channels and steps; the EMA codebook with restarts settles in fewer steps.
SMALL_FRAMES = base.autoencoder(channels=64, residual_channels=32) | {
    "data.name": "maze/small",
    "model.quantizer.dim": 16,
    "model.quantizer.codebook_update": "ema",
    "model.quantizer.dead_code_threshold": 0.5,
    "training.steps": 800,
    "training.batch_size": 16,
    "training.learning_rate": 1e-3,
    "training.schedule": "cosine",
    "training.log_every": 50,
    "training.checkpoint_every": 400,
    "training.init_batches": 4,
}

TRAINING = {
    "steps": 20_000,
    "batch_size": 64,
    "learning_rate": 3e-4,
    "schedule": "cosine",
    "warmup_steps": 500,
    "gradient_clip": 1.0,
    "params_ema_decay": 0.999,
}
SMALL_TRAINING = {
    "steps": 400,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "warmup_steps": 40,
    "params_ema_decay": 0.99,
    "log_every": 50,
    "checkpoint_every": 200,
}
SMALL_SAMPLES = {"samples.num_samples": 32, "samples.batch_size": 32}

PRIOR = base.change("prior_training", **TRAINING) | {
    "prior.network.dropout": 0.2,
    "prior.network.dtype": "bfloat16",
}
SMALL_PRIOR = base.change("prior_training", **SMALL_TRAINING) | {
    "prior.network.layers": 4,
    "prior.network.channels": 64,
    "prior.network.kernel_size": 3,
    "prior.network.dropout": 0.1,
    "prior.network.dtype": "float32",
}

LATENTS = ("hierarchy.encoder", "hierarchy.to_map")
# The PixelCNN has the prior's size.
HIERARCHY = (
    base.change("hierarchy_training", **TRAINING)
    | base.change(*LATENTS, "hierarchy.pixelcnn", dtype="bfloat16")
    | {
        "hierarchy.quantizer.codebook_update": "ema",
        # The mean use of a code is 64 / 512 per step.
        "hierarchy.quantizer.dead_code_threshold": 0.01,
        "hierarchy.pixelcnn.dropout": 0.2,
        # Codebooks of 512 rows start from as many frames.
        "hierarchy_training.init_batches": 16,
    }
)
# Fewer channels and a smaller receptive field: three PixelCNNs are trained, not one.
SMALL_HIERARCHY = (
    base.change("hierarchy_training", **SMALL_TRAINING)
    | base.change(*LATENTS, "hierarchy.pixelcnn", dtype="float32")
    | base.change(*LATENTS, channels=64, residual_blocks=1, residual_channels=32)
    | {
        "hierarchy.quantizer.dim": 16,
        # The mean use of a code is 16 / 512 per step: with a decay of 0.99 a code would
        # hardly move from its start before training ends.
        "hierarchy.quantizer.ema_decay": 0.9,
        "hierarchy.quantizer.dead_code_threshold": 3e-4,
        "hierarchy.to_map.out_channels": 32,
        "hierarchy.pixelcnn.layers": 4,
        "hierarchy.pixelcnn.channels": 32,
        "hierarchy.pixelcnn.kernel_size": 3,
        "hierarchy.pixelcnn.dropout": 0.0,
        "hierarchy_training.steps": 600,
        "hierarchy_training.init_batches": 64,
    }
)

SMALL = FRAMES | SMALL_FRAMES | SMALL_SAMPLES
VARIANTS = {
    "": base.Variant("vqvae", "prior", FRAMES | PRIOR),
    "small": base.Variant("vqvae", "prior", SMALL | PRIOR | SMALL_PRIOR),
    "global": base.Variant("vqvae", "hierarchy", FRAMES | HIERARCHY),
    "global_small": base.Variant(
        "vqvae", "hierarchy", SMALL | HIERARCHY | SMALL_HIERARCHY
    ),
}
get_config = base.variants(__file__, VARIANTS)
