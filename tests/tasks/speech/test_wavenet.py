"""WaveNet against loops in NumPy; what its logits depend on; step by step the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech import queued_sampling, wavenet
from vqvae_jax.tasks.speech.wavenet import SequenceCondition, WaveNet

K, B = 5, 2
SMALL = {"num_values": K, "stacks": 2, "layers": 2, "units": 4, "skip_units": 6}
CONDITIONED = {"num_classes": 3, "feature_channels": 2, "steps_per_feature": 3}


def build(length, seed=0, **options):
    """A network with random parameters, values, and a condition that fits it."""
    network = WaveNet(**(SMALL | options))
    rng = np.random.default_rng(seed)
    values = jnp.asarray(rng.integers(network.num_values, size=(B, length)), jnp.int32)
    labels = jnp.asarray([0, 2]) if network.num_classes else None
    features = None
    if network.feature_channels:
        count = -(-length // network.steps_per_feature)
        features = rng.normal(size=(B, count, network.feature_channels))
        features = jnp.asarray(features, jnp.float32)
    condition = SequenceCondition(labels, features)
    shapes = jax.eval_shape(network.init, jax.random.key(0), values, condition)
    params = jax.tree.map(
        lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32), shapes
    )
    return network, params, values, condition


def expected(network, params, values, condition):
    """Each product of the network, step by step, in float64."""
    p = jax.tree.map(np.float64, params["params"])

    def dense(tree, x):
        return x @ tree["kernel"] + tree.get("bias", 0.0)

    out = np.zeros((*values.shape, network.num_values))
    for b in range(len(values)):
        x = np.zeros((values.shape[1], network.units))
        x[1:] = p["embedding"]["embedding"][np.asarray(values)[b, :-1]]
        skip = 0.0
        for number, dilation in enumerate(network.dilations):
            layer = p[f"stack_{number}"]
            y, s = np.zeros_like(x), np.zeros((len(x), network.skip_units))
            for t in range(len(x)):
                past = x[t - dilation] if t >= dilation else np.zeros(network.units)
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
def test_logits_are_those_of_loops(options):
    network, params, values, condition = build(11, **options)
    ours = jax.jit(network.apply)(params, values, condition)
    oracle = expected(network, params, values, condition)
    np.testing.assert_allclose(ours, oracle, rtol=1e-4, atol=1e-4)


def test_every_layer_has_weights_of_its_own():
    """[14] Two gates of 2 taps and biases, residual and skip: by hand."""
    _, params, _, _ = build(4)
    per_layer = (2 * 4) * 8 + 8 + 4 * (4 + 6) + (4 + 6)
    heads = 6 * 6 + 6 + 6 * K + K
    total = sum(x.size for x in jax.tree.leaves(params))
    assert total == K * 4 + 4 * per_layer + heads


class TestDependence:
    def test_gradients_come_from_the_receptive_field_alone(self):
        """[16] Every step in it, and neither the present nor the future."""
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

    def test_features_are_those_of_their_own_steps(self):
        """And of the steps after, through the layers; the label is of every step."""
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
def test_step_by_step_the_logits_are_the_same(length, options):
    network, params, values, condition = build(length, **options)

    @jax.jit
    def walked(values):
        def step(logits, given):
            return given, logits

        return queued_sampling.walk(
            network, params, step, values.T, shape=values.shape, condition=condition
        )

    whole = jax.jit(network.apply)(params, values, condition)
    np.testing.assert_allclose(
        jnp.moveaxis(walked(values), 0, 1), whole, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "condition", "message"),
    [
        ({}, SequenceCondition(labels=jnp.zeros(B, int)), "^labels are not wanted"),
        ({"num_classes": 2}, SequenceCondition(), "^labels are needed.* 2 classes"),
        (
            {"num_classes": 2},
            SequenceCondition(labels=jnp.zeros(3, int)),
            r"^labels must have shape \[2\], got \(3,\)",
        ),
        (
            {"feature_channels": 2, "steps_per_feature": 4},
            SequenceCondition(features=jnp.zeros((B, 2, 2))),
            r"^features must have shape \[2, 3, 2\], one for 4 of 9 values",
        ),
    ],
)
def test_a_condition_that_does_not_fit_is_told(options, condition, message):
    network = WaveNet(**(SMALL | options))
    with pytest.raises(UserError, match=message):
        network.init(jax.random.key(0), jnp.zeros((B, 9), jnp.int32), condition)


class TestWaves:
    """Embeddings of ordered values."""

    TABLE = np.asarray(wavenet.waves(jax.random.key(0), (256, 32)))

    def test_the_nearest_of_each_value_is_one_beside_it(self):
        apart = np.linalg.norm(self.TABLE[:, None] - self.TABLE, axis=-1)
        np.fill_diagonal(apart, np.inf)
        nearest = apart.argmin(axis=1)
        assert (np.abs(nearest - np.arange(256)) == 1).all()
        # All the same, no two are one, and far ones are further.
        assert apart.min() > 0.5
        assert np.diagonal(apart, 100).mean() > 3 * np.diagonal(apart, 1).mean()

    def test_channels_have_the_scale_of_one(self):
        assert np.mean(self.TABLE**2) == pytest.approx(1, abs=0.1)

    def test_only_ordered_values_start_so(self):
        values = jnp.zeros((1, 1), jnp.int32)

        def table(**options):
            network = WaveNet(num_values=8, stacks=1, layers=1, units=4, **options)
            params = network.init(jax.random.key(0), values)
            return params["params"]["embedding"]["embedding"]

        assert np.mean(np.square(table(ordered=True))) > 0.5
        assert np.mean(np.square(table())) < 0.5
