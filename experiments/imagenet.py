"""ImageNet (section 4.2): 128x128x3 images as 32x32x1 codes, and a prior over them.

Variants:
  (none)      the paper's: K = 512, squared error, 256 channels, codebook loss,
              beta = 0.25, Adam 2e-4, batch 128, 250 000 steps, on TFDS's imagenet2012.
              TFDS needs ILSVRC2012_img_train.tar and _val.tar in its folder
              downloads/manual.
  imagenette  the same on ten of its classes, which TFDS downloads.
  folder      the same on image files: --config.data.data_dir=DIR names the folder that
              holds train/<class>/*.jpg and, optionally, val and test.
  small       image files too, with sizes and steps for a CPU and a thousand images.
"""

from vqvae_jax.experiments import base

PAPER = {
    "data.name": "imagenet2012",
    "data.image_size": 128,
    "data.random_flip": True,
    "data.validation_fraction": 0.01,
    # Decoding full-size photos keeps more than one process busy.
    "data.num_workers": 8,
    "training.checkpoint_every": 5000,
    # The size of the gated PixelCNN's paper for 32x32 ImageNet.
    "prior.network.layers": 20,
    "prior.network.channels": 384,
    "prior.network.dropout": 0.1,
    "prior.network.dtype": "bfloat16",
    "prior_training.steps": 200_000,
    "prior_training.learning_rate": 3e-4,
    "prior_training.schedule": "cosine",
    "prior_training.warmup_steps": 1000,
    "prior_training.gradient_clip": 1.0,
    "prior_training.params_ema_decay": 0.9999,
    "prior_training.checkpoint_every": 5000,
    # Four of each of the thousand classes.
    "samples.num_samples": 4000,
    "samples.batch_size": 400,
    "evaluation.batch_size": 200,
    # A pass of the prior for each of a thousand classes.
    "evaluation.sum_over_classes": False,
}
# Ten classes and 9469 images: a hundredth of the data, so fewer steps.
IMAGENETTE = {
    "data.name": "imagenette/full-size-v2",
    "data.validation_fraction": 0.05,
    "training.steps": 50_000,
    # The prior soon overfits so few grids.
    "prior.network.dropout": 0.5,
    "prior_training.steps": 20_000,
    "prior_training.checkpoint_every": 1000,
    "samples.num_samples": 160,
    "samples.batch_size": 160,
    "evaluation.sum_over_classes": True,
}
FOLDER = {"data.source": "folder", "data.name": ""}
# Fewer channels and steps; the EMA codebook with restarts settles in fewer steps.
SMALL = base.autoencoder(channels=64, residual_channels=32) | {
    "data.validation_fraction": 0.05,
    "data.num_workers": 0,
    "model.quantizer.dim": 16,
    "model.quantizer.codebook_update": "ema",
    "model.quantizer.dead_code_threshold": 0.5,
    "training.steps": 1200,
    "training.batch_size": 8,
    "training.learning_rate": 1e-3,
    "training.schedule": "cosine",
    "training.log_every": 50,
    "training.checkpoint_every": 300,
    "training.init_batches": 4,
    "prior.network.layers": 4,
    "prior.network.channels": 64,
    "prior.network.kernel_size": 3,
    "prior.network.dtype": "float32",
    # With ten times as many steps the prior would overfit a thousand grids.
    "prior_training.steps": 400,
    "prior_training.batch_size": 8,
    "prior_training.learning_rate": 2e-3,
    "prior_training.warmup_steps": 40,
    "prior_training.log_every": 50,
    "prior_training.checkpoint_every": 100,
    "samples.num_samples": 40,
    "samples.batch_size": 40,
    "evaluation.batch_size": 40,
    "evaluation.sum_over_classes": True,
}

VARIANTS = {
    "": base.Variant("vqvae", "prior", PAPER),
    "imagenette": base.Variant("vqvae", "prior", PAPER | IMAGENETTE),
    "folder": base.Variant("vqvae", "prior", PAPER | FOLDER),
    "small": base.Variant("vqvae", "prior", PAPER | FOLDER | SMALL),
}
get_config = base.variants(__file__, VARIANTS)
