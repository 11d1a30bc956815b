"""Colours and the map of codes: similar codes are close in both."""

import io

import numpy as np
import pytest
from PIL import Image

import vqvae_jax
from vqvae_jax.report import codebook, image_grid
from vqvae_jax.workdir import Workdir


def draw(shape):
    return np.random.default_rng(0).normal(size=shape)


class TestPrincipal:
    def test_matches_eigendecomposition_of_the_covariance(self):
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
    def test_missing_components_are_zero(self, shape):
        places, shares = codebook.principal(draw(shape))
        components = min(shape[1] - 1, shape[2])
        assert places.shape == (1, shape[1], 3)
        assert np.abs(places[..., components:]).max(initial=0) < 1e-9
        assert shares.sum() == pytest.approx(min(components, 1))


class TestColours:
    def test_colour_distance_correlates_with_code_distance(self):
        places, _ = codebook.principal(draw((1, 64, 3)))
        colours = codebook.colours(places).astype(float)[0]
        code_distance = np.linalg.norm(places[0][:, None] - places[0], axis=-1)
        colour_distance = np.linalg.norm(colours[:, None] - colours, axis=-1)
        upper = np.triu_indices(64, 1)
        correlation = np.corrcoef(code_distance[upper], colour_distance[upper])[0, 1]
        assert correlation > 0.3

    def test_colours_are_distinct(self):
        colours = codebook.colours(codebook.principal(draw((2, 100, 8))).places)
        assert colours.shape == (2, 100, 3)
        assert all(len(np.unique(book, axis=0)) > 95 for book in colours)

    def test_codebook_with_a_single_code(self):
        assert codebook.colours(np.zeros((1, 1, 3))).shape == (1, 1, 3)


class TestPictureOfCodes:
    COLOURS = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)

    def test_draws_one_pixel_per_code(self):
        codes = np.array([[[0], [3], [1]], [[2], [0], [0]]])
        shown = codebook.picture_of_codes(codes, self.COLOURS[:1])
        np.testing.assert_array_equal(shown, self.COLOURS[0][codes[..., 0]])

    def test_tiles_codebooks_each_in_its_colours(self):
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


def test_codebooks_of_a_vqvae_and_of_vimco(finished_run, tiny_model):
    model, params = vqvae_jax.restore(finished_run)
    np.testing.assert_array_equal(model.codebooks(params), params.quantizer.embeddings)
    model, (params, _) = tiny_model("vimco")
    np.testing.assert_array_equal(model.codebooks(params), params.tables)


def test_section_counts_codes_of_the_whole_test_split(finished_run):
    workdir = Workdir(finished_run)
    model, params = vqvae_jax.restore(finished_run)
    (section,) = codebook.codebook_sections(workdir, model, params)
    test = workdir.codes("test")
    active = len(
        {int(code) for i in range(len(test)) for code in test[i]["codes"].flat}
    )
    assert section.cards[0].alt.endswith(f": {active} of 16 codes in use")
    assert [card.image[:4] for card in section.cards] == [b"<svg"] * 2


def test_a_quantizer_without_embeddings_has_no_section(finished_run):
    class WithoutEmbeddings:
        def codebooks(self, params):
            return None

    assert (
        codebook.codebook_sections(Workdir(finished_run), WithoutEmbeddings(), {}) == []
    )


def test_panels_accept_pictures_of_any_number_of_codebooks():
    for books in (1, 10):
        codes = np.zeros((4, 4, books), int)
        colours = np.full((books, 2, 3), 200, np.uint8)
        image = codebook.picture_of_codes(codes, colours)
        with Image.open(io.BytesIO(image_grid.panels([image, image]))) as picture:
            assert picture.size == (
                2 * image.shape[1] * (128 // max(image.shape[:2])) + 4,
                image.shape[0] * (128 // max(image.shape[:2])),
            )
