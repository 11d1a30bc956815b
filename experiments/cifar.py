"""CIFAR-10 (section 4.1): 32x32x3 images as 8x8x10 codes, and models to compare with.

Variants:
  (none)    the paper's VQ-VAE: 256 channels, ten codebooks of K = 512, a 256-way
            softmax for each channel, codebook loss, beta = 0.25, Adam 2e-4, batch 128,
            250 000 steps; then a prior over the 640 codes.
  ema       the same with the EMA codebook of appendix A.1.
  fast      a tenth of the steps: EMA codebook with restarts, twice the batch, a larger
            learning rate with warm-up and cosine decay, gradient clipping, and an
            average of the parameters.
  vae       a continuous VAE of the same encoder, decoder and likelihood, with 8x8x10
            Gaussian latents.
  vimco     8x8x10 discrete latents without quantization: VIMCO with 50 samples.
  pixelcnn  a PixelCNN on pixels, without latents.
  gan       a generator and a discriminator of DCGAN's size.
  small, vae_small, vimco_small
            sizes and steps for a CPU, the same for all three; VIMCO has 10 samples.
"""

from vqvae_jax.experiments import base

CIFAR = {
    "data.name": "cifar10",
    "training.checkpoint_every": 5000,
    "samples.num_samples": 160,
    "evaluation.batch_size": 200,
}
PAPER = CIFAR | {
    "model.quantizer.num_codebooks": 10,
    # The paper does not say; ten codebooks share the encoder's output.
    "model.quantizer.dim": 32,
    "model.likelihood": "categorical",
    "training.init_batches": 2,
    "prior.network.cell_layers": 2,
    "prior.network.dropout": 0.1,
    "prior_training.steps": 100_000,
    "prior_training.learning_rate": 3e-4,
    "prior_training.schedule": "cosine",
    "prior_training.warmup_steps": 1000,
    "prior_training.gradient_clip": 1.0,
    "prior_training.checkpoint_every": 5000,
    "samples.batch_size": 160,
}
EMA = {"model.quantizer.codebook_update": "ema"}
# The same architecture in a tenth of the steps.
FAST = EMA | {
    "model.quantizer.dead_code_threshold": 0.1,
    "training.steps": 25_000,
    "training.batch_size": 256,
    "training.learning_rate": 8e-4,
    "training.schedule": "cosine",
    "training.warmup_steps": 500,
    "training.gradient_clip": 1.0,
    "training.params_ema_decay": 0.999,
    "training.checkpoint_every": 1000,
}

# The second batch of samples shows the speed of sampling without compilation.
OTHER = CIFAR | {"samples.batch_size": 80}
VAE = OTHER | {"model.latent_dim": 10}
VIMCO = OTHER | {
    "model.num_codebooks": 10,
    "model.dim": 32,
    # Each sample of each image goes through the decoder.
    "evaluation.batch_size": 48,
}
PIXELCNN = OTHER | {
    "model.network.cell_layers": 2,
    "model.network.dropout": 0.1,
    "training.learning_rate": 3e-4,
    "training.schedule": "cosine",
    "training.params_ema_decay": 0.9999,
}
GAN = OTHER | {"training.beta1": 0.5, "training.params_ema_decay": 0.999}

# A Gaussian instead of 768 logits a pixel: discretised, it is a distribution over the
# 256 values too, so bits/dim means the same.
SMALL = base.autoencoder(channels=32, residual_channels=32) | {
    "model.likelihood": "gaussian",
    "training.steps": 2000,
    "training.batch_size": 32,
    "training.learning_rate": 1e-3,
    "training.schedule": "cosine",
    "training.checkpoint_every": 250,
}
# The EMA codebook with restarts settles in fewer steps.
SMALL_VQVAE = (
    SMALL
    | EMA
    | {
        "model.quantizer.dim": 16,
        "model.quantizer.dead_code_threshold": 0.5,
        "training.init_batches": 4,
        "prior.network.layers": 6,
        "prior.network.channels": 64,
        "prior.network.kernel_size": 3,
        "prior.network.cell_layers": 1,
        "prior_training.steps": 800,
        "prior_training.batch_size": 32,
        "prior_training.learning_rate": 1e-3,
        "prior_training.warmup_steps": 100,
        "prior_training.checkpoint_every": 200,
        "samples.num_samples": 40,
        "samples.batch_size": 40,
    }
)
SMALL_VIMCO = SMALL | {"model.dim": 16, "model.num_samples": 10}

VARIANTS = {
    "": base.Variant("vqvae", "prior", PAPER),
    "ema": base.Variant("vqvae", "prior", PAPER | EMA),
    "fast": base.Variant("vqvae", "prior", PAPER | FAST),
    "vae": base.Variant("vae", changes=VAE),
    "vimco": base.Variant("vimco", changes=VIMCO),
    "pixelcnn": base.Variant("pixelcnn", changes=PIXELCNN),
    "gan": base.Variant("gan", changes=GAN),
    "small": base.Variant("vqvae", "prior", PAPER | SMALL_VQVAE),
    "vae_small": base.Variant("vae", changes=VAE | SMALL),
    "vimco_small": base.Variant("vimco", changes=VIMCO | SMALL_VIMCO),
}
get_config = base.variants(__file__, VARIANTS)
