"""Lossless compression of codes by entropy coding under their prior.

Each code is coded with the probability that the autoregressive prior assigns to it, or
with 1 / K without a prior. `grids.Codec` is the entry point.
"""
