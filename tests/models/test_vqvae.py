"""The VQ-VAE: equation 3, its gradients, metrics and coding, against NumPy.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import metrics, quantizers
from vqvae_jax.models.vqvae import VQVAE, Carry
from vqvae_jax.runtime.errors import UserError

SHAPE, G, K, D = (4, 8, 3), 2, 5, 3
GRID = (2, 4, G)
MODEL = VQVAE(
    image_shape=SHAPE,
    num_codes=K,
    num_codebooks=G,
    dim=D,
    stages=1,
    units=8,
    residual_blocks=1,
    residual_units=4,
    likelihood="gaussian",
    beta=0.4,
    codebook_update="loss",
    ema_decay=0.9,
)
EMA = dataclasses.replace(MODEL, codebook_update="ema")
SQUARED_ERROR = dataclasses.replace(MODEL, likelihood="mse")
BFLOAT16 = dataclasses.replace(MODEL, dtype="bfloat16")
UNIFORM = dataclasses.replace(MODEL, codebook_init="uniform")
KEY = jax.random.key(0)


def random_params(model):
    """Random arrays of the right shapes: `init` would take seconds to compile."""
    rng = np.random.default_rng(0)
    batch = {"image": jnp.zeros((1, *SHAPE), jnp.uint8), "mask": jnp.ones(1, bool)}
    shapes = jax.eval_shape(model.init, KEY, batch)

    def draw(leaf):
        fan_in = max(2, np.prod(leaf.shape[:-1]))
        return jnp.asarray(rng.normal(size=leaf.shape) / fan_in**0.5, "float32")

    embeddings = jnp.asarray(0.3 * rng.normal(size=(G, K, D)), "float32")
    codebook = quantizers.from_embeddings(embeddings)
    return jax.tree.map(draw, shapes)._replace(codebook=codebook)


def make_batch(mask=(True,) * 5):
    images = np.random.default_rng(1).integers(256, size=(5, *SHAPE))
    return {"image": jnp.asarray(images, "uint8"), "mask": jnp.array(mask)}


@functools.partial(jax.jit, static_argnums=0)
def step(model, params, batch):
    """Everything that training computes; the model is a static argument."""
    return jax.value_and_grad(model.loss, has_aux=True)(params, KEY, batch)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(model, params, batch):
    return model.evaluate(params, batch)


@functools.partial(jax.jit, static_argnums=0)
def update(model, params, carry):
    return model.update(params, KEY, carry)


@functools.partial(jax.jit, static_argnums=0)
def parts(model, params, images):
    """z_e, and mean and log-scale of p(x|z_q), straight from the networks."""
    z_e = model._encoder.apply(params.encoder, images / 127.5 - 1)
    codes = quantizers.nearest(
        params.codebook.embeddings, z_e.reshape(*z_e.shape[:-1], G, D)
    )
    z_q = quantizers.lookup(params.codebook, codes)
    return z_e, codes, model._decoder.apply(params.decoder, z_q)


def assert_trees_equal(ours, expected):
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture(scope="module")
def oracle(params):
    """Terms of equation 3 for each example, in float64 by NumPy."""
    batch = make_batch()
    images = np.float64(batch["image"])
    # Compiled with jit, as ours is, so that near ties are decided alike.
    z_e, codes, outputs = map(
        np.asarray,
        parts(SQUARED_ERROR, random_params(SQUARED_ERROR), images.astype("f4")),
    )
    embeddings = np.float64(random_params(SQUARED_ERROR).codebook.embeddings)
    rows = np.stack([embeddings[g][codes[..., g]] for g in range(G)], axis=-2)
    norms = np.sum((np.float64(z_e).reshape(rows.shape) - rows) ** 2, axis=-1)
    error = images / 127.5 - 1 - outputs
    mean = np.clip((np.float64(outputs) + 1) * 127.5, 0, 255)
    return {
        "reconstruction": (error**2 / (2 * 0.5**2)).mean(axis=(1, 2, 3)),
        "norms": norms.mean(axis=(1, 2, 3)),
        "psnr": 10 * np.log10(255**2 / ((images - mean) ** 2).mean(axis=(1, 2, 3))),
        "codes": codes,
    }


class TestLoss:
    def test_is_equation_3(self, oracle):
        """[1] Norms sum over D, both terms are means over N, beta weighs one."""
        params = random_params(SQUARED_ERROR)
        (loss, (means, _)), _ = step(SQUARED_ERROR, params, make_batch())
        norms = oracle["norms"].mean()
        expected = oracle["reconstruction"].mean() + norms + 0.4 * norms
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
        computed = metrics.compute(means)
        assert computed["reconstruction"] == pytest.approx(
            oracle["reconstruction"].mean(), rel=1e-4
        )
        assert computed["commitment"] == pytest.approx(norms, rel=1e-4)
        assert computed["codebook"] == pytest.approx(norms, rel=1e-4)
        counts = [
            np.bincount(oracle["codes"][..., g].ravel(), minlength=K) for g in range(G)
        ]
        np.testing.assert_array_equal(means["usage"].counts, counts)

    def test_each_way_to_move_the_codebook(self, params):
        """By the gradient and counts alone, or by the EMA and no gradient."""
        batch = make_batch()
        (loss, (means, carry)), gradient = step(MODEL, params, batch)
        (ema_loss, _), ema_gradient = step(EMA, params, batch)
        codebook_term = metrics.compute(means)["codebook"]
        assert float(loss - ema_loss) == pytest.approx(codebook_term, rel=1e-4)
        # Only the codebook's gradient differs.
        assert_trees_equal(
            ema_gradient.codebook, jax.tree.map(jnp.zeros_like, params.codebook)
        )
        for ours, others in zip(gradient[:2], ema_gradient[:2], strict=True):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
                ours,
                others,
            )
        z_e, codes, _ = parts(MODEL, params, jnp.float32(batch["image"]))
        used = np.zeros((G, K))
        sums = np.zeros((G, K, D))
        vectors = np.asarray(z_e).reshape(-1, G, D)
        for row, vector in zip(np.asarray(codes).reshape(-1, G), vectors, strict=True):
            for g in range(G):
                used[g, row[g]] += 1
                sums[g, row[g]] += vector[g]
        # [1, 2] d |z - e|^2 of each owner: beta weighs the encoder's and no other.
        pull = 2 * (sums - used[..., None] * params.codebook.embeddings) / used.sum()
        np.testing.assert_allclose(
            gradient.codebook.embeddings, -pull, rtol=1e-4, atol=1e-5
        )
        _, without = step(dataclasses.replace(MODEL, beta=0.0), params, batch)
        biases = [g.encoder["params"]["project"]["bias"] for g in (gradient, without)]
        expected = 0.4 * pull.sum(axis=1).reshape(-1)
        np.testing.assert_allclose(biases[0] - biases[1], expected, atol=1e-4)
        counts = 0.9 + 0.1 * used
        updated = update(MODEL, params, carry).codebook
        np.testing.assert_array_equal(updated.embeddings, params.codebook.embeddings)
        np.testing.assert_allclose(updated.counts, counts, rtol=1e-5)
        updated = update(EMA, params, carry)
        moved = (0.9 * np.asarray(params.codebook.sums) + 0.1 * sums) / counts[
            ..., None
        ]
        np.testing.assert_allclose(
            updated.codebook.embeddings, moved, rtol=1e-4, atol=1e-5
        )
        assert_trees_equal(updated[:2], params[:2])

    def test_trainable(self, params):
        for model, by_gradient in ((MODEL, True), (EMA, False)):
            marks = model.trainable(params)
            assert marks.codebook == (by_gradient, False, False)
            assert all(jax.tree.leaves(marks[:2]))
            jax.tree.map(lambda _, mark: None, params, marks)

    def test_padding_changes_nothing(self, params):
        """[10] Not the loss, the gradients, the metrics or the codebook."""
        batch = make_batch((True, False, True, False, True))
        noise = np.random.default_rng(5).integers(256, size=(2, *SHAPE))
        images = batch["image"].at[np.array([1, 3])].set(jnp.asarray(noise, "uint8"))
        others = batch | {"image": images}
        first, second = step(EMA, params, batch), step(EMA, params, others)
        (loss, (means, carry)), gradient = first
        assert_trees_equal((loss, means), (second[0][0], second[0][1][0]))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            gradient,
            second[1],
        )
        one, two = (update(EMA, params, c).codebook for c in (carry, second[0][1][1]))
        assert_trees_equal(one, two)
        values, others = (evaluate(MODEL, params, b) for b in (batch, others))
        assert_trees_equal(values, others)
        assert values["loss"].weight == 3
        assert values["usage"].counts.sum() == 3 * math.prod(GRID)


class TestEvaluate:
    def test_psnr_and_terms(self, oracle):
        params = random_params(SQUARED_ERROR)
        before = jax.device_get(params)
        values = metrics.compute(evaluate(SQUARED_ERROR, params, make_batch()))
        # A squared error is no likelihood, so it gives no bits.
        assert not any("bits" in name for name in values)
        assert values["psnr_db"] == pytest.approx(oracle["psnr"].mean(), rel=1e-4)
        expected = oracle["reconstruction"] + 1.4 * oracle["norms"]
        assert values["loss"] == pytest.approx(expected.mean(), rel=1e-4)
        assert_trees_equal(params, before)

    def test_bits_per_dim_of_a_likelihood(self, params):
        """[13, 24] (nats x dims / ln 2 + N log2 K) / dims; nothing is changed."""
        before = jax.device_get(params)
        values = metrics.compute(evaluate(MODEL, params, make_batch()))
        dims, latents = 4 * 8 * 3, 2 * 4 * G
        assert (MODEL.num_dims, MODEL.num_latents, MODEL.grid) == (dims, latents, GRID)
        nats = values["reconstruction"] * dims
        expected = (nats / math.log(2) + latents * math.log2(K)) / dims
        assert values["bits_per_dim_uniform_prior"] == pytest.approx(expected, rel=1e-5)
        assert_trees_equal(params, before)


class TestCoding:
    def test_encode_decode_and_reconstruct(self, oracle):
        params = random_params(SQUARED_ERROR)
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

    def test_other_shapes_are_refused(self, params):
        images = jnp.zeros((2, 8, 4, 3), jnp.uint8)
        message = r"\[B, 4, 8, 3\], got \(2, 8, 4, 3\)"
        for call in (MODEL.encode, MODEL.reconstruct):
            with pytest.raises(UserError, match=message):
                call(params, images)
        with pytest.raises(UserError, match=message):
            MODEL.loss(params, KEY, {"image": images, "mask": jnp.ones(2, bool)})
        with pytest.raises(UserError, match=r"\[B, 2, 4, 2\], got \(1, 4, 2, 2\)"):
            MODEL.decode(params, jnp.zeros((1, 4, 2, 2), jnp.int32))


class TestInit:
    def test_kmeans_and_uniform(self):
        """K-means puts codes on the valid z_e, "uniform" within 1 / K of zero."""
        batch = make_batch((True, True, False, False, False))
        # One program, so that the networks' initialisation is compiled once.
        params, uniform = jax.jit(
            lambda: (MODEL.init(KEY, batch), UNIFORM.init(KEY, batch))
        )()
        assert np.abs(uniform.codebook.embeddings).max() <= 1 / K
        for codebook in (params.codebook, uniform.codebook):
            np.testing.assert_array_equal(codebook.counts, np.ones((G, K)))
            np.testing.assert_array_equal(codebook.sums, codebook.embeddings)
        z_e = parts(MODEL, params, jnp.float32(batch["image"]))[0][:2]
        spread = np.asarray(z_e).reshape(-1, G, D)
        embeddings = np.asarray(params.codebook.embeddings)
        distances = ((spread[:, :, None] - embeddings) ** 2).sum(-1)
        centred = ((spread - spread.mean(axis=0)) ** 2).sum(-1)
        assert distances.min(-1).mean() < 0.5 * centred.mean()
        low, high = spread.min(axis=0)[:, None], spread.max(axis=0)[:, None]
        assert np.all((low - 1e-5 <= embeddings) & (embeddings <= high + 1e-5))

    def test_keys_decide_under_vmap(self):
        keys = jax.random.split(KEY, 3)
        stacked = jax.eval_shape(jax.vmap(UNIFORM.init, (0, None)), keys, make_batch())
        alone = jax.eval_shape(UNIFORM.init, KEY, make_batch())
        shapes = jax.tree.map(lambda leaf: (3, *leaf.shape), alone)
        assert jax.tree.map(lambda leaf: leaf.shape, stacked) == shapes


def test_bfloat16_computes_near_float32(params):
    loss = evaluate(BFLOAT16, params, make_batch())["loss"].total
    exact = evaluate(MODEL, params, make_batch())["loss"].total
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(float(exact), rel=0.05)
    assert float(loss) != float(exact)
    _, gradient = jax.eval_shape(lambda: step(BFLOAT16, params, make_batch()))
    for tree in (jax.eval_shape(BFLOAT16.init, KEY, make_batch()), gradient):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}


def test_restarts_put_unused_codes_on_vectors(params):
    counts = params.codebook.counts.at[:, 1].set(1e-6)
    dead = params._replace(codebook=params.codebook._replace(counts=counts))
    z_e = jnp.asarray(np.random.default_rng(3).normal(size=(5, 2, 4, G * D)), "float32")
    codes = jnp.zeros((5, *GRID), jnp.int32)
    carry = Carry(z_e, codes, jnp.ones((5, 2, 4), bool))
    kept = update(EMA, dead, carry).codebook.embeddings
    np.testing.assert_allclose(kept[:, 2], params.codebook.embeddings[:, 2], rtol=1e-5)
    restarting = dataclasses.replace(EMA, restart_below=0.01)
    moved = update(restarting, dead, carry).codebook.embeddings
    vectors = np.asarray(z_e).reshape(-1, G, D)
    for g in range(G):
        assert (vectors[:, g] == np.asarray(moved)[g, 1]).all(axis=1).any()
    np.testing.assert_array_equal(moved[:, 2:], kept[:, 2:])


def test_is_a_static_value_and_params_a_pytree(params):
    assert hash(dataclasses.replace(MODEL)) == hash(MODEL)
    assert dataclasses.replace(MODEL) == MODEL != EMA
    leaves, structure = jax.tree.flatten(params)
    restored = jax.tree.unflatten(structure, leaves)
    assert isinstance(restored.codebook, quantizers.Codebook)
    assert jax.tree.structure(jax.tree.map(lambda x: 2 * x, params)) == structure


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((n, 0) for n in ("num_codes", "num_codebooks", "dim", "units")),
        *((n, -1) for n in ("residual_units", "stages", "residual_blocks")),
        *((n, -0.5) for n in ("beta", "restart_below", "ema_decay")),
        ("beta", float("nan")),
        ("ema_decay", 1.0),
        ("stages", 3),
        ("likelihood", "cosine"),
        ("codebook_update", "gradient"),
        ("codebook_init", "zeros"),
        ("dtype", "float16"),
    ],
)
def test_impossible_values_are_told(name, value):
    with pytest.raises(UserError, match=rf"^{name}\b.*{value}"):
        dataclasses.replace(MODEL, **{name: value})
