"""Which quantizer works: the same networks, budget and bits with each in turn.

For K = 512, 2 048 and 16 384, three seeds each: bits/dim with the uniform and a learned
prior, PSNR, codes in use, and what the quantizer adds to a step. Every quantizer of one
size has log2 K bits for a vector, as one code or as several.

Variants:
  (none)       scikit-learn's digits.
  cifar_small  CIFAR-10 with the networks of cifar.py:small: hours on a CPU.
  cifar        CIFAR-10 with the networks of cifar.py:fast, for a GPU.

Run some of the quantizers with --config.names=vq --config.names=fsq.
"""

from collections.abc import Mapping
from typing import Any

from vqvae_jax.experiments import base, cifar, digits

EMA = {"kind": "vq", "codebook_update": "ema", "dead_code_threshold": 0.1}


def one_code(num_codes: int, dim: int) -> dict[str, dict[str, Any]]:
    """Return quantizers with a codebook of K rows, for vectors of `dim` features."""
    return {
        "vq": {"kind": "vq", "num_codes": num_codes},
        "vq_ema": EMA | {"num_codes": num_codes},
        "vq_ema_cosine": EMA | {"num_codes": num_codes, "distance": "cosine"},
        "vq_ema_rotation": EMA | {"num_codes": num_codes, "estimator": "rotation"},
        "projected_cosine": {
            "kind": "projected",
            "dim": dim,
            "quantizer": EMA | {"num_codes": num_codes, "dim": 8, "distance": "cosine"},
        },
        "simvq": {"kind": "simvq", "num_codes": num_codes},
        "gumbel": {"kind": "gumbel", "num_codes": num_codes},
    }


def several_codes(codes: int, num_codes: int, dim: int) -> dict[str, dict[str, Any]]:
    """Return quantizers with several codes per vector of `dim` features."""
    return {
        "product_ema": EMA
        | {"num_codebooks": codes, "num_codes": num_codes, "dim": dim // codes},
        "residual_ema": {
            "kind": "residual",
            "levels": codes,
            "quantizer": EMA | {"num_codes": num_codes, "dim": dim},
        },
    }


def without_codebook(levels: tuple[int, ...], bits: int) -> dict[str, dict[str, Any]]:
    """Return quantizers that round."""
    return {
        "fsq": {"kind": "fsq", "levels": levels},
        "lfq": {"kind": "lfq", "bits": bits},
        "bsq": {"kind": "bsq", "bits": bits},
    }


def quantizers(dim: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the quantizers of each size K, for vectors of `dim` features."""
    return {
        "512": one_code(512, dim)
        | several_codes(3, 8, dim)
        | without_codebook((8, 8, 8), 9),
        # 11 bits are prime: no codes of the same size.
        "2048": one_code(2048, dim) | without_codebook((8, 8, 8, 4), 11),
        "16384": one_code(16384, dim)
        | several_codes(2, 128, dim)
        | without_codebook((8, 8, 8, 8, 4), 14),
    }


def study(changes: Mapping[str, Any], *, dim: int) -> dict[str, Any]:
    """Return a study; the quantizer that `changes` name is left out."""
    kept = {k: v for k, v in changes.items() if not k.startswith("model.quantizer.")}
    return {
        "seeds": 3,
        "names": (),
        "base": base.Variant("vqvae", "prior", kept | {"model.quantizer.dim": dim}),
        "quantizers": quantizers(dim),
    }


DIGITS = digits.DIGITS | {
    "training.steps": 600,
    "training.log_every": 200,
    "training.checkpoint_every": 200,
    "prior.network.channels": 64,
    "prior.network.dropout": 0.2,
    "prior_training.steps": 200,
    "prior_training.learning_rate": 3e-3,
    # A likelihood with bits.
    "model.likelihood": "gaussian",
    "samples.num_samples": 500,
}
CIFAR_SMALL = (
    cifar.PAPER
    | cifar.SMALL_VQVAE
    | {
        # Of the likelihoods with bits the one that costs least.
        "model.likelihood": "gaussian",
        "training.steps": 500,
        "prior_training.steps": 150,
        "prior_training.warmup_steps": 30,
        "prior_training.log_every": 50,
        "prior_training.checkpoint_every": 50,
        "evaluation.train_grids": 1000,
    }
)
CIFAR = cifar.PAPER | cifar.FAST

VARIANTS = {
    "": study(DIGITS, dim=24),
    "cifar_small": study(CIFAR_SMALL, dim=48),
    "cifar": study(CIFAR, dim=96),
}
get_config = base.variants(__file__, VARIANTS)
