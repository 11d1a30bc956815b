"""Test images beside their codes, their reconstructions and what these miss."""

import jax
import numpy as np
import pytest

from vqvae_jax.data.dataset import open_dataset
from vqvae_jax.data.source import first_examples
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import codebook, image_grid, reconstructions
from vqvae_jax.workdir import restore


@pytest.fixture(scope="module")
def dataset(tiny_config):
    return open_dataset(Experiment.from_config(tiny_config).data)


@pytest.fixture(scope="module")
def shown(finished_run, dataset):
    model, params = restore(finished_run)
    return reconstructions.reconstruct(model, params, dataset)


def test_images_are_from_all_over_test(finished_run, dataset, shown):
    """The first, the last and ten between: a folder has its classes in order."""
    test = first_examples(dataset.test, len(dataset.test))
    chosen = np.round(np.arange(12) * (len(dataset.test) - 1) / 11).astype(int)
    model, params = restore(finished_run)
    images = test["image"][chosen]
    np.testing.assert_array_equal(shown.originals, images)
    assert shown.names == tuple(str(label) for label in test["label"][chosen])
    codes = jax.jit(model.encode)(params, images)
    np.testing.assert_array_equal(shown.codes, codes)
    np.testing.assert_array_equal(shown.decoded, jax.jit(model.decode)(params, codes))


def test_a_card_is_original_codes_reconstruction_and_error(shown):
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


def test_without_codes_and_classes_there_is_the_rest(shown):
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


def test_a_model_with_codes_has_a_playground(finished_run, dataset):
    model, params = restore(finished_run)
    headings = [
        section.heading
        for section in reconstructions.sections_of_codes(model, params, dataset)
    ]
    assert headings == ["Reconstructions", "Latent playground"]


class Uncoded:
    """A model that reconstructs without codes, as a VAE does."""

    def reconstruct(self, params, images):
        return images


def test_a_model_without_codes_has_none(dataset):
    (section,) = reconstructions.sections_of_codes(Uncoded(), {}, dataset)
    assert section.heading == "Reconstructions"
