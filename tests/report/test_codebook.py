"""Codes as colours and places: near ones are near, on the map as to the eye."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vqvae_jax.models import vimco
from vqvae_jax.report import codebook
from vqvae_jax.workdir import Workdir, restore


def draw(shape):
    return np.random.default_rng(0).normal(size=shape)


class TestPrincipal:
    def test_places_and_shares_are_those_of_the_covariance(self):
        """Its eigenvectors and eigenvalues, for each codebook on its own."""
        embeddings = draw((2, 50, 6)) * [5, 1, 3, 0.1, 2, 0.5] + 7.0
        places, shares = codebook.principal(embeddings)
        for book in range(2):
            covariance = np.cov(embeddings[book].T)
            values, vectors = np.linalg.eigh(covariance)
            np.testing.assert_allclose(shares[book], values[::-1][:3] / values.sum())
            centred = embeddings[book] - embeddings[book].mean(axis=0)
            expected = centred @ vectors[:, ::-1][:, :3]
            signs = np.sign((expected * places[book]).sum(axis=0))
            np.testing.assert_allclose(places[book] * signs, expected, atol=1e-9)

    @pytest.mark.parametrize("shape", [(1, 8, 1), (1, 2, 5), (1, 1, 4)])
    def test_axes_that_are_not_there_are_zero(self, shape):
        places, shares = codebook.principal(draw(shape))
        axes = min(shape[1] - 1, shape[2])
        assert places.shape == (1, shape[1], 3)
        assert np.abs(places[..., axes:]).max(initial=0) < 1e-9
        assert shares.sum() == pytest.approx(min(axes, 1))


class TestColours:
    def test_near_codes_are_nearer_in_colour_than_far_ones(self):
        places, _ = codebook.principal(draw((1, 64, 3)))
        colours = codebook.colours(places).astype(float)[0]
        far = np.linalg.norm(places[0][:, None] - places[0], axis=-1)
        unlike = np.linalg.norm(colours[:, None] - colours, axis=-1)
        upper = np.triu_indices(64, 1)
        assert np.corrcoef(far[upper], unlike[upper])[0, 1] > 0.3

    def test_codes_differ(self):
        colours = codebook.colours(codebook.principal(draw((2, 100, 8))).places)
        assert colours.shape == (2, 100, 3)
        assert all(len(np.unique(of_book, axis=0)) > 95 for of_book in colours)

    def test_a_single_code_has_one_too(self):
        assert codebook.colours(np.zeros((1, 1, 3))).shape == (1, 1, 3)


class TestPictureOfCodes:
    COLOURS = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)

    def test_a_pixel_is_a_code(self):
        codes = np.array([[[0], [3], [1]], [[2], [0], [0]]])
        shown = codebook.picture_of_codes(codes, self.COLOURS[:1])
        np.testing.assert_array_equal(shown, self.COLOURS[0][codes[..., 0]])

    def test_codebooks_stand_beside_each_other_in_their_own_colours(self):
        codes = np.random.default_rng(0).integers(4, size=(2, 3, 3))
        colours = np.concatenate([self.COLOURS, self.COLOURS[:1] + 100])
        shown = codebook.picture_of_codes(codes, colours)
        assert shown.shape == (2 + 1 + 2, 3 + 1 + 3, 4)
        for book, (top, left) in enumerate([(0, 0), (0, 4), (3, 0)]):
            tile = shown[top : top + 2, left : left + 3]
            np.testing.assert_array_equal(
                tile[..., :3], colours[book][codes[..., book]]
            )
            assert (tile[..., 3] == 255).all()
        assert (shown[2] == 0).all()
        assert (shown[:, 3] == 0).all()
        assert (shown[3:, 4:] == 0).all()


def test_embeddings_are_found_in_a_codebook_and_in_tables(finished_run):
    _, params = restore(finished_run)
    np.testing.assert_array_equal(
        codebook.embeddings_of(params), params.codebook.embeddings
    )
    tables = jnp.ones((2, 3, 4))
    found = codebook.embeddings_of(vimco.Params({}, {}, tables))
    np.testing.assert_array_equal(found, tables)


def test_section_counts_the_codes_of_the_whole_test_split(finished_run):
    workdir = Workdir(finished_run)
    _, params = restore(finished_run)
    section = codebook.codebook_section(workdir, params)
    test = workdir.codes("test")
    active = len(
        {int(code) for i in range(len(test)) for code in test[i]["codes"].flat}
    )
    assert section.cards[0].alt.endswith(f": {active} of 16 occur")
    assert [card.image[:4] for card in section.cards] == [b"<svg"] * 2


def test_pictures_of_codes_are_pngs_of_any_number_of_codebooks():
    from vqvae_jax.report import image_grid

    for books in (1, 10):
        codes = np.zeros((4, 4, books), int)
        colours = np.full((books, 2, 3), 200, np.uint8)
        image = codebook.picture_of_codes(codes, colours)
        with Image.open(io.BytesIO(image_grid.panels([image, image]))) as picture:
            assert picture.size == (
                2 * image.shape[1] * (128 // max(image.shape[:2])) + 4,
                image.shape[0] * (128 // max(image.shape[:2])),
            )
