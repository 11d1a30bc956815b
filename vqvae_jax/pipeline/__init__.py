"""A run from nothing to a report, in stages that can each be resumed."""

from vqvae_jax.pipeline.run import run, stages_of

__all__ = ["run", "stages_of"]
