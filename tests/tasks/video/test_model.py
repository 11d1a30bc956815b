"""The video model as a distribution: enumerated, sampled, causal in time and space."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vqvae_jax import metrics, sampling
from vqvae_jax.networks.pixelcnn import Condition
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.video.model import Video

K, GRID = 2, (1, 2, 1)
SIZES = {
    "layers": 1,
    "units": 6,
    "kernel_size": 3,
    "context_layers": 1,
    "context_units": 6,
    "generated_frames": 2,
}
NAMES = ("forward", "left", "right")
VIDEO = Video(grid=GRID, num_codes=K, action_names=NAMES, **SIZES)
WITHOUT = dataclasses.replace(VIDEO, actions=False)
# The four grids of a frame, and the 64 clips of three frames.
FRAMES = np.array(list(itertools.product(range(K), repeat=2)))
CLIPS = np.array(list(itertools.product(range(4), repeat=3)))


def clips_of(numbers):
    return jnp.asarray(FRAMES[numbers].reshape(*numbers.shape, *GRID), "int32")


def random_params(model, time=3):
    """Random arrays of the right shapes: `init` would take seconds to compile."""
    rng = np.random.default_rng(0)
    batch = {
        "codes": jnp.zeros((1, time, *model.grid), jnp.int32),
        "action": jnp.zeros((1, time), jnp.int32),
    }
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), "float32"), shapes
    )


PARAMS = random_params(VIDEO)


@pytest.fixture(scope="module")
def log_probs():
    """Ours of each frame of every clip, after each of two pairs of actions."""
    log_prob = jax.jit(VIDEO.log_prob)
    return {
        pair: np.float64(
            log_prob(
                PARAMS, clips_of(CLIPS), actions=jnp.tile(jnp.array(pair), (64, 1))
            )
        )
        for pair in ((0, 1), (2, 1))
    }


def test_embeddings_start_from_the_codebook_where_it_is_given():
    """In both networks; everything else as without it, and the model is the same."""
    vectors = np.random.default_rng(0).normal(size=(1, K, 3)).astype("float32")
    started = dataclasses.replace(VIDEO, code_vectors=vectors)
    assert started == VIDEO
    assert hash(started) == hash(VIDEO)
    batch = {
        "codes": jnp.zeros((1, 3, *GRID), jnp.int32),
        "action": jnp.zeros((1, 3), jnp.int32),
    }

    @jax.jit
    def both(key):
        return VIDEO.init(key, batch), started.init(key, batch)

    plain, ours = both(jax.random.key(0))
    changed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(plain),
            jax.tree.leaves(ours),
            strict=True,
        )
        if (a != b).any()
    }
    assert changed == {
        "context/params/CodeEmbedding_0/tables",
        "pixelcnn/params/embedding/tables",
    }
    # Of two codes, centred, one is the other's opposite.
    tables = ours["pixelcnn"]["params"]["embedding"]["tables"][0]
    np.testing.assert_allclose(tables[0], -tables[1], atol=1e-5)


class TestLogProb:
    def test_sums_to_one_over_the_frames_that_may_follow(self, log_probs):
        for found in log_probs.values():
            p = np.exp(found).reshape(4, 4, 4, 3)
            np.testing.assert_allclose(p[..., 2].sum(axis=2), 1, rtol=1e-5)
            np.testing.assert_allclose(p[:, :, 0, 1].sum(axis=1), 1, rtol=1e-5)
            np.testing.assert_allclose(p[:, 0, 0, 0].sum(), 1, rtol=1e-5)

    def test_depends_on_earlier_frames_and_on_the_actions_that_led_here(
        self, log_probs
    ):
        one, other = (p.reshape(4, 4, 4, 3) for p in log_probs.values())
        np.testing.assert_array_equal(np.ptp(one[..., 0], axis=(1, 2)), 0)
        np.testing.assert_array_equal(np.ptp(one[..., 1], axis=2), 0)
        assert np.ptp(one[..., 1], axis=0).max() > 1e-3
        assert np.ptp(one[..., 2], axis=0).max() > 1e-3
        np.testing.assert_array_equal(one[..., 0], other[..., 0])
        assert np.abs(one[..., 1] - other[..., 1]).max() > 1e-3

    def test_gradients_come_from_all_that_is_earlier_and_nothing_else(self):
        """In time and in raster order, for each of 18 places with a code of its own."""
        grid, time = (2, 3, 1), 3
        model = Video(
            grid=grid,
            num_codes=18,
            action_names=NAMES,
            **SIZES | {"layers": 3, "context_layers": 2},
        )
        params = random_params(model)
        codes = np.random.default_rng(1).permutation(18).reshape(1, time, *grid)
        actions = jnp.array([[0, 2]])

        def by_place(params):
            return model._log_p(params, jnp.asarray(codes, "int32"), actions).ravel()

        gradient = jax.jit(jax.jacrev(by_place))(params)
        reached = np.zeros((18, 18), bool)
        for network, table in (
            ("context", "CodeEmbedding_0"),
            ("pixelcnn", "embedding"),
        ):
            tables = gradient[network]["params"][table]["tables"][:, 0]
            reached |= np.any(tables[:, codes.ravel()] != 0, axis=-1)
        np.testing.assert_array_equal(reached, np.tri(18, k=-1, dtype=bool))
        of_actions = gradient["context"]["params"]["Embed_0"]["embedding"]
        seen = np.any(of_actions != 0, axis=2).reshape(time, 6, 3)[:, 0]
        # Nothing led to the first frame, and action 1 was never taken.
        np.testing.assert_array_equal(seen, [[0, 0, 0], [1, 0, 0], [1, 0, 1]])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"codes": np.zeros((2, 3, 2, 1, 1), int)},
                r"codes must have .* T, 1, 2, 1",
            ),
            ({"codes": np.full((2, 3, *GRID), 2)}, r"codes must be in 0 ... 1, got 2"),
            ({"actions": None}, "actions are needed, one of forward, left, right"),
            ({"actions": np.zeros((2, 3), int)}, r"actions must have shape \[2, 2\]"),
            ({"actions": np.full((2, 2), 3)}, r"actions must be in 0 ... 2, got 3"),
        ],
    )
    def test_impossible_requests_are_told(self, changes, message):
        arrays = {
            "codes": np.zeros((2, 3, *GRID), int),
            "actions": np.zeros((2, 2), int),
        } | changes
        with pytest.raises(UserError, match=f"^{message}"):
            VIDEO.log_prob(PARAMS, arrays["codes"], actions=arrays["actions"])
        given = {"codes": arrays["codes"][:, :1]}
        if "codes" in changes:
            with pytest.raises(
                UserError, match=f"^{message}".replace("codes", "given")
            ):
                VIDEO.sample(PARAMS, jax.random.key(0), given["codes"], actions=None)

    def test_a_model_without_actions_wants_none(self):
        codes = np.zeros((1, 3, *GRID), int)
        for model in (WITHOUT, VIDEO.frames_alone):
            with pytest.raises(UserError, match="actions were given to a model that"):
                model.log_prob(PARAMS, codes, actions=np.zeros((1, 2), int))


class TestTraining:
    def test_loss_is_minus_log_prob_of_valid_clips(self, log_probs):
        numbers = np.array([5, 60, 17, 33])
        mask = np.array([True, True, False, True])
        batch = {
            "codes": clips_of(CLIPS[numbers]),
            # The last one led out of the clip: nothing may depend on it.
            "action": jnp.array([[0, 1, 9]] * 4),
            "mask": jnp.asarray(mask),
        }
        nats = -log_probs[0, 1][numbers[mask]]
        loss, (means, carry) = jax.jit(VIDEO.loss)(PARAMS, jax.random.key(0), batch)
        np.testing.assert_allclose(loss, nats.mean() / 2, rtol=1e-5)
        expected = {
            "bits_per_code": nats.mean() / 2 / math.log(2),
            "bits_per_later_frame": nats[:, 1:].mean() / math.log(2),
        }
        assert metrics.compute(means) == pytest.approx(expected, rel=1e-5)
        values = metrics.compute(jax.jit(VIDEO.evaluate)(PARAMS, batch))
        expected["loss"] = nats.mean() / 2
        assert values == pytest.approx(expected, rel=1e-5)
        assert VIDEO.update(PARAMS, jax.random.key(0), carry) is PARAMS
        assert all(jax.tree.leaves(VIDEO.trainable(PARAMS)))

    def test_dropout_is_for_training_alone(self, log_probs):
        noisy = dataclasses.replace(VIDEO, dropout=0.5)
        batch = {
            "codes": clips_of(CLIPS[:4]),
            "action": jnp.tile(jnp.array([0, 1, 0]), (4, 1)),
            "mask": jnp.ones(4, bool),
        }
        loss = jax.jit(lambda key: noisy.loss(PARAMS, key, batch)[0])
        first, again, other = (float(loss(jax.random.key(n))) for n in (0, 0, 1))
        assert first == again != other
        quiet = metrics.compute(jax.jit(noisy.evaluate)(PARAMS, batch))
        assert quiet["loss"] == pytest.approx(-log_probs[0, 1][:4].mean() / 2)

    def test_frames_alone_know_nothing_of_each_other(self):
        alone = VIDEO.frames_alone
        params = random_params(alone)
        assert "context" not in params
        found = jax.jit(alone.log_prob)(params, clips_of(CLIPS))
        table = np.asarray(found[::16, 0])
        np.testing.assert_allclose(found, table[CLIPS], rtol=1e-5)


class TestSample:
    def test_frequencies_are_the_probabilities_of_two_frames_in_a_row(self, log_probs):
        """Of the 16 pairs that may follow a given frame, under given actions."""
        pair, start, draws = (2, 1), 1, 8000
        given = clips_of(np.full((draws, 1), start))
        actions = np.tile(pair, (draws, 1))
        drawn = VIDEO.sample(PARAMS, jax.random.key(0), given, actions=actions)
        assert (drawn.shape, drawn.dtype) == ((draws, 2, *GRID), jnp.int32)
        numbers = np.asarray(drawn).reshape(draws, 4) @ [8, 4, 2, 1]
        p = np.exp(log_probs[pair].reshape(4, 16, 3)[start, :, 1:].sum(axis=-1))
        expected = draws * p / p.sum()
        assert expected.min() > 5
        seen = np.bincount(numbers, minlength=16)
        assert stats.chisquare(seen, expected).pvalue > 1e-3

    def test_the_likeliest_code_and_another_number_of_frames(self):
        """top_k of 1 leaves no choice: each frame is the argmax, code by code."""
        given = clips_of(np.arange(4)[:, None])
        params = random_params(WITHOUT)
        first, again = (
            np.asarray(
                WITHOUT.sample(params, jax.random.key(n), given, top_k=1, num_frames=3)
            )
            for n in range(2)
        )
        assert first.shape == (4, 3, *GRID)
        np.testing.assert_array_equal(first, again)
        score = jax.jit(WITHOUT.log_prob)
        for clip, start in zip(first, np.asarray(given), strict=True):
            follow = np.stack(
                [np.concatenate([start, f[None]]) for f in FRAMES.reshape(4, *GRID)]
            )
            p = np.exp(np.asarray(score(params, follow))[:, 1]).reshape(2, 2)
            code = p.sum(axis=1).argmax()
            assert clip[0].ravel().tolist() == [code, p[code].argmax()]

    @pytest.mark.parametrize(
        ("changes", "first"), [({"context_layers": 2}, 3), ({"actions": False}, 2)]
    )
    def test_clips_are_those_of_a_context_computed_anew_for_each_frame(
        self, changes, first
    ):
        model = dataclasses.replace(VIDEO, generated_frames=4, **changes)
        params = random_params(model)
        rng = np.random.default_rng(3)
        given = jnp.asarray(rng.integers(K, size=(99, first, *GRID)), "int32")
        actions = None
        if model.num_actions:
            actions = jnp.asarray(rng.integers(3, size=(99, first + 3)), "int32")

        @jax.jit
        def naive(key):
            clip = jnp.pad(given, [(0, 0), (0, 4)] + [(0, 0)] * 3)
            for time, key_here in enumerate(jax.random.split(key, 4), first):
                maps = model._context.apply(params["context"], clip, actions)
                drawn = sampling.cached(
                    model._network,
                    params["pixelcnn"],
                    key_here,
                    shape=(99, *GRID),
                    condition=Condition(features=maps[:, time]),
                )
                clip = clip.at[:, time].set(drawn)
            return clip[:, first:]

        ours = model.sample(params, jax.random.key(2), given, actions=actions)
        np.testing.assert_array_equal(ours, naive(jax.random.key(2)))

    def test_one_compilation_whatever_the_actions_and_the_temperature(self):
        before = Video._draw._cache_size()
        given = clips_of(np.zeros((3, 1), int))
        for action in range(3):
            VIDEO.sample(
                PARAMS,
                jax.random.key(action),
                given,
                actions=np.full((3, 2), action),
                temperature=1.0 + action,
            )
        assert Video._draw._cache_size() == before + 1

    def test_parameters_of_another_codebook(self):
        other = dataclasses.replace(VIDEO, num_codes=K + 1)
        codes = np.zeros((1, 1, *GRID), int)
        with pytest.raises(UserError, match=r"params are .* \(1, 2, 6\), this model"):
            other.sample(
                PARAMS, jax.random.key(0), codes, actions=np.zeros((1, 2), int)
            )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_codes", 0),
        ("layers", 0),
        ("units", 0),
        ("context_units", 0),
        ("context_layers", -1),
        ("context_kernel_size", 2),
        ("kernel_size", 1),
        ("cell_layers", -1),
        ("clip_frames", 1),
        ("given_frames", 0),
        ("generated_frames", 0),
        ("dropout", 1.0),
        ("dtype", "float16"),
    ],
)
def test_impossible_options_are_told(name, value):
    with pytest.raises(UserError, match=rf"^{name} must .*{value}"):
        Video(**{"grid": GRID, "num_codes": K, **SIZES, name: value})
