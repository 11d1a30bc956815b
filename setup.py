"""The list of packages; pyproject.toml has everything else."""

from pathlib import Path

from setuptools import find_packages, setup

# A released model is a folder, which setuptools takes for a package, as are the photos.
weights = (folder.name for folder in Path("weights").iterdir() if folder.is_dir())

# pyproject.toml cannot combine a search with packages outside of the searched folder.
setup(
    packages=[
        *find_packages(include=["vqvae_jax*"]),
        "vqvae_jax.experiments",
        "vqvae_jax.weights",
        *(f"vqvae_jax.weights.{name}" for name in sorted(weights)),
    ]
)
