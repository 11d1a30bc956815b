"""p(x|z) over images of 256 values a channel: log-probability, mean and sample.

Each likelihood reads the decoder's output, `num_outputs` channels for every channel of
the image, and is a distribution over the 256 integers (its probabilities sum to 1), so
that its log-probability is a part of bits/dim. `MeanSquaredError` alone is a density:
it trains the paper's ImageNet and Lab models and never becomes bits/dim.
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
from vqvae_jax.likelihoods.logistic import LogisticMixture
from vqvae_jax.runtime.errors import require

__all__ = [
    "NUM_VALUES",
    "Categorical",
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
    "mse": MeanSquaredError(),
}


def by_name(name: str) -> Likelihood:
    """Return the likelihood a config names.

    Raises:
      UserError: there is none of that name; the message lists those there are.
    """
    require(
        name in _BY_NAME,
        f"likelihood {name!r} does not exist; choose one of {', '.join(_BY_NAME)}",
    )
    return _BY_NAME[name]
