"""experiments/speech.py on VCTK, as the paper has it: 109 speakers, 44 hours.

TFDS downloads the recordings, 11 GB, and prepares them; that takes pydub and ffmpeg.
Phones are not known, so that codes are not compared with them.

Variants: those of experiments/speech.py.
"""

from ml_collections import ConfigDict

from experiments import speech

VARIANTS = speech.VARIANTS


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of a variant."""
    if variant not in VARIANTS:
        raise ValueError(
            f"experiments/vctk.py has no variant {variant!r}; there are "
            f"{', '.join(filter(None, VARIANTS))}"
        )
    config = speech.get_config(variant)
    config.data.name = "vctk"
    return config
