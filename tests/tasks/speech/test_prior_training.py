"""Training a prior over sequences: loss against NumPy, padding, learning a pattern.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

from vqvae_jax import metrics
from vqvae_jax.tasks.speech.prior import SequencePrior
from vqvae_jax.tasks.speech.wavenet import SequenceCondition, WaveNet

KEY = jax.random.key(0)
K, N = 3, 4
SIZES = {
    "latents": N,
    "network": WaveNet(stacks=2, layers=2, channels=4, skip_channels=8),
}
PRIOR = SequencePrior(num_codes=K, class_names=("anna", "ben"), **SIZES)
CONDITIONAL = dataclasses.replace(PRIOR, conditional=True)
# Without padding, with some padding, and only padding.
LENGTHS = np.array([4, 1, 3, 0, 2])


def random_params(model):
    """Random arrays of the right shapes; an initial model is nearly uniform."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, KEY, {})
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), "float32"), shapes
    )


PARAMS, CONDITIONAL_PARAMS = random_params(PRIOR), random_params(CONDITIONAL)


def make_batch(fill=0):
    rng = np.random.default_rng(1)
    mask = np.arange(N) < LENGTHS[:, None]
    codes = np.where(mask, rng.integers(K, size=mask.shape), fill)
    return {
        "codes": jnp.asarray(codes, "int32"),
        "mask": jnp.asarray(mask),
        "speaker": jnp.array([0, 1, 1, 0, 1], jnp.int32),
    }


def numpy_nats(model, params, batch):
    """Cross-entropy of the network's logits at each code, in float64: `[B, N]`."""
    speakers = batch["speaker"] if model.conditional else None
    codes = np.where(batch["mask"], batch["codes"], 0)
    logits = model._network.apply(
        params, jnp.asarray(codes), SequenceCondition(speakers)
    )
    log_p = special.log_softmax(np.float64(logits), axis=-1)
    return -np.take_along_axis(log_p, codes[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize(
    "model", [PRIOR, CONDITIONAL], ids=["unconditional", "conditional"]
)
def test_loss_is_the_cross_entropy_of_codes_that_are_not_padding(model):
    """[10] Each code has the same weight, for utterances of any length."""
    params = CONDITIONAL_PARAMS if model.conditional else PARAMS
    batch = make_batch()
    mask = np.asarray(batch["mask"])
    expected = numpy_nats(model, params, batch)[mask].mean()
    loss, (means, carry) = jax.jit(model.loss)(params, KEY, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    bits = expected / math.log(2)
    assert metrics.compute(means) == pytest.approx({"bits_per_code": bits})
    evaluated = jax.jit(model.evaluate)(params, batch)
    assert all(m.weight == mask.sum() for m in evaluated.values())
    assert metrics.compute(evaluated) == pytest.approx(
        {"loss": expected, "bits_per_code": bits}
    )
    assert model.update(params, KEY, carry) is params
    assert all(jax.tree.leaves(model.trainable(params)))


@pytest.mark.parametrize("fill", [2, -1, 10**6])
def test_padding_changes_nothing(fill):
    """[10] Not the loss, the gradients or the metrics."""

    @jax.jit
    def outcome(batch):
        step = jax.value_and_grad(PRIOR.loss, has_aux=True)
        return step(PARAMS, KEY, batch), PRIOR.evaluate(PARAMS, batch)

    found, expected = outcome(make_batch(fill)), outcome(make_batch())
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_metrics_add_up_over_batches():
    batch = make_batch()
    parts = [jax.tree.map(lambda x, p=p: x[p], batch) for p in (slice(1), slice(1, 5))]
    evaluate = jax.jit(PRIOR.evaluate)
    total = metrics.total(evaluate(PARAMS, part) for part in parts)
    assert metrics.compute(total) == pytest.approx(
        metrics.compute(evaluate(PARAMS, batch)), rel=1e-5
    )


def test_a_batch_of_padding_has_no_loss_or_gradient():
    batch = make_batch() | {"mask": jnp.zeros((5, N), bool)}
    step = jax.jit(jax.value_and_grad(lambda params: PRIOR.loss(params, KEY, batch)[0]))
    loss, gradients = step(PARAMS)
    assert loss == 0
    assert not any(np.any(x) for x in jax.tree.leaves(gradients))


def test_evaluation_has_no_dropout():
    noisy = dataclasses.replace(PRIOR, network=PRIOR.network.clone(dropout=0.5))
    batch = make_batch()
    plain, evaluated = (m.evaluate(PARAMS, batch)["loss"].total for m in (PRIOR, noisy))
    assert plain == evaluated
    loss = jax.jit(lambda key: noisy.loss(PARAMS, key, batch)[0])
    first, again, other = (float(loss(jax.random.key(n))) for n in (0, 0, 1))
    assert first == again != other
    assert first != pytest.approx(float(plain) / LENGTHS.sum(), rel=1e-3)


def test_learns_a_pattern_up_to_its_entropy():
    """Each code is followed by the next one, or with probability 1/4 by itself."""
    rng = np.random.default_rng(0)
    steps = rng.random((64, 24)) < 0.75
    codes = (rng.integers(K, size=(64, 1)) + steps.cumsum(axis=1)) % K
    mask = np.arange(24) < rng.integers(12, 25, size=(64, 1))
    batch = {"codes": jnp.asarray(codes, "int32"), "mask": jnp.asarray(mask)}
    optimizer = optax.adam(0.02)

    @jax.jit
    def step(state, key):
        params, moments = state
        loss, gradients = jax.value_and_grad(
            lambda params: PRIOR.loss(params, key, batch)[0]
        )(params)
        updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(params, updates), moments), loss

    params = jax.jit(lambda: PRIOR.init(KEY, batch))()
    state, losses = (params, optimizer.init(params)), []
    for key in jax.random.split(KEY, 80):
        state, loss = step(state, key)
        losses.append(float(loss))
    # The first code is uniform; each later one has the entropy of one step.
    step_entropy = stats.entropy([0.25, 0.75])
    first = 1 / mask.sum(axis=1).mean()
    entropy = first * math.log(K) + (1 - first) * step_entropy
    assert losses[0] == pytest.approx(math.log(K), rel=0.05)
    assert losses[-1] == pytest.approx(entropy, rel=0.06)
