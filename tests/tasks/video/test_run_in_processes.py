"""All stages on clips in two processes, compared with one process of eight devices."""

from importlib.util import find_spec

import pytest
from run_comparison import assert_same_run, run_in_two_processes


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vizdoom") is None, reason="vizdoom is not installed")
def test_two_processes_equal_one(video_config, video_run, run_processes, tmp_path):
    run_in_two_processes(run_processes, video_config, tmp_path / "run")
    assert_same_run(tmp_path / "run", video_run)
