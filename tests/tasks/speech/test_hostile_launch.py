"""launch.py as a process, given unusable recordings: one line names the file."""

import random
import shutil

import pytest
from launch_checks import assert_one_error, launch

RECORDINGS = {
    "empty": b"",
    "noise": random.Random(0).randbytes(300),
    "header": b"RIFF\xff\xff\xff\xffWAVEfmt ",
}


@pytest.mark.slow
@pytest.mark.parametrize("content", RECORDINGS.values(), ids=list(RECORDINGS))
def test_unusable_recordings_are_named(content, speech_dir, tmp_path):
    data = shutil.copytree(speech_dir, tmp_path / "data")
    (data / "train" / "bob" / "1.wav").write_bytes(content)
    config = "experiments/an4.py:small"
    changes = {"data.data_dir": data, "evaluation.batch_size": 8}
    assert_one_error(*launch(config, tmp_path / "run", **changes), named="1.wav")
