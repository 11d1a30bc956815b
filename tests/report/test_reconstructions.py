"""Test images beside their codes, reconstructions and errors."""

import jax
import numpy as np
import pytest

import vqvae_jax
from vqvae_jax import registry
from vqvae_jax.data.dataset import open_dataset
from vqvae_jax.data.source import first_examples
from vqvae_jax.experiment import Experiment
from vqvae_jax.models.base import Traits
from vqvae_jax.report import codebook, image_grid, reconstructions


@pytest.fixture(scope="module")
def dataset(tiny_config):
    return open_dataset(Experiment.from_config(tiny_config).data)


@pytest.fixture(scope="module")
def shown(finished_run, dataset):
    model, params = vqvae_jax.restore(finished_run)
    return reconstructions.reconstruct(model, params, dataset)


def test_images_are_evenly_spaced_over_the_test_split(finished_run, dataset, shown):
    """The first, the last and ten in between, since a folder is sorted by class."""
    test = first_examples(dataset.test, len(dataset.test))
    chosen = np.round(np.arange(12) * (len(dataset.test) - 1) / 11).astype(int)
    model, params = vqvae_jax.restore(finished_run)
    images = test["image"][chosen]
    np.testing.assert_array_equal(shown.originals, images)
    assert shown.names == tuple(str(label) for label in test["label"][chosen])
    codes = jax.jit(model.encode)(params, images)
    np.testing.assert_array_equal(shown.codes, codes)
    np.testing.assert_array_equal(shown.decoded, jax.jit(model.decode)(params, codes))


def test_a_card_shows_original_codes_reconstruction_and_error(shown):
    colours = np.random.default_rng(0).integers(256, size=(1, 16, 3), dtype=np.uint8)
    section = reconstructions.reconstructions_section(shown, colours)
    original, decoded = shown.originals[5], shown.decoded[5]
    expected = image_grid.panels(
        [
            original,
            codebook.picture_of_codes(shown.codes[5], colours),
            decoded,
            image_grid.error_map(original, decoded),
        ]
    )
    assert len(section.cards) == 12
    assert section.cards[5].image == expected
    error = np.square(original.astype(float) - decoded).mean()
    psnr = 10 * np.log10(255**2 / error)
    assert section.cards[5].caption == f"{shown.names[5]} · {psnr:.1f} dB"
    assert "codes" in section.cards[5].alt


def test_a_card_without_codes_and_class(shown):
    bare = shown._replace(codes=None, names=("",) * 12)
    section = reconstructions.reconstructions_section(bare, None)
    original, decoded = shown.originals[0], shown.decoded[0]
    expected = image_grid.panels(
        [original, decoded, image_grid.error_map(original, decoded)]
    )
    assert section.cards[0].image == expected
    assert section.cards[0].caption.endswith(" dB")
    assert not section.cards[0].caption.startswith(" ")
    assert "codes" not in section.text


def test_a_model_with_codes_has_the_registered_sections(finished_run, dataset):
    model, params = vqvae_jax.restore(finished_run)
    available = list(filter(registry.is_available, registry.REPORT_SECTIONS))
    headings = [
        section.heading
        for section in reconstructions.reconstruction_sections(model, params, dataset)
    ]
    assert headings == ["Reconstructions", "Latent playground"][: 1 + len(available)]


class WithoutCodes:
    """A model that reconstructs without codes, as a VAE does."""

    traits = Traits(likelihood="bound", latent="numbers", encodes=True)

    def reconstruct(self, params, images):
        return images


def test_a_model_without_codes_has_reconstructions_only(dataset):
    model = WithoutCodes()
    (section,) = reconstructions.reconstruction_sections(model, {}, dataset)
    assert section.heading == "Reconstructions"
