"""All stages on speech in two processes, compared with one process of eight devices."""

import pytest
from run_comparison import assert_same_run, run_in_two_processes


@pytest.mark.slow
def test_two_processes_equal_one(speech_config, speech_run, run_processes, tmp_path):
    run_in_two_processes(run_processes, speech_config, tmp_path / "run")
    assert_same_run(tmp_path / "run", speech_run)
