"""The experiments on first-person frames: the sizes of sections 4.2 and 4.4."""

import math

import pytest

from vqvae_jax.experiment import Experiment
from vqvae_jax.runtime.errors import UserError

pytest.importorskip("vqvae_jax.tasks.hierarchy")
pytest.importorskip("vqvae_jax.tasks.video")

METADATA = {
    "grid": (21, 21, 1),
    "num_codes": 512,
    "class_names": (),
    "action_names": ("forward", "left", "right"),
}


@pytest.mark.parametrize(
    "name", ["maze", "maze:small", "maze_video", "maze_video:small"]
)
def test_frames_are_21x21_codes_of_512(make_config, name):
    model = Experiment.from_config(make_config(name, {})).model
    assert (model.image_shape, model.grid) == ((84, 84, 3), (21, 21, 1))
    assert (model.num_codes, model.likelihood) == (512, "mse")
    # 169 344 bits become 3 969 bits.
    assert 8 * model.num_dims / (model.num_latents * math.log2(512)) == pytest.approx(
        42.67, abs=0.01
    )


def test_both_experiments_have_the_same_vqvae(make_config):
    for variant in ("", ":small"):
        frames, video = (
            make_config(name + variant, {}) for name in ("maze", "maze_video")
        )
        for section in ("data", "model", "training"):
            assert frames[section] == video[section]


@pytest.mark.parametrize(
    "variant", ["", "without_actions", "small", "small_without_actions"]
)
def test_video_models_clips_of_16_frames(make_config, variant):
    experiment = Experiment.from_config(make_config(f"maze_video:{variant}", {}))
    models = experiment.second_models(METADATA)
    video, alone = models["video"], models["video_frames_alone"]
    assert (video.clip_frames, video.given_frames, video.generated_frames) == (
        16,
        6,
        10,
    )
    assert video.num_actions == (0 if "without" in variant else 3)
    assert (alone.context.layers, alone.num_actions) == (0, 0)
    assert alone.pixelcnn == video.pixelcnn


@pytest.mark.parametrize("name", ["maze:small", "maze_video:small"])
def test_a_frame_that_does_not_halve_twice_raises(make_config, name):
    message = r"^model\.encoder\.num_downsamples=2 .*multiples of 4.* 85x85"
    with pytest.raises(UserError, match=message):
        Experiment.from_config(make_config(name, {"data.image_size": 85}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"video.pixelcnn.layers": 0},
            r"^video\.pixelcnn\.layers must be >= 1 and <= 1000, got 0",
        ),
        ({"video.clip_frames": 1}, r"^video\.clip_frames must be >= 2, got 1"),
        ({"samples.guidance": 2.0}, r"^samples\.guidance=2\.0 needs prior\.label_drop"),
    ],
)
def test_invalid_options_raise_with_their_key(make_config, changes, message):
    with pytest.raises(UserError, match=message):
        Experiment.from_config(make_config("maze_video:small", changes))
