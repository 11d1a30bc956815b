"""Figures of a run as readers want them: names of words, numbers of few digits."""

from collections.abc import Mapping

Results = Mapping[str, float | int]

# Results whose names need more than their words.
_TITLES = {
    "codebook": "Codebook loss",
    "codebook_active_codes": "Codes in use",
    "codebook_codes": "Codebook size",
    "code_bits": "Bits of an image's codes",
    "code_bits_learned_prior": "Bits of an image's codes, learned prior (test)",
    "commitment": "Commitment loss",
    "compression_ratio": "Compression",
    "compression_ratio_learned_prior": "Compression, learned prior (test)",
    "image_bits": "Bits of an image",
    "marginal_bits_per_code": "Bits per code by frequency alone (test)",
    "reconstruction": "Reconstruction loss",
    "prior_bits_per_code": "Prior bits per code (test)",
    "test_bits_per_dim_learned_prior": "Test bits/dim, learned prior",
    "test_bits_per_dim_uniform_prior": "Test bits/dim, uniform prior",
}
_WORDS = {
    "db": "(dB)",
    "kl": "KL",
    "mcd": "MCD",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "train": "training",
    "vae": "VAE",
}
_SPLITS = ("train", "validation", "test")
# What a reader looks for first: of each row the first that a run has, and so many rows.
_FIRST = (
    ("test_bits_per_dim_uniform_prior", "test_bits_per_dim", "test_bits_per_sample"),
    ("test_psnr_db",),
    ("video_bits_per_frame", "global_bits_per_frame"),
    ("compression_ratio_learned_prior", "compression_ratio"),
    ("phoneme_accuracy", "sample_class_accuracy"),
    ("codebook_perplexity",),
    ("codebook_active_codes",),
)
_HIGHLIGHTS = 4


def rows(results: Results) -> list[tuple[str, str]]:
    """Return the name and the number of each result, as text."""
    return [(readable(name), formatted(name, v)) for name, v in results.items()]


def highlights(results: Results) -> list[tuple[str, str]]:
    """Return those that a reader looks for first, as text."""
    present = ([name for name in names if name in results] for names in _FIRST)
    chosen = [names[0] for names in present if names][:_HIGHLIGHTS]
    return rows({name: results[name] for name in chosen})


def readable(name: str) -> str:
    """Return a result's name in words."""
    if name in _TITLES:
        return _TITLES[name]
    *words, last = name.split("_")
    words.append(f"({last})" if last in _SPLITS else last)
    text = " ".join(_WORDS.get(word, word) for word in words)
    return text[:1].upper() + text[1:]


def formatted(name: str, value: float | int) -> str:
    """Return a result's number with four digits; accuracies in per cent."""
    return f"{value:.1%}" if name.endswith("_accuracy") else _number(value)


def _number(value: float | int) -> str:
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
