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
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.networks.pixelcnn import Condition, PixelCNN
from vqvae_jax.options import build
from vqvae_jax.pretrained.metadata import Metadata, from_json, to_json
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.video.frame_context import FrameContext
from vqvae_jax.tasks.video.model import Video

K, GRID = 2, (1, 2, 1)
CONTEXT = FrameContext(layers=1, channels=6)
PIXELCNN = PixelCNN(layers=1, channels=6, kernel_size=3)
NAMES = ("forward", "left", "right")
VIDEO = Video(
    grid=GRID,
    num_codes=K,
    action_names=NAMES,
    generated_frames=2,
    context=CONTEXT,
    pixelcnn=PIXELCNN,
)
WITHOUT_ACTIONS = dataclasses.replace(VIDEO, actions=False)
# All four frames, and all 64 clips of three frames.
FRAMES = np.array(list(itertools.product(range(K), repeat=2)))
CLIPS = np.array(list(itertools.product(range(4), repeat=3)))


def clips_of(numbers):
    return jnp.asarray(FRAMES[numbers].reshape(*numbers.shape, *GRID), "int32")


def random_params(model, time=3):
    """Random arrays of the right shapes; compiling `init` would take seconds."""
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
    """log p of each frame of all clips, for each of two pairs of actions."""
    log_prob = jax.jit(VIDEO.log_prob)
    return {
        pair: np.float64(
            log_prob(
                PARAMS, clips_of(CLIPS), actions=jnp.tile(jnp.array(pair), (64, 1))
            )
        )
        for pair in ((0, 1), (2, 1))
    }


def test_embeddings_of_both_networks_start_from_given_codebooks():
    """All other parameters, and the model's hash, do not depend on them."""
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

    without, with_vectors = both(jax.random.key(0))
    changed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(without),
            jax.tree.leaves(with_vectors),
            strict=True,
        )
        if (a != b).any()
    }
    assert changed == {
        "context/params/CodeEmbedding_0/tables",
        "pixelcnn/params/embedding/tables",
    }
    # Two centred vectors are opposite.
    tables = with_vectors["pixelcnn"]["params"]["embedding"]["tables"][0]
    np.testing.assert_allclose(tables[0], -tables[1], atol=1e-5)


class TestLogProb:
    def test_sums_to_one_over_the_next_frame(self, log_probs):
        for found in log_probs.values():
            p = np.exp(found).reshape(4, 4, 4, 3)
            np.testing.assert_allclose(p[..., 2].sum(axis=2), 1, rtol=1e-5)
            np.testing.assert_allclose(p[:, :, 0, 1].sum(axis=1), 1, rtol=1e-5)
            np.testing.assert_allclose(p[:, 0, 0, 0].sum(), 1, rtol=1e-5)

    def test_depends_on_earlier_frames_and_actions(self, log_probs):
        one, other = (p.reshape(4, 4, 4, 3) for p in log_probs.values())
        np.testing.assert_array_equal(np.ptp(one[..., 0], axis=(1, 2)), 0)
        np.testing.assert_array_equal(np.ptp(one[..., 1], axis=2), 0)
        assert np.ptp(one[..., 1], axis=0).max() > 1e-3
        assert np.ptp(one[..., 2], axis=0).max() > 1e-3
        np.testing.assert_array_equal(one[..., 0], other[..., 0])
        assert np.abs(one[..., 1] - other[..., 1]).max() > 1e-3

    def test_gradients_come_from_exactly_the_earlier_codes_and_actions(self):
        """In time and in raster order, for 18 positions with different codes."""
        grid, time = (2, 3, 1), 3
        model = dataclasses.replace(
            VIDEO,
            grid=grid,
            num_codes=18,
            context=CONTEXT.clone(layers=2),
            pixelcnn=PIXELCNN.clone(layers=3),
        )
        params = random_params(model)
        codes = np.random.default_rng(1).permutation(18).reshape(1, time, *grid)
        actions = jnp.array([[0, 2]])

        def log_p(params):
            return model._log_p(params, jnp.asarray(codes, "int32"), actions).ravel()

        gradient = jax.jit(jax.jacrev(log_p))(params)
        reached = np.zeros((18, 18), bool)
        for network, table in (
            ("context", "CodeEmbedding_0"),
            ("pixelcnn", "embedding"),
        ):
            tables = gradient[network]["params"][table]["tables"][:, 0]
            reached |= np.any(tables[:, codes.ravel()] != 0, axis=-1)
        np.testing.assert_array_equal(reached, np.tri(18, k=-1, dtype=bool))
        by_action = gradient["context"]["params"]["Embed_0"]["embedding"]
        seen = np.any(by_action != 0, axis=2).reshape(time, 6, 3)[:, 0]
        # No action precedes the first frame, and action 1 does not occur.
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
    def test_invalid_arrays_raise(self, changes, message):
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

    def test_actions_for_a_model_without_actions_raise(self):
        codes = np.zeros((1, 3, *GRID), int)
        for model in (WITHOUT_ACTIONS, VIDEO.frames_alone):
            with pytest.raises(
                UserError, match="actions were given to a model without"
            ):
                model.log_prob(PARAMS, codes, actions=np.zeros((1, 2), int))


class TestTraining:
    def test_loss_is_minus_log_prob_of_valid_clips(self, log_probs):
        numbers = np.array([5, 60, 17, 33])
        mask = np.array([True, True, False, True])
        batch = {
            "codes": clips_of(CLIPS[numbers]),
            # The last action leads out of the clip and is not read.
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

    def test_dropout_is_active_in_training_only(self, log_probs):
        noisy = dataclasses.replace(
            VIDEO,
            context=CONTEXT.clone(dropout=0.5),
            pixelcnn=PIXELCNN.clone(dropout=0.5),
        )
        batch = {
            "codes": clips_of(CLIPS[:4]),
            "action": jnp.tile(jnp.array([0, 1, 0]), (4, 1)),
            "mask": jnp.ones(4, bool),
        }
        loss = jax.jit(lambda key: noisy.loss(PARAMS, key, batch)[0])
        first, again, other = (float(loss(jax.random.key(n))) for n in (0, 0, 1))
        assert first == again != other
        evaluated = metrics.compute(jax.jit(noisy.evaluate)(PARAMS, batch))
        assert evaluated["loss"] == pytest.approx(-log_probs[0, 1][:4].mean() / 2)

    def test_frames_alone_are_independent(self):
        alone = VIDEO.frames_alone
        params = random_params(alone)
        assert "context" not in params
        found = jax.jit(alone.log_prob)(params, clips_of(CLIPS))
        table = np.asarray(found[::16, 0])
        np.testing.assert_allclose(found, table[CLIPS], rtol=1e-5)


class TestSample:
    def test_frequencies_match_the_probabilities_of_two_frames(self, log_probs):
        """Of all 16 pairs of frames after a given frame, for given actions."""
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

    def test_top_k_1_draws_the_likeliest_code_each_time(self):
        """For another number of frames than `generated_frames`."""
        given = clips_of(np.arange(4)[:, None])
        params = random_params(WITHOUT_ACTIONS)
        first, again = (
            np.asarray(
                WITHOUT_ACTIONS.sample(
                    params, jax.random.key(n), given, top_k=1, num_frames=3
                )
            )
            for n in range(2)
        )
        assert first.shape == (4, 3, *GRID)
        np.testing.assert_array_equal(first, again)
        score = jax.jit(WITHOUT_ACTIONS.log_prob)
        for clip, start in zip(first, np.asarray(given), strict=True):
            follow = np.stack(
                [np.concatenate([start, f[None]]) for f in FRAMES.reshape(4, *GRID)]
            )
            p = np.exp(np.asarray(score(params, follow))[:, 1]).reshape(2, 2)
            code = p.sum(axis=1).argmax()
            assert clip[0].ravel().tolist() == [code, p[code].argmax()]

    @pytest.mark.parametrize(
        ("changes", "first"),
        [({"context": CONTEXT.clone(layers=2)}, 3), ({"actions": False}, 2)],
        ids=["2 layers", "without actions"],
    )
    def test_equals_computing_the_context_of_the_whole_clip_for_each_frame(
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
            for time, frame_key in enumerate(jax.random.split(key, 4), first):
                maps = model._context.apply(params["context"], clip, actions)
                drawn = sampling.cached(
                    model._network,
                    params["pixelcnn"],
                    frame_key,
                    shape=(99, *GRID),
                    condition=Condition(features=maps[:, time]),
                )
                clip = clip.at[:, time].set(drawn)
            return clip[:, first:]

        found = model.sample(params, jax.random.key(2), given, actions=actions)
        np.testing.assert_array_equal(found, naive(jax.random.key(2)))

    def test_compiled_once_for_all_actions_and_temperatures(self):
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

    def test_parameters_of_another_codebook_raise(self):
        other = dataclasses.replace(VIDEO, num_codes=K + 1)
        codes = np.zeros((1, 1, *GRID), int)
        with pytest.raises(UserError, match=r"params are .* \(1, 2, 6\), this model"):
            other.sample(
                PARAMS, jax.random.key(0), codes, actions=np.zeros((1, 2), int)
            )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pixelcnn.layers", 0),
        ("pixelcnn.channels", 0),
        ("pixelcnn.kernel_size", 1),
        ("pixelcnn.cell_layers", -1),
        ("pixelcnn.dropout", 1.0),
        ("pixelcnn.dtype", "float16"),
        ("context.channels", 0),
        ("context.layers", -1),
        ("context.kernel_size", 2),
        ("context.dropout", 1.0),
        ("context.dtype", "float16"),
        ("clip_frames", 1),
        ("given_frames", 0),
        ("generated_frames", 0),
    ],
)
def test_invalid_options_raise(name, value):
    section, _, key = name.rpartition(".")
    values = {section: {key: value}} if section else {key: value}
    with pytest.raises(UserError, match=rf"^video\.{name} must .*{value}"):
        build(Video, values, name="video", grid=GRID, num_codes=K)


def test_a_codebook_without_codes_raises():
    with pytest.raises(UserError, match=r"^num_codes must be >= 1, got 0"):
        Video(grid=GRID, num_codes=0)


def test_vectors_that_training_starts_from_are_left_out():
    video = Video(
        grid=(4, 4, 1),
        num_codes=8,
        action_names=("left", "right"),
        code_vectors=np.zeros((1, 8, 3), np.float32),
    )
    model = VQVAE(image_shape=(8, 8, 1))
    metadata = Metadata("vqvae", model, "video", {"video": video}, codes_of="ab")
    found = from_json(to_json(metadata))
    assert found.models["video"].code_vectors is None
    assert found.models["video"] == dataclasses.replace(video, code_vectors=None)
    assert found.codes_of == "ab"
