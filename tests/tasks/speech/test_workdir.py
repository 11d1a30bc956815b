"""The names of a run's speakers, which its workdir holds."""

import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.workdir import Workdir


def test_a_model_of_speech_has_the_speakers_of_its_run(make_config, tmp_path):
    workdir = Workdir(tmp_path)
    workdir.begin(make_config("speech:small", {}))
    with pytest.raises(UserError, match=r"given\.json is missing or damaged"):
        workdir.experiment()
    workdir.keep_given({"speaker_names": ["ann", "bob"]})
    assert workdir.experiment().model.speaker_names == ("ann", "bob")
    workdir.given.write_text('{"speaker_names": [3]}')
    with pytest.raises(UserError, match=r"given\.json is damaged: speaker_names is"):
        workdir.experiment()
