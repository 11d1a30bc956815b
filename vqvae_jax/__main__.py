"""The command line: python -m vqvae_jax --help."""

from vqvae_jax.cli.main import entry

if __name__ == "__main__":
    entry()
