"""Every function of the library returns the same under every JAX transformation.

Each transformation maps a function over two stacked sets of arguments; the result must
equal that of calling the function on one set after the other. Statistics that are
summed over a device axis must equal those of all rows at once.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from tiny_models import results_of
from tree_checks import assert_close

from vqvae_jax import quantizers
from vqvae_jax.models.base import Carry
from vqvae_jax.quantizers.codebook import init_uniform
from vqvae_jax.quantizers.ema import count_update, ema_update

KEY = jax.random.key(4)
AXIS = "devices"
VQ = quantizers.VQ(num_codes=5, dim=3, num_codebooks=2)


def at(stacked, i):
    return jax.tree.map(lambda x: x[i], stacked)


def one_by_one(function):
    """Map a function over stacked arguments without any transformation."""

    def mapped(stacked):
        results = [function(at(stacked, i)) for i in range(2)]
        return jax.tree.map(lambda *x: np.stack(x), *results)

    return mapped


def scan(function):
    def mapped(stacked):
        return lax.scan(lambda _, x: (None, function(x)), None, stacked)[1]

    return jax.jit(mapped)


def shard_map(function):
    def local(block):
        result = function(at(block, 0))
        return jax.tree.map(lambda x: x[None], result)

    mesh, split = Mesh(np.array(jax.devices()[:2]), (AXIS,)), PartitionSpec(AXIS)
    return jax.jit(
        jax.shard_map(
            local, mesh=mesh, in_specs=split, out_specs=split, check_vma=False
        )
    )


TRANSFORMS = {
    "jit": lambda function: one_by_one(jax.jit(function)),
    "vmap": lambda function: jax.jit(jax.vmap(function, axis_name=AXIS)),
    "pmap": lambda function: jax.pmap(
        function, axis_name=AXIS, devices=jax.devices()[:2]
    ),
    "shard_map": shard_map,
    "scan": scan,
}
WITH_AXIS = ("vmap", "pmap", "shard_map")


# The quantizer. Each function takes one of two sets of rows, codes and padding.


def with_gradient(function, transform=lambda function: function):
    """Return a function's results, and gradients with respect to codebook and z_e."""

    def evaluate(codebook, rows):
        def scalar(floats):
            embeddings, z_e = floats
            replaced = codebook._replace(embeddings=embeddings)
            results = function(replaced, rows | {"z_e": z_e})
            return sum(
                jnp.sum(jnp.sin(x))
                for x in jax.tree.leaves(results)
                if jnp.issubdtype(x.dtype, jnp.floating)
            ), results

        floats = codebook.embeddings, rows["z_e"]
        return jax.value_and_grad(transform(scalar), has_aux=True)(floats)

    return evaluate


def groups(codebook, rows):
    return rows["z_e"].reshape(-1, *codebook.embeddings.shape[::2])


WITH_GRADIENT = {
    "quantize": lambda c, x: VQ.quantize(c, x["z_e"], x["mask"]),
    "lookup": lambda c, x: VQ.lookup(c, x["codes"]),
}
PER_ROW = {
    **{name: with_gradient(function) for name, function in WITH_GRADIENT.items()},
    "nearest": lambda c, x: quantizers.nearest(c.embeddings, groups(c, x)),
    "usage": lambda c, x: quantizers.usage(
        x["codes"], num_codes=c.counts.shape[1], mask=x["mask"]
    ),
    "perplexity": lambda c, x: quantizers.perplexity(c.counts * x["z_e"].max() ** 2),
    "active_codes": lambda c, x: quantizers.active_codes(c.counts - x["z_e"].max()),
    "init": lambda c, x: init_uniform(x["key"], num_codes=5, dim=3, num_codebooks=2),
}
OVER_ROWS = {
    "ema_update": lambda c, x, **axis: ema_update(
        c, x["z_e"], x["codes"], decay=0.8, mask=x["mask"], **axis
    ),
    "count_update": lambda c, x, **axis: count_update(
        c, x["codes"], decay=0.8, mask=x["mask"], **axis
    ),
    "kmeans": lambda c, x, **axis: quantizers.kmeans(
        KEY, c, x["z_e"], iterations=2, mask=x["mask"], **axis
    ),
    "restart": lambda c, x, **axis: quantizers.restart(
        KEY, c, x["z_e"], min_count=1.0, mask=x["mask"], **axis
    ),
}


@pytest.fixture(scope="module")
def codebook():
    rng = np.random.default_rng(0)
    return quantizers.Codebook(
        embeddings=jnp.asarray(rng.normal(size=(2, 5, 3)), "float32"),
        counts=jnp.asarray(rng.uniform(0.2, 2.0, size=(2, 5)), "float32"),
        sums=jnp.asarray(rng.normal(size=(2, 5, 3)), "float32"),
    )


@pytest.fixture(scope="module")
def rows():
    """Two sets of eight rows, about a third of them padding."""
    rng = np.random.default_rng(1)
    return {
        "z_e": jnp.asarray(rng.normal(size=(2, 8, 6)), "float32"),
        "codes": jnp.asarray(rng.integers(5, size=(2, 8, 2)), "int32"),
        "mask": jnp.asarray(rng.random((2, 8)) < 0.7),
        "key": jax.random.split(KEY, 2),
    }


@pytest.mark.parametrize("name", PER_ROW | OVER_ROWS)
def test_quantizers_under_every_transformation(name, codebook, rows):
    function = functools.partial((PER_ROW | OVER_ROWS)[name], codebook)
    expected = one_by_one(function)(rows)
    for transform in TRANSFORMS.values():
        assert_close(transform(function)(rows), expected, scaled=True)


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_quantizers_under_checkpoint(name, codebook, rows):
    again = with_gradient(WITH_GRADIENT[name], jax.checkpoint)
    expected = PER_ROW[name](codebook, at(rows, 0))
    assert_close(again(codebook, at(rows, 0)), expected, scaled=True)


@pytest.mark.parametrize("name", OVER_ROWS)
def test_statistics_are_summed_over_the_axis(name, codebook, rows):
    function = OVER_ROWS[name]
    together = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
    expected = function(codebook, together)
    over_axis = functools.partial(function, codebook, axis_name=AXIS)
    for transform in WITH_AXIS:
        found = TRANSFORMS[transform](over_axis)(rows)
        for device in range(2):
            assert_close(at(found, device), expected, scaled=True)


# The models. Each function takes a model, its parameters and a batch.

ROUND_TRIP = {
    "vqvae": lambda m, p, b: m.decode(p, m.encode(p, b["image"])),
    "vae": lambda m, p, b: m.decode(p, m.encode(p, b["image"])),
    "vimco": lambda m, p, b: m.decode(p, m.encode(p, b["image"])),
    "gan": lambda m, p, b: m.sample(p, KEY, num_samples=2),
    "pixelcnn": lambda m, p, b: m.log_prob(p, b["image"]),
    "prior": lambda m, p, b: m.log_prob(p, b["codes"], labels=b["label"]),
    "sequence_prior": lambda m, p, b: m.log_prob(
        p, b["codes"], speakers=b["speaker"], mask=b["mask"]
    ),
    "video": lambda m, p, b: m.log_prob(p, b["codes"], actions=b["action"][:, :-1]),
    "hierarchy": lambda m, p, b: m.log_prob(p, b["codes"], m.encode(p, b["codes"])),
    "hierarchy_vae": lambda m, p, b: m.log_prob(p, b["codes"], m.encode(p, b["codes"])),
    "speech": lambda m, p, b: (
        m.decode(p, KEY, m.encode(p, b["audio"], b["mask"]), speakers=b["speaker"]),
        m.log_prob(
            p,
            b["audio"],
            m.encode(p, b["audio"]),
            speakers=b["speaker"],
            mask=b["mask"],
        ),
    ),
}


def all_of(name, model, params, batch):
    """Return the results of all methods of a model."""
    round_trip = ROUND_TRIP[name](model, params, batch)
    return results_of(model, params, KEY, batch) | {"round trip": round_trip}


@pytest.fixture(scope="module")
def two_batches(tiny_model):
    """name -> model, parameters, and two stacked batches of two."""

    def make(name):
        model, (params, batch) = tiny_model(name)
        halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), batch)
        return model, params, halves

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUND_TRIP)
def test_models_under_every_transformation(name, two_batches):
    model, params, batches = two_batches(name)
    function = functools.partial(all_of, name, model, params)
    expected = one_by_one(jax.jit(function))(batches)
    for transform in ("vmap", "pmap", "shard_map", "scan"):
        assert_close(TRANSFORMS[transform](function)(batches), expected, scaled=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUND_TRIP)
def test_models_under_checkpoint(name, two_batches):
    model, params, batches = two_batches(name)

    def loss(params):
        return model.loss(params, KEY, at(batches, 0))[0]

    expected = jax.jit(jax.grad(loss))(params)
    assert_close(jax.jit(jax.grad(jax.checkpoint(loss)))(params), expected, scaled=True)


def test_a_model_updates_its_codebook_over_the_axis(two_batches):
    model, params, _ = two_batches("vqvae")
    rng = np.random.default_rng(0)
    G, K, D = params.quantizer.embeddings.shape
    carry = Carry(
        z_e=jnp.asarray(rng.normal(size=(2, 3, 4, G * D)), "float32"),
        codes=jnp.asarray(rng.integers(K, size=(2, 3, 4, G)), "int32"),
        mask=jnp.asarray(rng.random((2, 3, 4)) < 0.6),
    )
    together = jax.tree.map(lambda x: x.reshape(6, *x.shape[2:]), carry)
    expected = model.update(params, KEY, together).quantizer

    def over_axis(carry):
        return model.update(params, KEY, carry, axis_name=AXIS).quantizer

    for transform in WITH_AXIS:
        found = TRANSFORMS[transform](over_axis)(carry)
        for device in range(2):
            assert_close(at(found, device), expected, scaled=True)
