"""Run a tiny video model through all stages, on short episodes of a maze."""

import dataclasses
import json
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image
from run_comparison import assert_same_run, run_in_two_processes

import vqvae_jax
from vqvae_jax import pipeline
from vqvae_jax.data import maze
from vqvae_jax.data.codes import CodesSource, write_codes
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.images import coded_image_stages
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.video import stages as video_lib
from vqvae_jax.tasks.video.clips import ClipsSource
from vqvae_jax.tasks.video.model import Video
from vqvae_jax.workdir import Workdir

MODEL = Video(
    grid=(2, 2, 1),
    num_codes=4,
    action_names=maze.ACTIONS,
    given_frames=3,
    generated_frames=2,
)


def test_actions_are_held_from_the_last_given_frame_on():
    recorded = np.array([[0, 1, 2, 0], [2, 2, 1, 1]])
    rows = video_lib.held_actions(recorded, MODEL).reshape(2, 4, 4)
    for clip in range(2):
        np.testing.assert_array_equal(rows[clip, 3], recorded[clip])
        for action in range(3):
            expected = [*recorded[clip, :2], action, action]
            np.testing.assert_array_equal(rows[clip, action], expected)


def test_clips_of_samples_longer_than_an_episode_raise_before_training(tmp_path):
    """Not in stage `samples`, hours later."""
    columns = {
        "action": np.zeros(8, int),
        "episode": np.arange(8) // 4,
        "step": np.arange(8) % 4,
    }
    write_codes(
        tmp_path / "codes",
        batches=[(np.zeros((8, 2, 2, 1), int), columns)],
        num_codes=4,
        class_names=[],
        fingerprint="",
        action_names=maze.ACTIONS,
    )
    codes = CodesSource(tmp_path / "codes")
    model = dataclasses.replace(MODEL, clip_frames=4)
    for split in ("train", "validation"):
        assert len(video_lib.clips(codes, model, split=split)) == 2
    message = "episode 0 has 4 frames, fewer than the 5 of a clip"
    with pytest.raises(UserError, match=message):
        video_lib.clips(codes, model, split="test")
    shorter = dataclasses.replace(model, generated_frames=1)
    assert len(video_lib.clips(codes, shorter, split="test")) == 2


def test_order_of_stages(video_config):
    experiment = Experiment.from_config(video_config)
    assert list(coded_image_stages(experiment)) == [
        "vqvae",
        "codes",
        "video",
        "video_frames_alone",
        "samples",
        "evaluate",
        "report",
    ]


def test_training_without_codes_raises(video_config, tmp_path):
    pytest.importorskip("vizdoom", reason="vizdoom is not installed")
    with pytest.raises(UserError, match=r"no finished codes in .*run the stage"):
        pipeline.run(video_config, str(tmp_path / "run"), ["video"])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vizdoom") is None, reason="vizdoom is not installed")
class TestRun:
    @pytest.fixture
    def run(self, video_run):
        return video_run

    def test_results(self, run):
        results = json.loads((run / "results.json").read_text())
        for name in ("video", "frames_alone", "copying"):
            # 36 codes of 16.
            assert 0 < results[f"{name}_bits_per_frame"] < 300
        for name in ("generated", "last_given"):
            assert 0 <= results[f"{name}_equal_codes_step_1"] <= 1
            assert results[f"{name}_psnr_db_step_1"] > 0
        assert 0 <= results["opposite_moves_under_left_and_right"] <= 1
        assert {"test_psnr_db", "test_ssim", "video_best_step"} <= results.keys()

    def test_samples_start_with_the_given_frames(self, run):
        with np.load(run / "samples.npz") as samples:
            arrays = {name: samples[name] for name in samples.files}
        assert arrays["codes"].shape == (3, 4, 5, 6, 6, 1)
        assert arrays["images"].shape == (60, 24, 24, 3)
        assert [*arrays["class_names"]] == [*maze.ACTIONS, "recorded"]
        np.testing.assert_array_equal(arrays["labels"][:10], [0] * 5 + [1] * 5)
        for row in range(4):
            np.testing.assert_array_equal(
                arrays["codes"][:, row, :2], arrays["true_codes"][:, :2]
            )
        model, params = Workdir(run).restore()
        decoded = np.asarray(model.decode(params, arrays["codes"][1, 2]))
        images = arrays["images"].reshape(3, 4, 5, 24, 24, 3)
        np.testing.assert_array_equal(decoded, images[1, 2])
        codes = Workdir(run).codes("test")
        clip = codes[int(arrays["frame"][1])]["codes"]
        np.testing.assert_array_equal(clip, arrays["true_codes"][1, 0])

    def test_pictures_and_page(self, run):
        names = sorted(path.name for path in (run / "samples").iterdir())
        assert names == sorted(
            name for i in range(3) for name in (f"{i:04d}.gif", f"{i:04d}_strip.png")
        )
        with Image.open(run / "samples" / "0000.gif") as image:
            assert image.n_frames == 5
        page = (run / "report.html").read_text()
        assert page.count("data:image/gif") == 3
        for heading in ("Reconstructions", "Video", "Learning curves of the video"):
            assert heading in page

    def test_models_are_restored(self, run):
        video, params = vqvae_jax.restore(run, stage="video")
        assert video.action_names == maze.ACTIONS
        alone, _ = vqvae_jax.restore(run, stage="video_frames_alone")
        assert alone == video.frames_alone
        clips = ClipsSource(Workdir(run).codes("test"), length=4)
        assert vqvae_jax.Video is Video
        nats = video.log_prob(
            params, clips[0]["codes"][None], actions=clips[0]["action"][None, :-1]
        )
        assert nats.shape == (1, 4)

    def test_another_codebook_raises(self, run):
        workdir = Workdir(run)
        path = workdir.codes_metadata("video")
        metadata = workdir.read_json(path)
        workdir.write_json(path, metadata | {"fingerprint": "another"})
        try:
            with pytest.raises(UserError, match=r"the video in .* of another VQ-VAE"):
                workdir.require_same_codebook(*workdir.restore())
        finally:
            workdir.write_json(path, metadata)

    def test_frames_without_actions_raise(self, run, tmp_path):
        source = Workdir(run).codes("train")
        codes = np.stack([source[i]["codes"] for i in range(20)])
        write_codes(
            tmp_path / "codes",
            batches=[(codes, {"label": np.zeros(20, int)})],
            num_codes=16,
            class_names=[],
            fingerprint="",
        )
        with pytest.raises(UserError, match="no column action and no column episode"):
            ClipsSource(CodesSource(tmp_path / "codes"), length=4)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vizdoom") is None, reason="vizdoom is not installed")
def test_two_processes_equal_one(video_config, video_run, run_processes, tmp_path):
    run_in_two_processes(run_processes, video_config, tmp_path / "run")
    assert_same_run(tmp_path / "run", video_run)
