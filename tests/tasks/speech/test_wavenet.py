"""WaveNet against loops in NumPy, its dependencies, step-by-step form and samples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from vqvae_jax import sampling
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech import wavenet
from vqvae_jax.tasks.speech.wavenet import (
    DilatedLayer,
    SequenceCondition,
    WaveNet,
    queued,
    walk,
)

K, B = 5, 2
SMALL = {"num_values": K, "stacks": 2, "layers": 2, "channels": 4, "skip_channels": 6}
LARGER = {"num_values": 6, "layers": 3, "skip_channels": 16}
CONDITIONED = {"num_classes": 3, "feature_channels": 2, "steps_per_feature": 3}


def build(length, *, batch=B, **options):
    """A network with random parameters, values, and a matching condition."""
    network = WaveNet(**(SMALL | options))
    rng = np.random.default_rng(0)
    values = jnp.asarray(
        rng.integers(network.num_values, size=(batch, length)), jnp.int32
    )
    labels = 2 * jnp.arange(batch) % 3 if network.num_classes else None
    features = None
    if network.feature_channels:
        count = -(-length // network.steps_per_feature)
        features = rng.normal(size=(batch, count, network.feature_channels))
        features = jnp.asarray(features, jnp.float32)
    condition = SequenceCondition(labels, features)
    shapes = jax.eval_shape(network.init, jax.random.key(0), values, condition)

    def draw(leaf):
        scale = 1.3 / np.sqrt(leaf.shape[0])
        return jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32)

    params = jax.tree.map(draw, shapes)
    return network, params, values, condition


def expected(network, params, values, condition):
    """The logits computed step by step in float64."""
    p = jax.tree.map(np.float64, params["params"])

    def dense(tree, x):
        return x @ tree["kernel"] + tree.get("bias", 0.0)

    out = np.zeros((*values.shape, network.num_values))
    for b in range(len(values)):
        x = np.zeros((values.shape[1], network.channels))
        x[1:] = p["embedding"]["embedding"][np.asarray(values)[b, :-1]]
        skip = 0.0
        for number, dilation in enumerate(network.dilations):
            layer = p[f"stack_{number}"]
            y, s = np.zeros_like(x), np.zeros((len(x), network.skip_channels))
            for t in range(len(x)):
                past = x[t - dilation] if t >= dilation else np.zeros(network.channels)
                gates = dense(layer["of_past"], past) + dense(layer["of_present"], x[t])
                if condition.labels is not None:
                    one_hot = np.eye(network.num_classes)[int(condition.labels[b])]
                    gates = gates + dense(layer["of_labels"], one_hot)
                if condition.features is not None:
                    feature = condition.features[b, t // network.steps_per_feature]
                    gates = gates + dense(layer["of_features"], np.float64(feature))
                a, g = np.split(gates, 2)
                output = np.tanh(a) / (1 + np.exp(-g))
                y[t] = x[t] + dense(layer["residual"], output)
                s[t] = dense(layer["skip"], output)
            x, skip = y, skip + s
        hidden = np.maximum(dense(p["hidden"], np.maximum(skip, 0)), 0)
        out[b] = dense(p["to_logits"], hidden)
    return out


@pytest.mark.parametrize("options", [{}, CONDITIONED])
def test_logits_match_loops(options):
    network, params, values, condition = build(11, **options)
    ours = jax.jit(network.apply)(params, values, condition)
    oracle = expected(network, params, values, condition)
    np.testing.assert_allclose(ours, oracle, rtol=1e-4, atol=1e-4)


def test_dropout_scales_or_drops_each_gated_output():
    """Read from the skip output of a layer, whose projection is the identity here."""
    channels, shape = 4, (60, 4)
    layer = DilatedLayer(channels, channels, 1, 0.25, jnp.float32)
    rng = np.random.default_rng(0)
    past, present = (jnp.asarray(rng.normal(size=shape), "float32") for _ in range(2))
    params = layer.init(jax.random.key(0), past, present, None)["params"]
    identity = {"kernel": jnp.eye(channels), "bias": jnp.zeros(channels)}
    params = {"params": params | {"skip": identity}}
    outputs = [
        np.asarray(layer.apply(params, past, present, None, rngs=rngs)[1])
        for rngs in (None, *({"dropout": jax.random.key(n)} for n in range(20)))
    ]
    whole, dropped = outputs[0], np.stack(outputs[1:])
    is_kept = dropped != 0
    np.testing.assert_allclose(
        dropped, np.where(is_kept, whole / 0.75, 0), rtol=1e-5, atol=1e-7
    )
    # 4800 draws.
    assert is_kept.mean() == pytest.approx(0.75, abs=0.025)


def test_layers_do_not_share_weights():
    """[14] Parameter count by hand: two gates of 2 taps, biases, residual and skip."""
    _, params, _, _ = build(4)
    per_layer = (2 * 4) * 8 + 8 + 4 * (4 + 6) + (4 + 6)
    heads = 6 * 6 + 6 + 6 * K + K
    total = sum(x.size for x in jax.tree.leaves(params))
    assert total == K * 4 + 4 * per_layer + heads


class TestDependence:
    def test_gradients_are_confined_to_the_receptive_field(self):
        """[16] They reach every step in it, but neither the present nor the future."""
        length = 12
        network, params, _, _ = build(length, num_values=length)
        values = jnp.arange(length)[None]
        weights = jnp.asarray(np.random.default_rng(1).normal(size=length), jnp.float32)

        def by_step(params):
            return network.apply(params, values)[0] @ weights

        found = jax.jit(jax.jacrev(by_step))(params)["params"]["embedding"]
        reached = np.any(np.asarray(found["embedding"]) != 0, axis=-1)
        assert network.receptive_field == 7
        steps = np.arange(length)
        age = steps[:, None] - steps[None]
        np.testing.assert_array_equal(reached, (age >= 1) & (age <= 7))

    def test_features_and_labels_reach_the_right_steps(self):
        """A feature reaches its own and, through layers, later steps; a label all."""
        network, params, values, condition = build(11, **CONDITIONED)
        apply = jax.jit(network.apply)
        before = np.asarray(apply(params, values, condition))
        features = condition.features.at[1, 1].add(1.0)
        after = np.asarray(apply(params, values, condition._replace(features=features)))
        np.testing.assert_array_equal(after[0], before[0])
        changed = (after[1] != before[1]).any(axis=-1)
        np.testing.assert_array_equal(changed[:3], [False] * 3)
        assert changed[3:6].all()
        labels = condition.labels.at[1].set(1)
        after = np.asarray(apply(params, values, condition._replace(labels=labels)))
        np.testing.assert_array_equal(after[0], before[0])
        assert (after[1] != before[1]).any(axis=-1).all()


@pytest.mark.parametrize("length", [1, 9, 11])
@pytest.mark.parametrize("options", [{}, {"num_classes": 3}, CONDITIONED])
def test_step_by_step_logits_match_the_whole_sequence(length, options):
    network, params, values, condition = build(length, **options)

    @jax.jit
    def step_by_step(values):
        def step(logits, given):
            return given, logits

        return walk(
            network, params, step, values.T, shape=values.shape, condition=condition
        )

    whole = jax.jit(network.apply)(params, values, condition)
    np.testing.assert_allclose(
        jnp.moveaxis(step_by_step(values), 0, 1), whole, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "condition", "message"),
    [
        ({}, SequenceCondition(labels=jnp.zeros(B, int)), "^labels are unexpected"),
        ({"num_classes": 2}, SequenceCondition(), "^labels are needed.* 2 classes"),
        (
            {"num_classes": 2},
            SequenceCondition(labels=jnp.zeros(3, int)),
            r"^labels must have shape \[2\], got \(3,\)",
        ),
        (
            {"feature_channels": 2, "steps_per_feature": 4},
            SequenceCondition(features=jnp.zeros((B, 2, 2))),
            r"^features must have shape \[2, 3, 2\], one per 4 of 9 values",
        ),
    ],
)
def test_mismatched_condition_raises(options, condition, message):
    network = WaveNet(**(SMALL | options))
    with pytest.raises(UserError, match=message):
        network.init(jax.random.key(0), jnp.zeros((B, 9), jnp.int32), condition)


class TestWaves:
    """Initial embeddings of ordered values."""

    TABLE = np.asarray(wavenet.waves(jax.random.key(0), (256, 32)))

    def test_nearest_embedding_is_that_of_a_neighbouring_value(self):
        distances = np.linalg.norm(self.TABLE[:, None] - self.TABLE, axis=-1)
        np.fill_diagonal(distances, np.inf)
        nearest = distances.argmin(axis=1)
        assert (np.abs(nearest - np.arange(256)) == 1).all()
        # Embeddings are distinct, and distant values have distant embeddings.
        assert distances.min() > 0.5
        near, far = np.diagonal(distances, 1), np.diagonal(distances, 100)
        assert far.mean() > 3 * near.mean()

    def test_embeddings_have_unit_scale(self):
        assert np.mean(self.TABLE**2) == pytest.approx(1, abs=0.1)

    def test_only_ordered_values_use_waves(self):
        values = jnp.zeros((1, 1), jnp.int32)

        def table(**options):
            network = WaveNet(num_values=8, stacks=1, layers=1, channels=4, **options)
            params = network.init(jax.random.key(0), values)
            return params["params"]["embedding"]["embedding"]

        assert np.mean(np.square(table(ordered=True))) > 0.5
        assert np.mean(np.square(table())) < 0.5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_classes": 3},
        {"num_classes": 3, "feature_channels": 3, "steps_per_feature": 4},
    ],
)
# The last feature covers one step of four, so the keys of the others are padding.
@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
def test_queued_samples_equal_ancestral_samples(options, make_key):
    shape = (3, 21)
    network, params, _, condition = build(21, batch=3, **LARGER, **options)

    def adjust(logits):
        return sampling.truncated(logits, temperature=1.2)

    @jax.jit
    def both(key):
        ours = queued(
            network, params, key, shape=shape, condition=condition, adjust=adjust
        )
        naive = sampling.ancestral(
            lambda grid: network.apply(params, grid[..., 0, 0], condition)[
                :, :, None, None
            ],
            key,
            shape=(*shape, 1, 1),
            adjust=adjust,
        )[..., 0, 0]
        return ours, naive

    for key in jax.random.split(make_key(0), 3):
        ours, naive = both(key)
        np.testing.assert_array_equal(ours, naive)
    assert len(np.unique(ours)) > 3


def test_frequencies_match_the_models_probabilities():
    """All 27 sequences of three values, over 20 000 samples."""
    network, params, *_ = build(3, num_values=3, stacks=1)
    every = np.array(list(itertools.product(range(3), repeat=3)))
    logits = np.float64(jax.jit(network.apply)(params, jnp.asarray(every, jnp.int32)))
    log_p = np.take_along_axis(
        special.log_softmax(logits, axis=-1), every[..., None], axis=-1
    ).sum(axis=(1, 2))
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-5)
    draw = jax.jit(lambda key: queued(network, params, key, shape=(20_000, 3)))
    drawn = np.asarray(draw(jax.random.key(7))) @ [9, 3, 1]
    counts = np.bincount(drawn, minlength=27)
    expected = 20_000 * np.exp(log_p)
    frequent = expected > 5
    observed = np.append(counts[frequent], counts[~frequent].sum())
    expected = np.append(expected[frequent], expected[~frequent].sum())
    keep = expected > 5
    observed, expected = observed[keep], expected[keep]
    expected *= observed.sum() / expected.sum()
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_given_values_are_kept_and_condition_later_ones():
    network, params, *_ = build(12, **LARGER)
    given = np.full((32, 12), -1)
    given[:, :5] = np.random.default_rng(0).integers(6, size=(32, 5))
    given[0, 9] = 3

    @jax.jit
    def draw(given):
        return queued(network, params, jax.random.key(7), shape=(32, 12), given=given)

    drawn = np.asarray(draw(jnp.asarray(given)))
    kept = given >= 0
    np.testing.assert_array_equal(drawn[kept], given[kept])
    other = given.copy()
    other[:, :5] = (other[:, :5] + 1) % 6
    assert (np.asarray(draw(jnp.asarray(other)))[:, 5:] != drawn[:, 5:]).any()
