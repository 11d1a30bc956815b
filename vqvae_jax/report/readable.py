"""Readable names and rounded values of a run's results."""

from collections.abc import Mapping

Results = Mapping[str, float | int]

# Titles of results whose names are unclear when spelled out.
_TITLES = {
    "codebook": "Codebook loss",
    "codebook_active_codes": "Codes in use",
    "codebook_codes": "Codebook size",
    "codebook_mutual_information_bits": "Bits that two codebooks share, mean",
    "codebook_mutual_information_bits_max": "Bits that two codebooks share, largest",
    "code_bits": "Code bits per image",
    "code_bits_learned_prior": "Code bits per image, learned prior (test)",
    "code_bits_learned_prior_given_class": (
        "Code bits per image, learned prior, class known (test)"
    ),
    "commitment": "Commitment loss",
    "compression_ratio": "Compression ratio",
    "compression_ratio_learned_prior": "Compression ratio, learned prior (test)",
    "compression_ratio_learned_prior_given_class": (
        "Compression ratio, learned prior, class known (test)"
    ),
    "image_bits": "Raw bits per image",
    "marginal_bits_per_code": "Bits per code, code frequencies only (test)",
    "reconstruction": "Reconstruction loss",
    "prior_bits_per_code": "Prior bits per code (test)",
    "test_bits_per_dim_learned_prior": "Test bits/dim, learned prior",
    "test_bits_per_dim_learned_prior_given_class": (
        "Test bits/dim, learned prior, class known"
    ),
    "prior_bits_per_code_given_class": "Prior bits per code, class known (test)",
    "test_bits_per_dim_uniform_prior": "Test bits/dim, uniform prior",
    "z_e_effective_rank": "Effective rank of the encoder's output",
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
# Candidates for the highlights, most important first. Each group contributes its first
# result that the run has.
_HIGHLIGHTS = (
    ("test_bits_per_dim_uniform_prior", "test_bits_per_dim", "test_bits_per_sample"),
    ("test_psnr_db",),
    ("video_bits_per_frame", "global_bits_per_frame"),
    (
        "compression_ratio_learned_prior",
        "compression_ratio_learned_prior_given_class",
        "compression_ratio",
    ),
    ("phoneme_accuracy", "sample_class_accuracy"),
    ("codebook_perplexity",),
    ("codebook_active_codes",),
)
_NUM_HIGHLIGHTS = 4
# Names of highlights in plain words.
_PLAIN = {
    "test_bits_per_dim_uniform_prior": "Bits per value of a test image, uniform prior",
    "test_bits_per_dim": "Bits per value of a test image",
    "test_bits_per_sample": "Bits per sample of test sound",
    "test_psnr_db": "PSNR of reconstructed test images (dB)",
    "compression_ratio_learned_prior": "Fewer bits than pixels, learned prior",
    "compression_ratio_learned_prior_given_class": (
        "Fewer bits than pixels, learned prior, class known"
    ),
    "compression_ratio": "Fewer bits than the data",
    "phoneme_accuracy": "Phonemes recognised from single codes",
    "sample_class_accuracy": "Samples recognised as their class",
    "codebook_perplexity": "Codes in use, weighted (perplexity)",
}


def rows(results: Results) -> list[tuple[str, str]]:
    """Return the readable name and formatted value of each result."""
    return [(readable(name), formatted(name, v)) for name, v in results.items()]


def highlights(results: Results) -> list[tuple[str, str]]:
    """Return the names and values of the most important results."""
    present = ([name for name in names if name in results] for names in _HIGHLIGHTS)
    chosen = [names[0] for names in present if names][:_NUM_HIGHLIGHTS]
    return [
        (_PLAIN.get(name, readable(name)), formatted(name, results[name]))
        for name in chosen
    ]


def readable(name: str) -> str:
    """Return the readable name of a result."""
    if name in _TITLES:
        return _TITLES[name]
    *words, last = name.split("_")
    words.append(f"({last})" if last in _SPLITS else last)
    text = " ".join(_WORDS.get(word, word) for word in words)
    return text[:1].upper() + text[1:]


def formatted(name: str, value: float | int) -> str:
    """Format with four significant digits; accuracies in percent, ratios with ×."""
    if "compression_ratio" in name:
        return f"{value:.3g}×"
    return f"{value:.1%}" if name.endswith("_accuracy") else _number(value)


def _number(value: float | int) -> str:
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
