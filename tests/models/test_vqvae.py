"""The VQ-VAE: equation 3, its gradients, metrics and coding, against NumPy.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    AUTOENCODER,
    changed,
    evaluate,
    image_batch,
    random_params,
    step,
)
from tree_checks import assert_close, assert_equal

from vqvae_jax import metrics, quantizers
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.quantizers import VQ

SHAPE, G, K, D = (4, 8, 3), 2, 5, 3
GRID = (2, 4, G)
MODEL = VQVAE(
    image_shape=SHAPE,
    quantizer=VQ(num_codes=K, num_codebooks=G, dim=D, beta=0.4, ema_decay=0.9),
    encoder=Encoder(**AUTOENCODER),
    decoder=Decoder(**AUTOENCODER),
    likelihood="gaussian",
)
EMA = changed(MODEL, {"quantizer.codebook_update": "ema"})
SQUARED_ERROR = changed(MODEL, {"likelihood": "mse"})
UNIFORM = changed(MODEL, {"quantizer.codebook_init": "uniform"})
KEY = jax.random.key(0)


def with_codebook(model):
    """Return random parameters whose codebook lies among the encoder's outputs."""
    rng = np.random.default_rng(0)
    embeddings = jnp.asarray(0.3 * rng.normal(size=(G, K, D)), "float32")
    codebook = quantizers.from_embeddings(embeddings)
    return random_params(model, seed=rng)._replace(quantizer=codebook)


def make_batch(*mask):
    return image_batch(SHAPE, *mask)


@functools.partial(jax.jit, static_argnums=0)
def update(model, params, carry):
    return model.update(params, KEY, carry)


@functools.partial(jax.jit, static_argnums=0)
def parts(model, params, images):
    """Return z_e, codes, and mean and log-scale of p(x|z_q), from the networks."""
    z_e = model._encoder.apply(params.encoder, images / 127.5 - 1)
    codes = quantizers.nearest(
        params.quantizer.embeddings, z_e.reshape(*z_e.shape[:-1], G, D)
    )
    z_q = model.quantizer.lookup(params.quantizer, codes)
    return z_e, codes, model._decoder.apply(params.decoder, z_q)


@pytest.fixture(scope="module")
def params():
    return with_codebook(MODEL)


@pytest.fixture(scope="module")
def oracle(params):
    """Terms of equation 3 for each example, in float64 NumPy."""
    batch = make_batch()
    images = np.float64(batch["image"])
    # Under jit, as in the model, so that near ties are decided equally.
    z_e, codes, outputs = map(
        np.asarray,
        parts(SQUARED_ERROR, with_codebook(SQUARED_ERROR), images.astype("f4")),
    )
    embeddings = np.float64(with_codebook(SQUARED_ERROR).quantizer.embeddings)
    rows = np.stack([embeddings[g][codes[..., g]] for g in range(G)], axis=-2)
    squares = np.mean((np.float64(z_e).reshape(rows.shape) - rows) ** 2, axis=-1)
    error = images / 127.5 - 1 - outputs
    mean = np.clip((np.float64(outputs) + 1) * 127.5, 0, 255)
    return {
        "reconstruction": (error**2 / (2 * 0.5**2)).mean(axis=(1, 2, 3)),
        "squares": squares.mean(axis=(1, 2, 3)),
        "psnr": 10 * np.log10(255**2 / ((images - mean) ** 2).mean(axis=(1, 2, 3))),
        "codes": codes,
    }


class TestLoss:
    def test_is_equation_3(self, oracle):
        """[1] Both terms are means over N and D, beta weighs one."""
        params = with_codebook(SQUARED_ERROR)
        (loss, (means, _)), _ = step(SQUARED_ERROR, params, KEY, make_batch())
        squares = oracle["squares"].mean()
        expected = oracle["reconstruction"].mean() + squares + 0.4 * squares
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
        computed = metrics.compute(means)
        assert computed["reconstruction"] == pytest.approx(
            oracle["reconstruction"].mean(), rel=1e-4
        )
        assert computed["commitment"] == pytest.approx(squares, rel=1e-4)
        assert computed["codebook"] == pytest.approx(squares, rel=1e-4)
        counts = [
            np.bincount(oracle["codes"][..., g].ravel(), minlength=K) for g in range(G)
        ]
        np.testing.assert_array_equal(means["usage"].counts, counts)

    def test_a_loss_or_the_ema_moves_the_codebook(self, params):
        """By the gradient, counts aside, or by the EMA without a gradient."""
        batch = make_batch()
        (loss, (means, carry)), gradient = step(MODEL, params, KEY, batch)
        (ema_loss, _), ema_gradient = step(EMA, params, KEY, batch)
        codebook_term = metrics.compute(means)["codebook"]
        assert float(loss - ema_loss) == pytest.approx(codebook_term, rel=1e-4)
        # Only the codebook's gradient differs.
        assert_equal(
            ema_gradient.quantizer, jax.tree.map(jnp.zeros_like, params.quantizer)
        )
        assert_close(gradient[:2], ema_gradient[:2], rtol=1e-3)
        z_e, codes, _ = parts(MODEL, params, jnp.float32(batch["image"]))
        used = np.zeros((G, K))
        sums = np.zeros((G, K, D))
        vectors = np.asarray(z_e).reshape(-1, G, D)
        for row, vector in zip(np.asarray(codes).reshape(-1, G), vectors, strict=True):
            for g in range(G):
                used[g, row[g]] += 1
                sums[g, row[g]] += vector[g]
        # [1, 2] d |z - e|^2 / D of each owner: beta weighs the encoder's and no other.
        pull = 2 * (sums - used[..., None] * params.quantizer.embeddings)
        pull /= used.sum() * D
        np.testing.assert_allclose(
            gradient.quantizer.embeddings, -pull, rtol=1e-4, atol=1e-5
        )
        without_beta = changed(MODEL, {"quantizer.beta": 0.0})
        _, without = step(without_beta, params, KEY, batch)
        biases = [g.encoder["params"]["project"]["bias"] for g in (gradient, without)]
        expected = 0.4 * pull.sum(axis=1).reshape(-1)
        np.testing.assert_allclose(biases[0] - biases[1], expected, atol=1e-4)
        counts = 0.9 + 0.1 * used
        updated = update(MODEL, params, carry).quantizer
        np.testing.assert_array_equal(updated.embeddings, params.quantizer.embeddings)
        np.testing.assert_allclose(updated.counts, counts, rtol=1e-5)
        updated = update(EMA, params, carry)
        moved = 0.9 * np.asarray(params.quantizer.sums) + 0.1 * sums
        moved /= counts[..., None]
        np.testing.assert_allclose(
            updated.quantizer.embeddings, moved, rtol=1e-4, atol=1e-5
        )
        assert_equal(updated[:2], params[:2])


class TestEvaluate:
    def test_psnr_and_terms_equal_numpy(self, oracle):
        params = with_codebook(SQUARED_ERROR)
        values = metrics.compute(evaluate(SQUARED_ERROR, params, make_batch()))
        # A squared error is a density and gives no bits.
        assert not any("bits" in name for name in values)
        assert values["psnr_db"] == pytest.approx(oracle["psnr"].mean(), rel=1e-4)
        expected = oracle["reconstruction"] + 1.4 * oracle["squares"]
        assert values["loss"] == pytest.approx(expected.mean(), rel=1e-4)

    def test_bits_per_dim_of_a_likelihood(self, params):
        """[13, 24] (nats x dims / ln 2 + N log2 K) / dims."""
        values = metrics.compute(evaluate(MODEL, params, make_batch()))
        dims, latents = 4 * 8 * 3, 2 * 4 * G
        assert (MODEL.num_dims, MODEL.num_latents, MODEL.grid) == (dims, latents, GRID)
        nats = values["reconstruction"] * dims
        expected = (nats / math.log(2) + latents * math.log2(K)) / dims
        assert values["bits_per_dim_uniform_prior"] == pytest.approx(expected, rel=1e-5)

    def test_codes_of_padding_are_not_counted(self, params):
        """[10] Of five images three are valid."""
        batch = make_batch((True, False, True, False, True))
        counts = evaluate(MODEL, params, batch)["usage"].counts
        assert counts.sum() == 3 * math.prod(GRID)


class TestCoding:
    def test_encode_decode_and_reconstruct_equal_the_networks(self, oracle):
        params = with_codebook(SQUARED_ERROR)
        images = make_batch()["image"]
        codes = jax.jit(SQUARED_ERROR.encode)(params, images)
        assert (codes.shape, codes.dtype) == ((5, *GRID), jnp.int32)
        np.testing.assert_array_equal(codes, oracle["codes"])
        decoded = jax.jit(SQUARED_ERROR.decode)(params, codes)
        assert (decoded.shape, decoded.dtype) == (images.shape, jnp.uint8)
        outputs = np.float64(parts(SQUARED_ERROR, params, jnp.float32(images))[2])
        mean = np.clip((outputs + 1) * 127.5, 0, 255)
        assert np.abs(np.float64(decoded) - mean).max() < 0.501
        again = jax.jit(SQUARED_ERROR.reconstruct)(params, images)
        np.testing.assert_array_equal(again, decoded)


class TestInit:
    def test_kmeans_fits_valid_z_e_and_uniform_stays_within_1_over_k(self):
        batch = make_batch((True, True, False, False, False))
        # One program, so that the networks' initialisation is compiled once.
        params, uniform = jax.jit(
            lambda: (MODEL.init(KEY, batch), UNIFORM.init(KEY, batch))
        )()
        assert np.abs(uniform.quantizer.embeddings).max() <= 1 / K
        for codebook in (params.quantizer, uniform.quantizer):
            np.testing.assert_array_equal(codebook.counts, np.ones((G, K)))
            np.testing.assert_array_equal(codebook.sums, codebook.embeddings)
        z_e = parts(MODEL, params, jnp.float32(batch["image"]))[0][:2]
        spread = np.asarray(z_e).reshape(-1, G, D)
        embeddings = np.asarray(params.quantizer.embeddings)
        distances = ((spread[:, :, None] - embeddings) ** 2).sum(-1)
        centred = ((spread - spread.mean(axis=0)) ** 2).sum(-1)
        assert distances.min(-1).mean() < 0.5 * centred.mean()
        low, high = spread.min(axis=0)[:, None], spread.max(axis=0)[:, None]
        assert np.all((low - 1e-5 <= embeddings) & (embeddings <= high + 1e-5))

    def test_vmap_over_keys_stacks_parameters(self):
        keys = jax.random.split(KEY, 3)
        stacked = jax.eval_shape(jax.vmap(UNIFORM.init, (0, None)), keys, make_batch())
        alone = jax.eval_shape(UNIFORM.init, KEY, make_batch())
        shapes = jax.tree.map(lambda leaf: (3, *leaf.shape), alone)
        assert jax.tree.map(lambda leaf: leaf.shape, stacked) == shapes
