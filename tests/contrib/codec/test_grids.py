"""Compression of codes: exact round trips at the cost that the prior assigns."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from tiny_models import random_params

from vqvae_jax.contrib.codec.grids import Codec, container
from vqvae_jax.contrib.codec.stream import Undecodable
from vqvae_jax.models.prior import Prior
from vqvae_jax.networks.pixelcnn import PixelCNN
from vqvae_jax.runtime.errors import UserError

GRID, K = (3, 2, 2), 8
SIZES = {"grid": GRID, "num_codes": K}


def make_codec(seed=0, **options) -> Codec:
    """Return a codec with a random, non-uniform prior."""
    network = PixelCNN(layers=1, channels=8, kernel_size=3)
    prior = Prior(**SIZES, network=network, **options)
    params = random_params(prior, scale=0.3, seed=seed)
    return Codec(**SIZES, fingerprint="a", prior=prior, prior_params=params)


def draw(count, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(K, size=(count, *GRID)), rng.integers(3, size=count)


WITH_LABELS = make_codec(class_names=("a", "b", "c"))
LABEL_DROPOUT = make_codec(class_names=("a", "b", "c"), label_dropout=0.1)
WITHOUT = make_codec()
UNIFORM = Codec(**SIZES, fingerprint="a")


def expected_bits(codec, codes, labels) -> float:
    """Return -log2 p of whole grids under the prior, and of uniform labels."""
    if codec.prior is None:
        return codes.size * math.log2(K)
    nats = codec.prior.log_prob(codec.prior_params, codes, labels=labels)
    label_bits = 0 if labels is None else len(labels) * math.log2(3)
    return -np.asarray(nats, np.float64).sum() / math.log(2) + label_bits


@pytest.mark.parametrize("count", [1, 3, 150])
@pytest.mark.parametrize(
    ("codec", "labelled"),
    [(WITH_LABELS, True), (LABEL_DROPOUT, False), (WITHOUT, False), (UNIFORM, False)],
    ids=["labels", "labels dropped", "no labels", "uniform"],
)
def test_round_trip_at_the_cost_of_the_prior(codec, labelled, count):
    """The file size is within 1 % + 16 bytes, even for one image."""
    codes, labels = draw(count)
    labels = labels if labelled else None
    data, bits = codec.compress(codes, labels=labels)
    expected = expected_bits(codec, codes, labels)
    assert bits == pytest.approx(expected, rel=1e-4)
    assert expected / 8 <= len(data) <= 1.01 * expected / 8 + 16
    found = codec.decompress(data)
    np.testing.assert_array_equal(found.codes, codes)
    assert found.codes.dtype == np.int32
    if labelled:
        np.testing.assert_array_equal(found.labels, labels)
    else:
        assert found.labels is None


# In pixels, with cells of two: windows of 3 x 2 cells, and parts of them.
IMAGE_SIZES = [(6, 4), (1, 1), (13, 9), (13, 9), (40, 7)]


def draw_sized(seed=1):
    rng = np.random.default_rng(seed)
    sides = [(-(-height // 2), -(-width // 2)) for height, width in IMAGE_SIZES]
    codes = [rng.integers(K, size=(*each, GRID[2])) for each in sides]
    return codes, rng.integers(3, size=len(codes))


@pytest.mark.parametrize("codec", [WITH_LABELS, WITHOUT, UNIFORM])
def test_grids_of_any_size_take_the_bits_of_their_own_cells(codec):
    """Cells of a window outside of the image take no bits."""
    codec = dataclasses.replace(codec, stride=2)
    codes, labels = draw_sized()
    labels = labels if codec.prior and codec.prior.num_classes else None
    data, bits = codec.compress(codes, labels=labels, sizes=IMAGE_SIZES)
    expected = 0.0
    for number, grid in enumerate(codes):
        for top, left in np.ndindex(-(-grid.shape[0] // 3), -(-grid.shape[1] // 2)):
            part = grid[3 * top :, 2 * left :][:3, :2]
            given = np.zeros(GRID, int)
            given[: part.shape[0], : part.shape[1]] = -1
            window = np.zeros(GRID, int)
            window[: part.shape[0], : part.shape[1]] = part
            if codec.prior is None:
                expected += part.size * math.log2(K)
                continue
            label = None if labels is None else labels[number][None]
            nats = codec.prior.log_prob(
                codec.prior_params, window[None], labels=label, given=given[None]
            )
            expected -= float(nats[0]) / math.log(2)
            expected += 0 if labels is None else math.log2(3)
    assert bits == pytest.approx(expected, rel=1e-4)
    # The header has two bytes of sizes more than 14, and three of each run.
    assert expected / 8 <= len(data) <= 1.01 * expected / 8 + 16 + 2 + 3 * 4
    found = codec.decompress(data)
    assert found.sizes == tuple(IMAGE_SIZES)
    for grid, original in zip(found.codes, codes, strict=True):
        np.testing.assert_array_equal(grid, original)
    if labels is not None:
        np.testing.assert_array_equal(found.labels, labels)
    assert codec.grids_in(data) == 1 + 1 + 2 * 9 + 7 * 2


def test_impossible_sizes_raise_before_decoding(monkeypatch):
    codec = dataclasses.replace(WITHOUT, stride=2)
    codes, _ = draw_sized()
    contents = container.unpack(codec.compress(codes, sizes=IMAGE_SIZES).data)
    monkeypatch.setattr(Codec, "_visit", None)
    one = (10**9, (65_536, 65_536))
    claimed = contents._replace(runs=(one,))
    with pytest.raises(UserError, match=r"claims 34 grids for images of \d+: compress"):
        codec.decompress(container.pack(claimed))
    windows = 10**9 * -(-32768 // 3) * (32768 // 2)
    claimed = claimed._replace(grids=windows)
    with pytest.raises(UserError, match=r"claims images of \d+ codes, more than its"):
        codec.decompress(container.pack(claimed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda codes, sizes: (codes[1:], sizes), "4 grids of codes and 5 sizes"),
        (lambda codes, sizes: (codes, sizes[::-1]), "codes"),
        (lambda codes, sizes: ([], []), "no codes"),
        (
            lambda codes, sizes: ([np.zeros((1, 32769, 2), int)], [(1, 65_537)]),
            "a side of 65537 pixels is longer than 65536",
        ),
    ],
)
def test_codes_that_do_not_fit_their_sizes_raise(change, message):
    codec = dataclasses.replace(WITHOUT, stride=2)
    codes, sizes = change(draw_sized()[0], IMAGE_SIZES)
    with pytest.raises(UserError, match=message):
        codec.compress(codes, sizes=sizes)


def test_likely_codes_give_smaller_files():
    key = jax.random.key(0)
    likely = WITHOUT.prior.sample(WITHOUT.prior_params, key, num_samples=64)
    unlikely, _ = draw(64)
    sizes = [len(WITHOUT.compress(codes).data) for codes in (likely, unlikely)]
    assert sizes[0] < 0.95 * sizes[1]


def test_progress_counts_images():
    completed = []
    codes, _ = draw(150)
    data, _ = WITHOUT.compress(codes, progress=completed.append)
    assert completed == [128, 22]
    WITHOUT.decompress(data, progress=completed.append)
    assert completed[2:] == [128, 22]
    assert WITHOUT.grids_in(data) == 150


def test_uniform_files_are_decompressed_with_any_prior():
    codes, _ = draw(5)
    np.testing.assert_array_equal(
        WITHOUT.decompress(UNIFORM.compress(codes).data).codes, codes
    )


def test_files_of_other_models_and_priors_raise():
    codes, _ = draw(5)
    data, _ = WITHOUT.compress(codes)
    nudged = jax.tree.map(lambda x: x, WITHOUT.prior_params)
    kernel = nudged["params"]["to_context"]["kernel"]
    nudged["params"]["to_context"]["kernel"] = kernel.at[0, 0].add(1e-6)
    wider = dataclasses.replace(
        WITHOUT.prior, network=WITHOUT.prior.network.clone(channels=16)
    )
    others = (
        dataclasses.replace(WITHOUT, fingerprint="b"),
        dataclasses.replace(WITHOUT, prior_params=nudged),
        dataclasses.replace(WITHOUT, prior=wider),
    )
    for other in others:
        with pytest.raises(UserError, match="made with another model or another prior"):
            other.decompress(data)
    with pytest.raises(
        UserError, match="with a learned prior, and this model has none"
    ):
        UNIFORM.decompress(data)
    with pytest.raises(UserError, match="made with another model"):
        dataclasses.replace(UNIFORM, grid=(2, 3, 2)).decompress(
            UNIFORM.compress(codes).data
        )


def test_changed_bytes_raise():
    codes, labels = draw(2)
    data, _ = WITH_LABELS.compress(codes, labels=labels)
    for index in range(len(data)):
        for flip in range(1, 256):
            damaged = bytearray(data)
            damaged[index] ^= flip
            with pytest.raises(UserError):
                WITH_LABELS.decompress(bytes(damaged))


def claiming(codec: Codec, images: int) -> bytes:
    """Return a file of two images that claims others, with a valid CRC."""
    codes, labels = draw(2)
    labels = labels if codec is WITH_LABELS else None
    contents = container.unpack(codec.compress(codes, labels=labels).data)
    return container.pack(contents._replace(grids=images))


@pytest.mark.parametrize("codec", [WITH_LABELS, WITHOUT, UNIFORM])
@pytest.mark.parametrize("images", [10**8, 2**60])
def test_impossible_image_counts_raise_before_decoding(codec, images, monkeypatch):
    data = claiming(codec, images)
    monkeypatch.setattr(Codec, "_visit", None)
    with pytest.raises(UserError, match=f"claims {images} images, and its .* can hold"):
        codec.decompress(data)


@pytest.mark.parametrize("codec", [WITH_LABELS, WITHOUT, UNIFORM])
def test_an_image_takes_at_least_the_bits_of_its_likeliest_codes(codec, monkeypatch):
    """One image less than the payload may hold is decoded, one more is not."""
    payload = len(container.unpack(claiming(codec, 2)).payload)
    # 12 codes of 8, with probability 1 - 7 / 2^24 at most, and a label of 3 classes.
    image = {
        UNIFORM: 12 * 3,
        WITHOUT: -12 * math.log2(1 - 7 / 2**24),
        WITH_LABELS: -12 * math.log2(1 - 7 / 2**24) + math.log2(3),
    }[codec]
    most = int((8 * payload + 32) // image)
    accepted, refused = claiming(codec, most), claiming(codec, most + 1)

    def visit(*_, **__):
        raise Undecodable

    monkeypatch.setattr(Codec, "_visit", visit)
    with pytest.raises(UserError, match="do not match the original ones"):
        codec.decompress(accepted)
    with pytest.raises(UserError, match=f"can hold {most} at most"):
        codec.decompress(refused)


@pytest.mark.parametrize("images", [3, 10**6])
def test_more_images_than_the_payload_has_end_with_it(images):
    """Decoding stops in the first batch whose codes need more bits."""
    completed = []
    data = claiming(WITHOUT, images)
    with pytest.raises(UserError, match="do not match the original ones"):
        WITHOUT.decompress(data, progress=completed.append)
    assert sum(completed) <= 128


def test_one_code_raises():
    with pytest.raises(UserError, match="has one code, which carries no information"):
        dataclasses.replace(UNIFORM, num_codes=1)


def test_labels_of_a_prior_without_classes_raise():
    data = WITHOUT.compress(draw(2)[0]).data
    contents = container.unpack(data)._replace(how=container.How.PRIOR_WITH_LABELS)
    with pytest.raises(UserError, match="has labels, and the prior has none"):
        WITHOUT.decompress(container.pack(contents))


def test_wrongly_decoded_codes_raise():
    """Simulates a machine that rounds differently: same model, other probabilities."""
    codes, _ = draw(40)
    data, _ = WITHOUT.compress(codes)
    elsewhere = dataclasses.replace(
        WITHOUT,
        prior_params=jax.tree.map(lambda x: x * (1 + 1e-6), WITHOUT.prior_params),
    )
    elsewhere.__dict__["_identity"] = WITHOUT._identity
    with pytest.raises(UserError, match="do not match the original ones: this machine"):
        elsewhere.decompress(data)


@pytest.mark.parametrize(
    ("codec", "change", "message"),
    [
        (WITHOUT, {"codes": np.zeros((0, *GRID), int)}, "there are no codes"),
        (WITHOUT, {"codes": np.zeros((1, 2, 3, 2), int)}, "codes must have shape"),
        (WITHOUT, {"codes": np.full((1, *GRID), K)}, r"codes must be in 0 \.\.\. 7"),
        (WITHOUT, {"codes": np.full((1, *GRID), 2**32 + 3)}, "codes must be in 0"),
        (WITHOUT, {"labels": np.array([0])}, "trained without labels"),
        (UNIFORM, {"labels": np.array([0])}, "there is no prior"),
        (WITH_LABELS, {}, "labels are needed, one of 3 classes"),
        (
            WITH_LABELS,
            {"labels": np.array([3])},
            r"labels must be in 0 \.\.\. 2, got 3",
        ),
    ],
)
def test_invalid_codes_and_labels_raise(codec, change, message):
    with pytest.raises(UserError, match=message):
        codec.compress(**({"codes": np.zeros((1, *GRID), int)} | change))
