"""Likelihoods p(x|z) of images with 256 values per channel.

Each likelihood reads `num_outputs(channels)` outputs of the decoder per pixel and is a
distribution over the 256 integers of each channel: its probabilities sum to 1, so its
log-probability counts towards bits/dim. Only `MeanSquaredError` is a density: it trains
the paper's ImageNet and DeepMind Lab models and is never reported as bits/dim.
"""

from vqvae_jax.likelihoods.base import (
    NUM_VALUES,
    Likelihood,
    log_p_of,
    require_uint8,
    scaled,
    to_uint8,
    unscaled,
)
from vqvae_jax.likelihoods.categorical import Categorical
from vqvae_jax.likelihoods.gaussian import DiscretizedGaussian, MeanSquaredError
from vqvae_jax.likelihoods.logistic import CoupledLogisticMixture, LogisticMixture
from vqvae_jax.runtime.errors import require

__all__ = [
    "NUM_VALUES",
    "Categorical",
    "CoupledLogisticMixture",
    "DiscretizedGaussian",
    "Likelihood",
    "LogisticMixture",
    "MeanSquaredError",
    "by_name",
    "log_p_of",
    "require_uint8",
    "scaled",
    "to_uint8",
    "unscaled",
]

_BY_NAME = {
    "categorical": Categorical(),
    "gaussian": DiscretizedGaussian(),
    "gaussian_fixed": DiscretizedGaussian(scale=0.1),
    "logistic_mixture": LogisticMixture(),
    "coupled_logistic_mixture": CoupledLogisticMixture(),
    "mse": MeanSquaredError(),
}


def by_name(name: str) -> Likelihood:
    """Return the likelihood with the name that a config uses.

    Raises:
      UserError: the name is unknown; the message lists the known ones.
    """
    require(
        name in _BY_NAME,
        f"likelihood {name!r} does not exist; choose one of {', '.join(_BY_NAME)}",
    )
    return _BY_NAME[name]
