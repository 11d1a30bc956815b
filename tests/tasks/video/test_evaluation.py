"""The copying baseline and the measurements on generated clips."""

import numpy as np
import pytest

from vqvae_jax.tasks.video import evaluation as video_lib
from vqvae_jax.tasks.video.model import Video

K, GRID = 5, (3, 2, 2)
VIDEO = Video(
    grid=GRID,
    num_codes=K,
    action_names=("forward", "left", "right"),
    given_frames=2,
    generated_frames=5,
)


def draw(*shape):
    return np.random.default_rng(0).integers(K, size=shape)


class TestCopying:
    def test_fit_gives_frequencies(self):
        codes = draw(40, 2, *GRID)
        codes[..., 1] %= 2
        copying = video_lib.fit_copying([codes[:30], codes[30:]], num_codes=K)
        equal = codes[:, 0] == codes[:, 1]
        assert copying.same == pytest.approx((equal.sum() + 1) / (equal.size + 2))
        counts = [
            np.bincount(codes[:, 1, ..., g].ravel(), minlength=K) + 1 for g in range(2)
        ]
        expected = [row / row.sum() for row in counts]
        np.testing.assert_allclose(copying.marginal, expected)
        assert (copying.marginal > 0).all()

    def test_unseen_changes_have_positive_probability(self):
        still = np.zeros((3, 2, *GRID), int)
        copying = video_lib.fit_copying([still], num_codes=K)
        assert np.isfinite(video_lib.copying_bits(copying, draw(4, 3, *GRID))).all()

    def test_probabilities_of_the_next_code_sum_to_one(self):
        marginal = np.random.default_rng(1).dirichlet(np.ones(K), size=1)
        copying = video_lib.Copying(0.7, marginal)
        clips = np.zeros((K, 2, 1, 1, 1), int)
        clips[:, 0] = 3
        clips[:, 1, 0, 0, 0] = np.arange(K)
        p = 2 ** -video_lib.copying_bits(copying, clips)[:, 0]
        assert p.sum() == pytest.approx(1)
        assert p[3] == pytest.approx(0.7)
        others = np.delete(marginal[0], 3)
        np.testing.assert_allclose(np.delete(p, 3), 0.3 * others / others.sum())

    def test_bits_are_per_frame_after_the_first(self):
        copying = video_lib.Copying(0.5, np.full((2, K), 1 / K))
        codes = draw(4, 3, *GRID)
        bits = video_lib.copying_bits(copying, codes)
        # Probability 1/2 for the same code and 1/8 for each of the four others.
        equal = codes[:, 1:] == codes[:, :-1]
        expected = np.where(equal, 1, 3).sum(axis=(2, 3, 4))
        np.testing.assert_allclose(bits, expected)

    def test_fit_maximises_the_likelihood(self):
        codes = draw(50, 2, *GRID)
        best = video_lib.fit_copying([codes], num_codes=K)
        bits = [
            video_lib.copying_bits(best._replace(same=best.same + d), codes).sum()
            for d in (-0.02, 0, 0.02)
        ]
        assert bits[1] == min(bits)


def test_other_actions_are_those_of_the_next_clip():
    clips = [{"codes": np.array(i), "action": np.array([i, 10 * i])} for i in range(3)]
    other = video_lib.OtherActions(clips)
    found = [
        (int(clip["codes"]), clip["action"].tolist())
        for clip in map(other.__getitem__, range(len(other)))
    ]
    assert found == [(0, [1, 10]), (1, [2, 20]), (2, [0, 0])]


class TestMoves:
    @pytest.mark.parametrize("pixels", [-6, -1, 0, 3, 8])
    def test_shifts_of_a_window_over_a_wide_image(self, pixels):
        wide = np.random.default_rng(0).integers(
            256, size=(1, 48, 200, 3), dtype=np.uint8
        )
        starts = 80 - pixels * np.arange(4)
        clip = np.stack([wide[0, :, s : s + 48] for s in starts])
        assert video_lib.moves(clip[None]).tolist() == [pixels]


class TestClips:
    @pytest.fixture
    def arrays(self):
        """Two clips; under "right" the content moves left by two pixels per step."""
        rng = np.random.default_rng(0)
        rows, frames, side = len(VIDEO.rows), 7, 32
        codes = rng.integers(K, size=(2, rows, frames, *GRID))
        wide = rng.integers(256, size=(2, side, 100, 3), dtype=np.uint8)
        steps = {"forward": 0, "left": 2, "right": -2, "recorded": 0}
        images = np.stack(
            [
                [
                    [wide[i, :, 40 - steps[row] * t :][:, :side] for t in range(frames)]
                    for row in VIDEO.rows
                ]
                for i in range(2)
            ]
        )
        return {
            "codes": codes,
            "images": images.reshape(-1, side, side, 3),
            "true_codes": rng.integers(K, size=(2, frames, *GRID)),
            "given_frames": np.array(2),
        }

    def test_generated_and_recorded_frames_are_compared_by_step(self, arrays):
        rng = np.random.default_rng(1)
        true = rng.integers(256, size=(2, 7, 32, 32, 3), dtype=np.uint8)
        results = video_lib.clip_results(arrays, true, VIDEO)
        images = arrays["images"].reshape(2, 4, 7, 32, 32, 3).astype(float)
        for steps in (1, 5):
            t = 1 + steps
            for name, time in (("generated", t), ("last_given", 1)):
                equal = arrays["codes"][:, 3, time] == arrays["true_codes"][:, t]
                mse = np.square(images[:, 3, time] - true[:, t]).mean(axis=(1, 2, 3))
                psnr = 10 * np.log10(255**2 / mse)
                assert results[f"{name}_equal_codes_step_{steps}"] == equal.mean()
                assert results[f"{name}_psnr_db_step_{steps}"] == pytest.approx(
                    psnr.mean(), rel=1e-5
                )
        # Only five frames were generated.
        assert not [name for name in results if name.endswith("10")]

    def test_left_and_right_move_the_content_in_opposite_directions(self, arrays):
        true = np.zeros((2, 7, 32, 32, 3), np.uint8)
        results = video_lib.clip_results(arrays, true, VIDEO)
        assert results["opposite_moves_under_left_and_right"] == 1
        assert results["pixels_moved_per_step_under_left"] == 2
        assert results["pixels_moved_per_step_under_right"] == -2
        images = arrays["images"].reshape(2, 4, 7, 32, 32, 3)
        # In one of two clips, left and right have the same effect.
        images[0, 1] = images[0, 2]
        results = video_lib.clip_results(arrays, true, VIDEO)
        assert results["opposite_moves_under_left_and_right"] == 0.5
