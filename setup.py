"""The list of packages; pyproject.toml has everything else."""

from setuptools import find_packages, setup

# pyproject.toml cannot combine a search with packages outside of the searched folder.
setup(
    packages=[
        *find_packages(include=["vqvae_jax*"]),
        "vqvae_jax.experiments",
        "vqvae_jax.weights",
    ]
)
