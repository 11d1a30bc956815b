"""How much a VQ-VAE's results depend on its options; the paper: not on beta (3.2).

One option of the model is changed at a time: beta from 0.1 to 2, the codes K and their
size D, the codebook's loss or EMA, k-means or a uniform start. On scikit-learn's
digits, three seeds each; set other values with --config.vary.quantizer.beta, other
seeds with --config.seeds.
"""

from vqvae_jax.experiments import base, digits

VARY = {
    "quantizer": {
        "beta": (0.1, 0.25, 0.5, 1.0, 2.0),
        "num_codes": (16, 64, 256),
        "dim": (4, 16, 64),
        "codebook_update": ("loss", "ema"),
        "codebook_init": ("kmeans", "uniform"),
    }
}
# No restarts of dead codes, as in the paper.
DIGITS = (
    digits.DATA
    | digits.NETWORKS
    | base.change(
        "training",
        "prior_training",
        steps=1000,
        batch_size=64,
        learning_rate=1e-3,
        schedule="cosine",
        log_every=250,
        checkpoint_every=500,
        keep=1,
        init_batches=16,
    )
    | {
        "model.quantizer.num_codes": 64,
        "model.quantizer.dim": 16,
        "model.likelihood": "gaussian",
        # No prior is trained: bits/dim are those of the uniform prior.
        "prior.network.layers": 1,
        "prior.network.channels": 16,
        "prior.network.kernel_size": 3,
        "prior.network.cell_layers": 0,
        "samples.num_samples": 1,
        "samples.batch_size": 1,
    }
)

VARIANTS = {
    "": {"seeds": 3, "vary": VARY, "base": base.Variant("vqvae", "prior", DIGITS)}
}
get_config = base.variants(__file__, VARIANTS)
