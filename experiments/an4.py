"""experiments/speech.py on a folder of recordings, such as CMU's AN4.

The folder has `split/speaker/*.flac` or `*.wav`, and beside a recording, where phones
are known, a TSV of them: start s, end s, phone. Say where it is with
`--config.data.data_dir=...`. AN4's test speakers are none of train's: their codes are
said by others.

Variants: those of experiments/speech.py.
"""

from ml_collections import ConfigDict

from experiments import speech

VARIANTS = speech.VARIANTS


def get_config(variant: str = "") -> ConfigDict:
    """Return the config of a variant."""
    if variant not in VARIANTS:
        raise ValueError(
            f"experiments/an4.py has no variant {variant!r}; there are "
            f"{', '.join(filter(None, VARIANTS))}"
        )
    config = speech.get_config(variant)
    config.data.update({"source": "folder", "name": ""})
    return config
