"""Flax modules without losses."""
