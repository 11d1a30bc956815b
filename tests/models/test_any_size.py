"""Images of any size: windows cover them, and change nothing."""

import dataclasses

import jax
import numpy as np
import pytest

from vqvae_jax.models import any_size
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.quantizers import VQ

SIZES = {"channels": 8, "residual_channels": 8}


def make_model(downsamples: int, blocks: int, full: int = 0) -> VQVAE:
    sizes = SIZES | {"num_downsamples": downsamples, "residual_blocks": blocks}
    return VQVAE(
        image_shape=(8, 8, 3),
        quantizer=VQ(num_codes=64, dim=4, codebook_init="uniform"),
        encoder=Encoder(**sizes),
        decoder=Decoder(**sizes, full_resolution_layers=full),
        likelihood="gaussian",
    )


def make_params(model):
    """Parameters whose outputs differ from pixel to pixel."""
    shapes = model.init_batch()
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    params = jax.jit(model.init)(jax.random.key(0), batch)
    decoder = jax.tree.map(
        lambda x: x + 0.2 * jax.random.normal(jax.random.key(1), x.shape),
        params.decoder,
    )
    return params._replace(decoder=decoder)


def noise(*shape):
    return np.random.default_rng(0).integers(256, size=shape).astype(np.uint8)


@pytest.mark.parametrize("window", [9, 16, 40])
@pytest.mark.parametrize("size", [1, 8, 9, 17, 40, 41, 63])
def test_kept_parts_cover_an_axis_once(size, window):
    reach, side = 4, min(size, window)
    spans = list(any_size.spans(size, side, reach))
    assert [s.first for s in spans] == [0, *(s.last for s in spans[:-1])]
    assert spans[-1].last == size
    for span in spans:
        assert span.stop - span.start == side
        assert 0 <= span.start <= span.first < span.last <= span.stop <= size
        assert span.start == 0 or span.first - span.start >= reach
        assert span.stop == size or span.stop - span.last >= reach


@pytest.mark.parametrize(
    ("downsamples", "blocks", "full"), [(0, 1, 0), (1, 2, 0), (2, 0, 1), (2, 2, 3)]
)
def test_reach_is_what_a_result_depends_on(downsamples, blocks, full):
    """Outside of it nothing changes a cell or its pixels; half of it does."""
    model = make_model(downsamples, blocks, full)
    side = 20
    model = dataclasses.replace(
        model, image_shape=(side * model.stride, side * model.stride, 3)
    )
    params = make_params(model)
    for reach, network, variables, features, before, after in (
        (model.encoder.reach, model._encoder, params.encoder, 3, model.stride, 1),
        (model.decoder.reach, model._decoder, params.decoder, 4, 1, model.stride),
    ):
        shape = (1, side * before, side * before, features)
        x = jax.random.normal(jax.random.key(0), shape)
        changed = x.at[:, : 10 * before].add(1.0)
        first, second = (np.asarray(network.apply(variables, y)) for y in (x, changed))
        rows = np.abs(first - second).max(axis=(0, 2, 3))
        differs = rows.reshape(side, after).max(axis=1) > 0
        assert not differs[10 + reach :].any()
        assert differs[: 10 + reach // 2].all()


@pytest.mark.parametrize("shape", [(2, 44, 60), (1, 61, 30), (3, 8, 8), (1, 5, 100)])
def test_windows_change_nothing(monkeypatch, shape):
    """Codes and pixels are those of the model at the size of the whole image."""
    model = make_model(2, 1, 1)
    params = make_params(model)
    images = noise(*shape, 3)
    height, width = (-(-side // 4) * 4 for side in shape[1:])
    padded = np.pad(
        images,
        ((0, 0), (0, height - shape[1]), (0, width - shape[2]), (0, 0)),
        "edge",
    )
    whole = dataclasses.replace(model, image_shape=(height, width, 3))
    codes = np.asarray(whole.encode(params, padded))
    pixels = np.asarray(whole.decode(params, codes))
    # Of 24 pixels, or of the least side that has room for the reach.
    monkeypatch.setattr(any_size, "_PIXELS", 24 * 24)
    found = any_size.encode(model, params, images)
    np.testing.assert_array_equal(found, codes)
    decoded = any_size.decode(model, params, codes)
    assert np.abs(decoded.astype(int) - pixels).max() <= 1
    again = any_size.reconstruct(model, params, images)
    assert again.shape == images.shape
    np.testing.assert_array_equal(again, decoded[:, : shape[1], : shape[2]])


def test_a_smaller_overlap_is_seen(monkeypatch):
    """Windows that overlap by less than the reach give other pixels at their seams."""
    model = make_model(2, 1, 1)
    params = make_params(model)
    codes = noise(1, 40, 6, 1).astype(np.int32) % 64
    monkeypatch.setattr(any_size, "_PIXELS", 64 * 64)
    expected = any_size.decode(model, params, codes)
    monkeypatch.setattr(Decoder, "reach", 1)
    assert (any_size.decode(model, params, codes) != expected).any()


def test_windows_are_compiled_once(monkeypatch):
    model = make_model(1, 0)
    params = make_params(model)
    monkeypatch.setattr(any_size, "_PIXELS", 32 * 32)
    any_size.reconstruct(model, params, noise(1, 70, 80, 3))
    sizes = any_size._encode._cache_size(), any_size._decode._cache_size()
    any_size.reconstruct(model, params, noise(1, 90, 33, 3))
    assert sizes == (any_size._encode._cache_size(), any_size._decode._cache_size())
