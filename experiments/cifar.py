"""CIFAR-10 (section 4.1): 32x32x3 images as 8x8x10 codes, and models to compare with.

Variants:
  (none)    the paper's VQ-VAE: 256 channels, ten codebooks of K = 512, a 256-way
            softmax for each channel, codebook loss, beta = 0.25, Adam 2e-4, batch 128,
            250 000 steps; then a prior over the 640 codes. The paper leaves the last
            layers open: here a hidden layer at full resolution, then the logits.
  ema       the same with the EMA codebook of appendix A.1.
  fast      the same networks in a fifth of the steps: EMA codebook with restarts,
            random flips, twice the batch, a larger learning rate with warm-up and
            cosine decay, gradient clipping, and an average of the parameters.
  best      fast with p(x|z) a mixture of logistics whose channels are coupled
            (PixelCNN++) instead of the softmax, more steps, and a larger prior.
  vae       a continuous VAE of the same encoder, decoder and likelihood, with 8x8x10
            Gaussian latents.
  vimco     8x8x10 discrete latents without quantization: VIMCO with 50 samples.
  pixelcnn  a PixelCNN on pixels, without latents.
  gan       a generator and a discriminator of DCGAN's size.
  small, vae_small, vimco_small
            sizes and steps for a CPU, the same for all three, with best's likelihood;
            VIMCO has 10 samples.
"""

from vqvae_jax.experiments import base

CIFAR = {
    "data.name": "cifar10",
    "training.checkpoint_every": 5000,
    "samples.num_samples": 160,
    "evaluation.batch_size": 200,
}
# A hidden layer at full resolution is less work than 768 logits from the transposed
# convolution.
IMAGES = CIFAR | {"model.decoder.full_resolution_layers": 1}
PAPER = IMAGES | {
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
# The same networks in a fifth of the steps. On a GPU the images stay on the device, and
# a hundred steps are one dispatch.
FAST = EMA | {
    "data.random_flip": True,
    "data.on_device": True,
    "model.quantizer.dead_code_threshold": 0.1,
    "model.encoder.dtype": "bfloat16",
    "model.decoder.dtype": "bfloat16",
    "training.steps": 50_000,
    "training.batch_size": 256,
    "training.learning_rate": 8e-4,
    "training.schedule": "cosine",
    "training.warmup_steps": 500,
    "training.gradient_clip": 1.0,
    "training.params_ema_decay": 0.999,
    "training.steps_per_call": 100,
    "training.checkpoint_every": 2500,
    "prior.network.layers": 10,
    "prior.network.dropout": 0.2,
    "prior.network.dtype": "bfloat16",
    "prior_training.steps": 10_000,
    "prior_training.batch_size": 256,
    "prior_training.learning_rate": 1e-3,
    "prior_training.warmup_steps": 300,
    "prior_training.params_ema_decay": 0.999,
    "prior_training.weight_decay": 0.01,
    "prior_training.patience": 4,
    "prior_training.steps_per_call": 50,
    "prior_training.checkpoint_every": 1000,
}
BEST = FAST | {
    "model.likelihood": "coupled_logistic_mixture",
    "training.steps": 70_000,
    "prior.network.layers": 12,
    "prior.network.channels": 192,
    "prior_training.steps": 20_000,
}

# The second batch of samples shows the speed of sampling without compilation.
BATCHES = {"samples.batch_size": 80}
OTHER = CIFAR | BATCHES
VAE = IMAGES | BATCHES | {"model.latent_dim": 10}
VIMCO = (
    IMAGES
    | BATCHES
    | {
        "model.num_codebooks": 10,
        "model.dim": 32,
        # Each sample of each image goes through the decoder.
        "evaluation.batch_size": 48,
    }
)
PIXELCNN = OTHER | {
    "model.network.cell_layers": 2,
    "model.network.dropout": 0.1,
    "training.learning_rate": 3e-4,
    "training.schedule": "cosine",
    "training.params_ema_decay": 0.9999,
}
GAN = OTHER | {"training.beta1": 0.5, "training.params_ema_decay": 0.999}

SMALL = base.autoencoder(channels=32, residual_channels=32) | {
    # Its 1x1 convolution would see 32 numbers of a pixel, the transposed one sees 128.
    "model.decoder.full_resolution_layers": 0,
    "model.likelihood": "coupled_logistic_mixture",
    "training.steps": 2000,
    "training.batch_size": 32,
    "training.learning_rate": 1e-3,
    "training.schedule": "cosine",
    "training.checkpoint_every": 250,
}
# The EMA codebook with restarts settles in fewer steps, and with a short memory it
# follows an encoder that changes fast.
SMALL_VQVAE = (
    SMALL
    | EMA
    | {
        "model.quantizer.dim": 16,
        "model.quantizer.ema_decay": 0.9,
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
        # Eleven passes of the prior over 10 000 test images take a CPU many minutes.
        "evaluation.sum_over_classes": False,
    }
)
SMALL_VIMCO = SMALL | {"model.dim": 16, "model.num_samples": 10}

VARIANTS = {
    "": base.Variant("vqvae", "prior", PAPER),
    "ema": base.Variant("vqvae", "prior", PAPER | EMA),
    "fast": base.Variant("vqvae", "prior", PAPER | FAST),
    "best": base.Variant("vqvae", "prior", PAPER | BEST),
    "vae": base.Variant("vae", changes=VAE),
    "vimco": base.Variant("vimco", changes=VIMCO),
    "pixelcnn": base.Variant("pixelcnn", changes=PIXELCNN),
    "gan": base.Variant("gan", changes=GAN),
    "small": base.Variant("vqvae", "prior", PAPER | SMALL_VQVAE),
    "vae_small": base.Variant("vae", changes=VAE | SMALL),
    "vimco_small": base.Variant("vimco", changes=VIMCO | SMALL_VIMCO),
}
get_config = base.variants(__file__, VARIANTS)
