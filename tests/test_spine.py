"""The path from launch.py to a model's loss is short enough to read in one go."""

import json
import os

from launch_checks import overrides, python

MOST_FRAMES, MOST_FILES = 9, 6


def test_few_frames_lie_between_launch_and_the_loss(tiny_changes, digits_dir, tmp_path):
    changes = tiny_changes | {"data.data_dir": digits_dir}
    program = "tests/programs/launch_with_error.py"
    flags = ["--config=digits", f"--workdir={tmp_path / 'run'}", *overrides(changes)]
    # Otherwise JAX removes frames from the traceback.
    env = os.environ | {"JAX_TRACEBACK_FILTERING": "off"}
    found = python(program, *flags, env=env)
    assert found.returncode == 0, found.stderr
    frames = json.loads(found.stdout.splitlines()[-1])
    listed = "\n".join(f"{file}: {function}" for file, function in frames)
    assert frames[0] == ["launch.py", "<module>"]
    # The patched loss, in place of the one in vqvae_jax/models/vqvae.py.
    assert frames[-1] == [program, "loss"]
    assert len(frames) <= MOST_FRAMES, listed
    assert len({file for file, _ in frames}) <= MOST_FILES, listed
