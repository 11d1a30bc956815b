"""Use a trained model: python -m vqvae_jax --help."""

import sys

from vqvae_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
