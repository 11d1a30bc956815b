"""What comes along with the quantizer."""

import subprocess
import sys


def test_importing_the_quantizer_needs_jax_alone():
    script = (
        "import sys; from vqvae_jax import quantizer; "
        "print([m for m in ('flax', 'optax', 'orbax', 'tensorflow_datasets', 'grain')"
        " if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"
