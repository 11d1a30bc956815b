"""Run an experiment from data to a report, in stages that each resume."""

from vqvae_jax.pipeline.run import run

__all__ = ["run"]
