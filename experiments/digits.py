"""scikit-learn's handwritten digits, 8x8: a minute on a laptop, nothing to download."""

from vqvae_jax.experiments import base

DATA = {
    "data.name": "digits",
    "data.image_size": 8,
    "data.channels": 1,
    "data.validation_fraction": 0.1,
    "evaluation.batch_size": 120,
}
NETWORKS = base.autoencoder(channels=64, num_downsamples=1, residual_channels=32)
DIGITS = {
    **DATA,
    **NETWORKS,
    "model.quantizer.num_codes": 16,
    "model.quantizer.dim": 16,
    "model.quantizer.codebook_update": "ema",
    "model.quantizer.dead_code_threshold": 0.1,
    "training.steps": 3000,
    "training.batch_size": 64,
    "training.learning_rate": 1e-3,
    "training.schedule": "cosine",
    "training.checkpoint_every": 500,
    "training.init_batches": 16,
    "prior.network.layers": 4,
    "prior.network.kernel_size": 3,
    "prior.network.dropout": 0.6,
    "prior_training.steps": 400,
    "prior_training.batch_size": 64,
    "prior_training.learning_rate": 1e-3,
    "prior_training.schedule": "cosine",
    "prior_training.gradient_clip": 1.0,
    "prior_training.params_ema_decay": 0.99,
    "prior_training.patience": 2,
    "prior_training.checkpoint_every": 100,
    "samples.num_samples": 1000,
    "samples.batch_size": 500,
    "samples.temperature": 0.95,
    "evaluation.classify_samples": True,
}

VARIANTS = {"": base.Variant("vqvae", "prior", DIGITS)}
get_config = base.variants(__file__, VARIANTS)
