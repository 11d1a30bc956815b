"""Readable names and rounded values of results."""

import pytest

from vqvae_jax.report import readable


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("test_psnr_db", "Test PSNR (dB)"),
        ("test_loss", "Test loss"),
        ("test_ssim", "Test SSIM"),
        ("compression_ratio", "Compression ratio"),
        ("code_bits", "Code bits per image"),
        ("image_bits", "Raw bits per image"),
        ("prior_train_grids_evaluated", "Prior training grids evaluated"),
        ("test_bits_per_dim_uniform_prior", "Test bits/dim, uniform prior"),
        ("test_bits_per_dim_learned_prior", "Test bits/dim, learned prior"),
        ("codebook_perplexity", "Codebook perplexity"),
        ("codebook_active_codes", "Codes in use"),
        ("codebook_codes", "Codebook size"),
        ("prior_bits_per_code", "Prior bits per code (test)"),
        ("prior_bits_per_code_validation", "Prior bits per code (validation)"),
        ("prior_bits_per_code_train", "Prior bits per code (train)"),
        ("train_images_per_second", "Training images per second"),
        ("prior_train_steps", "Prior training steps"),
        ("sample_class_accuracy", "Sample class accuracy"),
        ("commitment", "Commitment loss"),
        ("novel", "Novel"),
    ],
)
def test_readable_names(name, title):
    assert readable.readable(name) == title


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (250_000, "250,000"),
        (64.0, "64"),
        (31.41592, "31.42"),
        (0.000123456, "0.0001235"),
        (-2.5, "-2.5"),
        (12_345.678, "12,346"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_are_rounded(value, text):
    assert readable.formatted("test_loss", value) == text


def test_accuracies_are_percentages():
    values = {"sample_class_accuracy": 0.9275, "real_class_accuracy": 1.0}
    texts = [readable.formatted(name, value) for name, value in values.items()]
    assert texts == ["92.8%", "100.0%"]


def test_rows_keep_their_order():
    rows = readable.rows({"b": 1, "a": 2, "c": 3})
    assert rows == [("B", "1"), ("A", "2"), ("C", "3")]


def test_highlights_are_the_first_four_groups():
    results = {
        "codebook_codes": 16,
        "codebook_active_codes": 16,
        "codebook_perplexity": 14.5,
        "compression_ratio": 8.0,
        "compression_ratio_learned_prior": 12.5,
        "sample_class_accuracy": 0.88,
        "test_psnr_db": 22.1,
    }
    assert readable.highlights(results) == [
        ("PSNR of reconstructed test images (dB)", "22.1"),
        ("Fewer bits than pixels, learned prior", "12.5×"),
        ("Samples recognised as their class", "88.0%"),
        ("Codes in use, weighted (perplexity)", "14.5"),
    ]
    assert readable.highlights({"novel": 1.0}) == []
