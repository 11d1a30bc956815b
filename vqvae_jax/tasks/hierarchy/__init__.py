"""A second VQ-VAE over codes (section 4.2)."""
