"""The playground: precomputed changes match the decoder, and the size is bounded."""

import base64
import itertools
import json
import math
import zlib

import jax
import numpy as np
import pytest

import vqvae_jax
from vqvae_jax.contrib.playground import playground
from vqvae_jax.report import codebook
from vqvae_jax.report.page import Section, render
from vqvae_jax.report.reconstructions import Reconstructed


def stub_decoder(codes):
    """Decode to cells of 2x2 pixels; a code also affects the cell to its right."""
    total = codes.sum(axis=-1)
    reached = total.copy()
    reached[:, :, 1:] += total[:, :, :-1] // 2
    image = reached.repeat(2, axis=1).repeat(2, axis=2)[..., None]
    return (image * [3, 5, 7] % 256).astype(np.uint8)


def unpacked(changes, choice):
    shape = (*changes.codes.shape, *changes.picture.shape)
    return np.frombuffer(zlib.decompress(changes.added[choice]), np.uint8).reshape(
        shape
    )


def choose(changes, choice, *cell):
    """Return the picture that the page displays for a change."""
    return changes.picture + unpacked(changes, choice)[cell]


def draw_codes(shape, num_codes, seed=0):
    return np.random.default_rng(seed).integers(num_codes, size=shape)


def precompute(codes, palette, decode=stub_decoder):
    return playground.precompute(decode, codes, palette, characters=10**6)


class TestPrecompute:
    CODES = draw_codes((3, 4, 2), 9)
    PALETTE = np.array([[0, 8], [5, 1]])

    def test_every_change_matches_the_decoder_to_within_one(self):
        changes = precompute(self.CODES, self.PALETTE)
        np.testing.assert_array_equal(changes.codes, self.CODES)
        for choice in range(2):
            for row, column, book in np.ndindex(self.CODES.shape):
                codes = self.CODES.copy()
                codes[row, column, book] = self.PALETTE[choice, book]
                expected = stub_decoder(codes[None])[0].astype(int)
                shown = choose(changes, choice, row, column, book)
                assert np.abs(shown.astype(int) - expected).max() <= 1

    def test_drops_differences_of_one(self):
        def decode(codes):
            return (100 + codes * [1, 2]).astype(np.uint8)

        codes = np.zeros((2, 2, 1), int)
        changes = precompute(codes, np.array([[1]]), decode)
        np.testing.assert_array_equal(choose(changes, 0, 0, 0, 0)[0, 0], [100, 102])

    def test_starts_with_the_largest_change_of_the_first_codebook(self):
        """The effect of a change is the sum of absolute differences."""
        changes = precompute(self.CODES, self.PALETTE)
        original = stub_decoder(self.CODES[None])[0].astype(int)
        effects = {}
        for choice, (row, column) in itertools.product(range(2), np.ndindex(3, 4)):
            codes = self.CODES.copy()
            codes[row, column, 0] = self.PALETTE[choice, 0]
            difference = np.abs(stub_decoder(codes[None])[0] - original)
            difference[difference <= 1] = 0
            effects[4 * row + column, choice] = difference.sum()
        assert effects[changes.start] == max(effects.values())
        assert len(set(effects.values())) > 5

    def test_uses_the_centre_of_a_large_grid(self):
        codes = draw_codes((21, 18, 1), 9)
        palette = np.array([[4]])
        changes = precompute(codes, palette)
        np.testing.assert_array_equal(changes.codes, codes[2:18, 1:17])
        whole = stub_decoder(codes[None])[0]
        np.testing.assert_array_equal(changes.picture, whole[4:36, 2:34])
        codes[2 + 5, 1 + 6] = 4
        expected = stub_decoder(codes[None])[0][4:36, 2:34].astype(int)
        assert np.abs(choose(changes, 0, 5, 6, 0) - expected).max() <= 1

    def test_truncates_the_palette_to_what_fits(self):
        def noise(codes):
            rng = np.random.default_rng(int(codes.sum()))
            return rng.integers(256, size=(len(codes), 6, 8, 3), dtype=np.uint8)

        palette = np.arange(10).repeat(2).reshape(10, 2)
        # Noise does not deflate: a code takes 24 changes of 144 values.
        characters = 24 * 144 * 4 / 3
        changes = playground.precompute(
            noise, self.CODES, palette, characters=int(3.5 * characters)
        )
        assert len(changes.added) == len(changes.palette) == 3


class TestDiverse:
    def test_adds_the_farthest_code_each_time(self):
        """Compared with a direct computation of all distances."""
        rng = np.random.default_rng(0)
        embeddings, counts = rng.normal(size=(12, 3)), rng.integers(1, 9, size=12)
        chosen = [int(np.argmax(counts))]
        while len(chosen) < 5:
            nearest = [
                min(np.linalg.norm(embeddings[k] - embeddings[c]) for c in chosen)
                for k in range(12)
            ]
            chosen.append(int(np.argmax(nearest)))
        found = playground.diverse(embeddings, counts, 5)
        assert found.tolist() == sorted(chosen)

    def test_unused_codes_come_last(self):
        embeddings = np.array([[0.0], [1.0], [2.0], [100.0]])
        counts = np.array([3, 1, 1, 0])
        assert playground.diverse(embeddings, counts, 3).tolist() == [0, 1, 2]
        assert playground.diverse(embeddings, counts, 4).tolist() == [0, 1, 2, 3]

    def test_codes_are_distinct_even_for_equal_embeddings(self):
        found = playground.diverse(np.zeros((6, 2)), np.ones(6, int), 6)
        assert found.tolist() == list(range(6))


def section_of(grid, num_codes, decode=stub_decoder, images=1):
    books = grid[-1]
    codes = np.stack([draw_codes(grid, num_codes, seed) for seed in range(images)])
    decoded = np.concatenate([stub_decoder(each[None]) for each in codes])
    return playground.playground_section(
        decode,
        Reconstructed(decoded, ("a",) * images, codes, decoded),
        np.random.default_rng(0).normal(size=(books, num_codes, 4)),
        np.ones((books, num_codes), int),
        np.zeros((books, num_codes, 3), np.uint8),
    )


def facts_of(read, section):
    (text,) = read(section.widget.markup).texts["script"]
    return json.loads(text)


@pytest.mark.parametrize(
    ("grid", "num_codes", "choices"),
    [
        # All codes of a small codebook; at most 16 codes; at most 2048 changes.
        ((4, 4, 1), 5, 5),
        ((8, 8, 1), 40, 16),
        ((8, 8, 10), 40, 3),
        ((32, 32, 1), 40, 8),
        # The window shrinks.
        ((64, 64, 10), 40, 2),
        ((8, 8, 40), 40, 2),
    ],
)
def test_work_is_bounded(read, grid, num_codes, choices):
    decoded = []

    def decode(codes):
        decoded.append(len(codes))
        return stub_decoder(codes)

    section = section_of(grid, num_codes, decode)
    facts = facts_of(read, section)
    (picture,) = facts["pictures"]
    assert len(facts["palette"]) == len(picture["changes"]) == choices
    assert sum(decoded) <= 1 + 2048 + 16 * 64
    assert len(set(decoded)) <= 2
    assert ("middle" in section.text) == (facts["grid"][:2] != list(grid[:2]))
    markup = read(section.widget.markup)
    assert len(markup.of("select")) == (grid[-1] > 1)
    assert math.prod(facts["grid"]) * choices <= 2048
    assert len(markup.of("option")) == (grid[-1] if grid[-1] > 1 else 0)


def test_ids_are_unique_on_a_page_with_several_codebooks(read):
    """The id of the codebook menu must differ from that of the Codebook section."""
    section = section_of((4, 4, 2), 5)
    page = render(
        "run", results={}, sections=[Section("Codebook", ""), section], config={}
    )
    ids = [attrs["id"] for _, attrs in read(page).tags if "id" in attrs]
    assert "codebook" in ids
    assert len(ids) == len(set(ids))


def test_a_page_without_room_says_so(monkeypatch):
    monkeypatch.setattr(playground, "_CHARACTERS", 10)
    section = section_of((4, 4, 1), 5)
    assert section.widget is None
    assert "too large to be shown here" in section.text


@pytest.mark.parametrize(
    ("grid", "num_codes", "images"), [((4, 4, 1), 16, 4), ((8, 8, 1), 40, 4)]
)
def test_several_images_share_the_work(read, grid, num_codes, images):
    """Those with the most different codes come first, each with its own changes."""
    section = section_of(grid, num_codes, images=12)
    facts = facts_of(read, section)
    assert len(facts["pictures"]) == images
    assert images * math.prod(facts["grid"]) * len(facts["palette"]) <= 2048
    variety = [len(set(picture["codes"])) for picture in facts["pictures"]]
    assert variety == sorted(variety, reverse=True)
    names = [f"{number}: a" for number in range(1, images + 1)]
    assert read(section.widget.markup).texts["option"] == names


def test_facts_match_a_trained_decoder(finished_run, read):
    """The displayed pixels match the decoder's output to within 1 of 255."""
    model, params = vqvae_jax.restore(finished_run)
    decode = jax.jit(model.decode)
    codes = draw_codes(model.grid, model.num_codes)
    embeddings = np.asarray(model.codebooks(params))
    colours = codebook.colours(codebook.principal(embeddings).places)
    decoded = np.asarray(decode(params, codes[None]))
    section = playground.playground_section(
        lambda codes: np.asarray(decode(params, codes)),
        Reconstructed(decoded, ("",), codes[None], decoded),
        embeddings,
        np.ones((1, 16), int),
        colours,
    )
    facts = facts_of(read, section)
    assert facts["colours"][0][3] == f"#{colours[0, 3].tobytes().hex()}"
    (shown,) = facts["pictures"]
    for name in ("original", "decoded"):
        picture = np.frombuffer(base64.b64decode(shown[name]), np.uint8)
        picture = picture.reshape(facts["size"])
        np.testing.assert_array_equal(picture, decoded[0])
    assert shown["codes"] == codes.ravel().tolist()
    packed = base64.b64decode(shown["changes"][7])
    added = np.frombuffer(zlib.decompress(packed), np.uint8)
    added = added.reshape(*facts["grid"], *facts["size"])
    assert facts["palette"][7] == [7]
    codes[2, 3, 0] = 7
    expected = np.asarray(decode(params, codes[None]))[0].astype(int)
    assert np.abs((picture + added[2, 3, 0]).astype(int) - expected).max() <= 1
