"""The slides' last table: GAN, VAE, PixelCNN and VQ-VAE under one budget, measured.

Variants:
  (none)  on scikit-learn's handwritten digits: 1 500 steps of 32 images each; the
          VQ-VAE has 1 050 of them, its prior 450. Three seeds, minutes on a CPU.
  cifar   on CIFAR-10, 25 000 steps of 128 each; the VQ-VAE and its prior share them.
"""

from vqvae_jax.experiments import base, digits


def _training(section: str, steps: int, options: dict) -> dict:
    return base.change(
        section,
        steps=steps,
        schedule="cosine",
        warmup_steps=steps // 50,
        gradient_clip=1.0,
        log_every=steps // 20,
        checkpoint_every=steps // 10,
        **options,
    )


def _suite(
    steps: int,
    *,
    shared: dict,
    training: dict,
    autoencoder: dict,
    pixelcnn: dict,
    gan: dict,
    vae: dict,
    quantizer: dict,
) -> dict:
    """Return the systems; the VQ-VAE's prior takes 3 steps of 10 from it."""
    prior_steps = 3 * steps // 10
    alone = shared | _training("training", steps, training)
    vqvae = {
        **shared,
        **autoencoder,
        **base.change("model.quantizer", **quantizer),
        "model.likelihood": "categorical",
        "model.quantizer.codebook_update": "ema",
        "model.quantizer.dead_code_threshold": 0.1,
        **base.change("prior.network", **pixelcnn),
        **_training("training", steps - prior_steps, training),
        **_training("prior_training", prior_steps, training),
        "training.init_batches": 4,
    }
    systems = {
        "gan": base.Variant("gan", changes=alone | gan),
        "vae": base.Variant("vae", changes=alone | autoencoder | vae),
        "pixelcnn": base.Variant(
            "pixelcnn", changes=alone | base.change("model.network", **pixelcnn)
        ),
        "vqvae": base.Variant("vqvae", "prior", vqvae),
    }
    return {"seeds": 3, "systems": systems}


DIGITS = _suite(
    1500,
    shared=digits.DATA | {"samples.num_samples": 600, "samples.batch_size": 200},
    training={"batch_size": 32, "learning_rate": 1e-3, "params_ema_decay": 0.99},
    autoencoder=digits.NETWORKS,
    pixelcnn={"layers": 4, "channels": 32, "kernel_size": 3, "dropout": 0.3},
    # With beta1 = 0.9 both players' steps overshoot, and the samples collapse.
    gan=base.change(
        "model.generator", "model.discriminator", channels=64, num_downsamples=2
    )
    | {"model.latent_dim": 32, "training.beta1": 0.0},
    vae={"model.latent_dim": 2},
    quantizer={"num_codes": 64, "dim": 16},
)
CIFAR = _suite(
    25_000,
    shared={
        "data.name": "cifar10",
        "samples.num_samples": 320,
        "samples.batch_size": 80,
        "evaluation.batch_size": 96,
    },
    training={"params_ema_decay": 0.999},
    autoencoder={},
    pixelcnn={"dropout": 0.1},
    gan={"training.beta1": 0.5},
    vae={"model.latent_dim": 10},
    quantizer={"num_codebooks": 10, "dim": 32},
)

VARIANTS = {"": DIGITS, "cifar": CIFAR}
get_config = base.variants(__file__, VARIANTS)
