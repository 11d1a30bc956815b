"""The training loop, which knows no model by name."""
