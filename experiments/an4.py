"""The experiments of experiments/speech.py on a folder of recordings, such as AN4.

The folder has `split/speaker/*.flac` or `*.wav` and, where phones are known, a TSV of
them next to each recording: start s, end s, phone. Name it with
`--config.data.data_dir=...`. The speakers of CMU AN4's test split are not in train:
their codes are decoded in voices of train.

Variants: those of experiments/speech.py.
"""

from vqvae_jax.experiments import base, speech

VARIANTS = speech.variants_on({"data.source": "folder", "data.name": ""})
get_config = base.variants(__file__, VARIANTS)
