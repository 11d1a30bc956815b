"""The prior over sequences as a distribution: enumerated, masked, sampled."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from scipy import stats

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.prior import SequencePrior

KEY = jax.random.key(0)
K, N = 3, 4
SIZES = {"latents": N, "stacks": 2, "layers": 2, "units": 4, "skip_units": 8}
PRIOR = SequencePrior(num_codes=K, class_names=("anna", "ben"), **SIZES)
TOLD = dataclasses.replace(PRIOR, conditional=True)
EVERY = np.array(list(itertools.product(range(K), repeat=N)), np.int32)
# Without padding, with some, and nothing but padding.
LENGTHS = np.array([4, 1, 3, 0, 2])


def random_params(model):
    """Random arrays of the right shapes: an untrained one is nearly even."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, KEY, {})
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), "float32"), shapes
    )


PARAMS, TOLD_PARAMS = random_params(PRIOR), random_params(TOLD)


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
    """Ours of each of the 81 sequences; of an unconditional prior without speaker."""
    model, params, speakers = PRIOR, PARAMS, None
    if speaker is not None:
        model, params = TOLD, TOLD_PARAMS
        speakers = jnp.full(len(EVERY), speaker)
    log_prob = jax.jit(model.log_prob)
    return np.float64(log_prob(params, jnp.asarray(EVERY), speakers=speakers))


def assert_drawn_from(codes, log_p):
    """Chi square; sequences with fewer than 5 expected draws are tested as one."""
    counts = np.bincount(codes @ K ** np.arange(N)[::-1], minlength=len(EVERY))
    expected = len(codes) * np.exp(log_p) / np.exp(log_p).sum()
    group = np.where(expected < 5, 0, 1 + np.arange(len(EVERY)))
    of_groups = [
        [x[group == g].sum() for g in np.unique(group)] for x in (counts, expected)
    ]
    assert stats.chisquare(*of_groups).pvalue > 1e-3


@pytest.fixture
def unchecked():
    """As users have it: without the checks that tests run under."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class TestLogProb:
    @pytest.mark.parametrize("speaker", [None, 0, 1])
    def test_sums_to_one(self, speaker):
        log_p = log_probs_of_all(speaker)
        assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-5)
        # Neither even nor certain: most sequences are drawn now and then.
        assert np.ptp(log_p) > 1
        assert (np.exp(log_p) > 1e-3).sum() > 50

    def test_is_that_of_what_is_not_padding(self):
        """Of a prefix: all that may follow it, together."""
        batch = make_batch(fill=99)
        found = PRIOR.log_prob(PARAMS, batch["codes"], mask=batch["mask"])
        joint = np.exp(log_probs_of_all(None)).reshape([K] * N)
        for codes, length, log_p in zip(batch["codes"], LENGTHS, found, strict=True):
            expected = joint[tuple(np.asarray(codes[:length]))].sum()
            assert np.exp(log_p) == pytest.approx(expected, rel=1e-4)

    def test_a_code_does_not_depend_on_later_ones(self):
        """Exactly: by what masks leave of two sequences that only begin alike."""
        sequences = jnp.array([[0, 1, 2, 0, 1, 2, 2], [0, 1, 2, 2, 0, 1, 0]])
        prefixes = np.tril(np.ones((7, 7), bool))

        @jax.jit
        def of_prefixes(codes):
            return PRIOR.log_prob(PARAMS, jnp.tile(codes, (7, 1)), mask=prefixes)

        one, other = (np.diff(of_prefixes(codes), prepend=0) for codes in sequences)
        np.testing.assert_array_equal(one[:3], other[:3])
        assert (one[4:] != other[4:]).all()

    def test_speakers_matter_to_a_prior_that_is_told_of_them(self):
        assert np.abs(log_probs_of_all(0) - log_probs_of_all(1)).max() > 0.1
        batch = make_batch()
        turned = {**batch, "speaker": 1 - batch["speaker"]}
        losses = [
            [float(m.evaluate(p, b)["loss"].total) for b in (batch, turned)]
            for m, p in ((PRIOR, PARAMS), (TOLD, TOLD_PARAMS))
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
            ({"mask": np.arange(8).reshape(2, 4) > 0}, "mask must be False from each"),
            ({"speakers": None}, "speakers are needed, one of 2 for each sequence"),
            ({"speakers": np.zeros(3, int)}, r"speakers must have shape \[2\], got"),
            ({"speakers": np.array([0, 2])}, "speakers must be in 0 ... 1, got 0 ... "),
        ],
    )
    def test_what_does_not_fit_is_told(self, changes, message, unchecked):
        arrays = {"codes": np.zeros((2, 4), int), "speakers": np.zeros(2, int)}
        arrays |= changes
        with pytest.raises(UserError, match=f"^{message}"):
            TOLD.log_prob(TOLD_PARAMS, arrays.pop("codes"), **arrays)


class TestSample:
    def test_frequencies_are_the_probabilities(self):
        codes = PRIOR.sample(PARAMS, KEY, num_samples=10_000)
        assert (codes.shape, codes.dtype) == ((10_000, N), np.int32)
        assert_drawn_from(np.asarray(codes), log_probs_of_all(None))

    def test_each_speaker_has_a_distribution_of_its_own(self):
        """Half of the draws for each, whose codes are not the other's."""
        speakers = np.arange(20_000) % 2
        codes = TOLD.sample(TOLD_PARAMS, KEY, num_samples=20_000, speakers=speakers)
        for speaker in range(2):
            assert_drawn_from(
                np.asarray(codes)[speakers == speaker], log_probs_of_all(speaker)
            )

    def test_given_codes_are_kept_and_lead_what_comes_after(self):
        rng = np.random.default_rng(0)
        given = np.where(rng.random((300, 9)) < 0.4, rng.integers(K, size=(300, 9)), -1)
        draw = functools.partial(
            PRIOR.sample, PARAMS, KEY, num_samples=300, num_latents=9
        )
        drawn, kept = np.asarray(draw(given=given)), given >= 0
        np.testing.assert_array_equal(drawn[kept], given[kept])
        assert set(drawn[~kept]) == set(range(K))
        led = given[:, 0] == -1
        other = np.where(kept, (given + 1) % K, -1)
        assert (np.asarray(draw(given=other))[~kept] != drawn[~kept]).any()
        np.testing.assert_array_equal(
            np.asarray(draw(given=other))[led, 0], drawn[led, 0]
        )

    def test_options_narrow_the_draw_without_compiling_again(self):
        draw = functools.partial(TOLD.sample, TOLD_PARAMS, num_samples=50)
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
        draw = functools.partial(TOLD.sample, TOLD_PARAMS, num_samples=2)
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
            ({"speakers": np.zeros(2, int)}, "speakers were given to a prior that is"),
            ({"given": np.zeros((2, 3), int)}, r"given must have shape \[2, 4\], got"),
            ({"given": np.full((2, 4), K)}, r"given must be in -1 ... 2, got 3"),
            ({"given": np.full((2, 4), -2)}, r"given must be in -1 ... 2, got -2"),
        ],
        ids=lambda x: x if isinstance(x, str) else next(iter(x)),
    )
    def test_impossible_requests_are_told(self, options, message):
        with pytest.raises(UserError, match=f"^{message}"):
            PRIOR.sample(PARAMS, KEY, **{"num_samples": 2, **options})

    @pytest.mark.parametrize(
        "change",
        [
            {"num_codes": 4},
            {"units": 5},
            {"skip_units": 9},
            {"layers": 3},
            {"conditional": True},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_parameters_of_other_sizes(self, change):
        other = dataclasses.replace(PRIOR, **change)
        speakers = np.zeros(1, int) if other.conditional else None
        message = r"^params are .* \(3, 4, 8, 4, 0\), this"
        with pytest.raises(UserError, match=message):
            other.sample(PARAMS, KEY, num_samples=1, speakers=speakers)
        with pytest.raises(UserError, match=message):
            other.log_prob(PARAMS, np.zeros((1, 4), int), speakers=speakers)


class TestOptions:
    def test_speakers_are_counted_where_the_prior_is_told_of_them(self):
        assert (PRIOR.num_speakers, TOLD.num_speakers) == (0, 2)
        assert hash(PRIOR) == hash(dataclasses.replace(TOLD, conditional=False))
        assert SequencePrior(num_codes=K).latents == 320

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("num_codes", 0),
            ("latents", 0),
            ("stacks", 0),
            ("layers", 0),
            ("units", 0),
            ("skip_units", 0),
            ("dropout", 1.0),
            ("dropout", -0.1),
            ("dtype", "float16"),
        ],
    )
    def test_impossible_values_are_told(self, name, value):
        with pytest.raises(UserError, match=rf"^{name} must .*{value}"):
            SequencePrior(**{"num_codes": K, **SIZES, name: value})

    def test_speakers_to_be_told_of_must_be_known(self):
        with pytest.raises(UserError, match=r"^conditional must be False: .* no class"):
            SequencePrior(num_codes=K, conditional=True)
