"""The prior over sequences: enumerated, masked, sampled, and trained.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from scipy import special, stats

from vqvae_jax import metrics
from vqvae_jax.options import build
from vqvae_jax.runtime.errors import UserError
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
ALL_SEQUENCES = np.array(list(itertools.product(range(K), repeat=N)), np.int32)
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


@functools.cache
def log_probs_of_all(speaker):
    """Of all 81 sequences; without a speaker, those of the unconditional prior."""
    model, params, speakers = PRIOR, PARAMS, None
    if speaker is not None:
        model, params = CONDITIONAL, CONDITIONAL_PARAMS
        speakers = jnp.full(len(ALL_SEQUENCES), speaker)
    log_prob = jax.jit(model.log_prob)
    return np.float64(log_prob(params, jnp.asarray(ALL_SEQUENCES), speakers=speakers))


def assert_drawn_from(codes, log_p):
    """Chi-squared test; sequences with fewer than 5 expected draws are one group."""
    counts = np.bincount(codes @ K ** np.arange(N)[::-1], minlength=len(ALL_SEQUENCES))
    expected = len(codes) * np.exp(log_p) / np.exp(log_p).sum()
    group = np.where(expected < 5, 0, 1 + np.arange(len(ALL_SEQUENCES)))
    sums = [[x[group == g].sum() for g in np.unique(group)] for x in (counts, expected)]
    assert stats.chisquare(*sums).pvalue > 1e-3


@pytest.fixture
def unchecked():
    """Disable the type checks of the test suite, which users do not have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class TestLogProb:
    @pytest.mark.parametrize("speaker", [None, 0, 1])
    def test_sums_to_one(self, speaker):
        log_p = log_probs_of_all(speaker)
        assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-5)
        # Neither uniform nor deterministic: most sequences have some probability.
        assert np.ptp(log_p) > 1
        assert (np.exp(log_p) > 1e-3).sum() > 50

    def test_padding_is_ignored(self):
        """log p of a prefix is that of all sequences that start with it."""
        batch = make_batch(fill=99)
        found = PRIOR.log_prob(PARAMS, batch["codes"], mask=batch["mask"])
        joint = np.exp(log_probs_of_all(None)).reshape([K] * N)
        for codes, length, log_p in zip(batch["codes"], LENGTHS, found, strict=True):
            expected = joint[tuple(np.asarray(codes[:length]))].sum()
            assert np.exp(log_p) == pytest.approx(expected, rel=1e-4)

    def test_a_code_does_not_depend_on_later_ones(self):
        """Exactly: two sequences with the same first codes, masked after each code."""
        sequences = jnp.array([[0, 1, 2, 0, 1, 2, 2], [0, 1, 2, 2, 0, 1, 0]])
        prefixes = np.tril(np.ones((7, 7), bool))

        @jax.jit
        def of_prefixes(codes):
            return PRIOR.log_prob(PARAMS, jnp.tile(codes, (7, 1)), mask=prefixes)

        one, other = (np.diff(of_prefixes(codes), prepend=0) for codes in sequences)
        np.testing.assert_array_equal(one[:3], other[:3])
        assert (one[4:] != other[4:]).all()

    def test_only_a_conditional_prior_depends_on_the_speaker(self):
        assert np.abs(log_probs_of_all(0) - log_probs_of_all(1)).max() > 0.1
        batch = make_batch()
        swapped = {**batch, "speaker": 1 - batch["speaker"]}
        losses = [
            [float(m.evaluate(p, b)["loss"].total) for b in (batch, swapped)]
            for m, p in ((PRIOR, PARAMS), (CONDITIONAL, CONDITIONAL_PARAMS))
        ]
        assert losses[0][0] == losses[0][1]
        assert abs(losses[1][0] - losses[1][1]) > 0.1

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"codes": np.zeros((2, 4, 1), int)}, r"codes must have shape \[B, N\]"),
            ({"codes": np.full((2, 4), 3)}, "codes must be in 0 ... 2, got 3 ... 3"),
            ({"codes": np.full((2, 4), -1)}, "codes must be in 0 ... 2, got -1"),
            ({"mask": np.ones((2, 3), bool)}, r"mask must have shape \[2, 4\], got"),
            ({"mask": np.arange(8).reshape(2, 4) > 0}, "mask must be False after each"),
            ({"speakers": None}, "speakers are needed, one of 2 for each sequence"),
            ({"speakers": np.zeros(3, int)}, r"speakers must have shape \[2\], got"),
            ({"speakers": np.array([0, 2])}, "speakers must be in 0 ... 1, got 0 ... "),
        ],
    )
    def test_invalid_arrays_raise(self, changes, message, unchecked):
        arrays = {"codes": np.zeros((2, 4), int), "speakers": np.zeros(2, int)}
        arrays |= changes
        with pytest.raises(UserError, match=f"^{message}"):
            CONDITIONAL.log_prob(CONDITIONAL_PARAMS, arrays.pop("codes"), **arrays)


class TestSample:
    def test_frequencies_match_the_probabilities(self):
        codes = PRIOR.sample(PARAMS, KEY, num_samples=10_000)
        assert (codes.shape, codes.dtype) == ((10_000, N), np.int32)
        assert_drawn_from(np.asarray(codes), log_probs_of_all(None))

    def test_each_speaker_has_its_distribution(self):
        """In one batch with both speakers."""
        speakers = np.arange(20_000) % 2
        codes = CONDITIONAL.sample(
            CONDITIONAL_PARAMS, KEY, num_samples=20_000, speakers=speakers
        )
        for speaker in range(2):
            assert_drawn_from(
                np.asarray(codes)[speakers == speaker], log_probs_of_all(speaker)
            )

    def test_given_codes_are_kept_and_condition_later_codes(self):
        rng = np.random.default_rng(0)
        given = np.where(rng.random((300, 9)) < 0.4, rng.integers(K, size=(300, 9)), -1)
        draw = functools.partial(
            PRIOR.sample, PARAMS, KEY, num_samples=300, num_latents=9
        )
        drawn, kept = np.asarray(draw(given=given)), given >= 0
        np.testing.assert_array_equal(drawn[kept], given[kept])
        assert set(drawn[~kept]) == set(range(K))
        first_is_free = given[:, 0] == -1
        other = np.where(kept, (given + 1) % K, -1)
        assert (np.asarray(draw(given=other))[~kept] != drawn[~kept]).any()
        np.testing.assert_array_equal(
            np.asarray(draw(given=other))[first_is_free, 0], drawn[first_is_free, 0]
        )

    def test_options_restrict_the_draw_without_recompilation(self):
        draw = functools.partial(CONDITIONAL.sample, CONDITIONAL_PARAMS, num_samples=50)
        speakers = np.arange(50) % 2
        size_before = SequencePrior._draw._cache_size()
        for seed in range(3):
            draw(
                jax.random.key(seed),
                speakers=(speakers + seed) % 2,
                temperature=1.0 + seed,
                top_p=0.5 + 0.1 * seed,
            )
        assert SequencePrior._draw._cache_size() == size_before + 1
        likeliest = [
            draw(jax.random.key(s), speakers=speakers, top_k=1) for s in (0, 1)
        ]
        np.testing.assert_array_equal(*likeliest)
        for speaker, codes in enumerate(np.asarray(likeliest[0][:2])):
            cold = draw(KEY, speakers=np.full(50, speaker), temperature=1e-4)
            np.testing.assert_array_equal(cold, np.tile(codes, (50, 1)))

    def test_inside_other_transforms(self):
        speakers = jnp.array([[0, 1], [1, 0]])
        keys = jax.random.split(KEY, 2)
        draw = functools.partial(CONDITIONAL.sample, CONDITIONAL_PARAMS, num_samples=2)
        one_by_one = [draw(k, speakers=s) for k, s in zip(keys, speakers, strict=True)]
        mapped = jax.vmap(lambda key, speakers: draw(key, speakers=speakers))
        np.testing.assert_array_equal(jax.jit(mapped)(keys, speakers), one_by_one)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
            ({"top_k": 0}, "top_k must be at least 1, got 0"),
            ({"top_p": 1.5}, r"top_p must be in \(0, 1\], got 1.5"),
            ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
            ({"num_latents": 0}, "num_latents must be at least 1, got 0"),
            ({"speakers": np.zeros(2, int)}, "speakers were given to an unconditional"),
            ({"given": np.zeros((2, 3), int)}, r"given must have shape \[2, 4\], got"),
            ({"given": np.full((2, 4), K)}, r"given must be in -1 ... 2, got 3"),
            ({"given": np.full((2, 4), -2)}, r"given must be in -1 ... 2, got -2"),
        ],
        ids=lambda x: x if isinstance(x, str) else next(iter(x)),
    )
    def test_invalid_options_raise(self, options, message):
        with pytest.raises(UserError, match=f"^{message}"):
            PRIOR.sample(PARAMS, KEY, **{"num_samples": 2, **options})

    @pytest.mark.parametrize(
        "change",
        [
            {"num_codes": 4},
            {"network": PRIOR.network.clone(channels=5)},
            {"network": PRIOR.network.clone(skip_channels=9)},
            {"network": PRIOR.network.clone(layers=3)},
            {"conditional": True},
        ],
        ids=["num_codes", "channels", "skip_channels", "layers", "conditional"],
    )
    def test_parameters_of_other_sizes_raise(self, change):
        other = dataclasses.replace(PRIOR, **change)
        speakers = np.zeros(1, int) if other.conditional else None
        message = r"^params are .* \(3, 4, 8, 4, 0\), this"
        with pytest.raises(UserError, match=message):
            other.sample(PARAMS, KEY, num_samples=1, speakers=speakers)
        with pytest.raises(UserError, match=message):
            other.log_prob(PARAMS, np.zeros((1, 4), int), speakers=speakers)


class TestOptions:
    def test_number_of_speakers_is_0_without_conditioning(self):
        assert (PRIOR.num_speakers, CONDITIONAL.num_speakers) == (0, 2)
        assert hash(PRIOR) == hash(dataclasses.replace(CONDITIONAL, conditional=False))
        assert SequencePrior(num_codes=K).latents == 320

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("latents", 0),
            ("network.stacks", 0),
            ("network.layers", 0),
            ("network.channels", 0),
            ("network.skip_channels", 0),
            ("network.dropout", 1.0),
            ("network.dropout", -0.1),
            ("network.dtype", "float16"),
        ],
    )
    def test_invalid_sizes_raise(self, name, value):
        section, _, key = name.rpartition(".")
        values = {section: {key: value}} if section else {key: value}
        with pytest.raises(UserError, match=rf"^prior\.{name} must .*{value}"):
            build(SequencePrior, values, name="prior", num_codes=K)

    def test_a_codebook_without_codes_raises(self):
        with pytest.raises(UserError, match=r"^num_codes must be >= 1, got 0"):
            SequencePrior(num_codes=0)

    def test_a_conditional_prior_needs_speakers(self):
        with pytest.raises(UserError, match=r"^conditional must be False: .* no class"):
            SequencePrior(num_codes=K, conditional=True)


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
