"""Commands for a trained model: python -m vqvae_jax --help."""
