"""The experiments of experiments/speech.py on the paper's VCTK: 109 speakers, 44 hours.

TFDS downloads the recordings, 11 GB, and prepares them with pydub and ffmpeg. Phones
are not known, so codes are not compared with them.

Variants: those of experiments/speech.py.
"""

from vqvae_jax.experiments import base, speech

VARIANTS = speech.variants_on({"data.name": "vctk"})
get_config = base.variants(__file__, VARIANTS)
