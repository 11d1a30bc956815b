"""Reading a workdir back, and writing it whole or not at all."""

import json
import shutil

import jax
import numpy as np
import pytest

import vqvae_jax
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.workdir import Workdir, fingerprint, restore_second


def test_restored_models_encode_decode_sample_and_score(finished_run):
    model, params = vqvae_jax.restore(finished_run)
    images = np.random.default_rng(0).integers(256, size=(3, 8, 8, 1), dtype=np.uint8)
    codes = jax.jit(model.encode)(params, images)
    assert codes.shape == (3, 4, 4, 1)
    assert model.decode(params, codes).shape == images.shape
    prior, prior_params = vqvae_jax.restore_prior(finished_run)
    labels = np.array([1, 2, 3], np.int32)
    drawn = prior.sample(prior_params, jax.random.key(0), labels=labels)
    assert drawn.shape == (3, 4, 4, 1)
    assert prior.log_prob(prior_params, drawn, labels=labels).shape == (3,)


def test_restores_on_one_device_what_eight_wrote(finished_run):
    _, params = vqvae_jax.restore(finished_run)
    assert {len(x.sharding.device_set) for x in jax.tree.leaves(params)} == {1}


def test_fingerprint_depends_on_encoder_and_embeddings(finished_run):
    _, params = vqvae_jax.restore(finished_run)
    codebook = params.codebook
    other = params._replace(
        codebook=codebook._replace(embeddings=codebook.embeddings + 1)
    )
    counted = params._replace(codebook=codebook._replace(counts=codebook.counts + 1))
    assert fingerprint(params) == fingerprint(counted) != fingerprint(other)


def test_no_run_and_no_prior_yet(finished_run, tmp_path):
    with pytest.raises(UserError, match=r"config.json does not exist: is .* a run's"):
        vqvae_jax.restore(tmp_path)
    shutil.copytree(finished_run, tmp_path / "run")
    (tmp_path / "run" / "prior.json").unlink()
    with pytest.raises(UserError, match=r"there is no prior in .* yet: train"):
        vqvae_jax.restore_prior(tmp_path / "run")


def test_a_stage_that_the_run_does_not_have(finished_run):
    told = r"no hierarchy in .*: its vqvae is followed by prior"
    with pytest.raises(UserError, match=told):
        restore_second(finished_run, "hierarchy")


@pytest.mark.parametrize(
    ("restore", "file", "key", "message"),
    [
        (
            vqvae_jax.restore,
            "config.json",
            ("model", "num_codes"),
            r"codebook/counts has shape \(1, 16\) in the checkpoint, expected \(1, 8\)",
        ),
        (
            vqvae_jax.restore_prior,
            "prior.json",
            ("num_codes",),
            r"bias has shape \(1, 16\) in the checkpoint, expected \(1, 8\)",
        ),
    ],
)
def test_other_sizes_than_those_of_training_are_told(
    finished_run, tmp_path, restore, file, key, message
):
    """By the array that tells, without a word of damage."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    facts = json.loads((run / file).read_text())
    section = facts
    for name in key[:-1]:
        section = section[name]
    section[key[-1]] = 8
    (run / file).write_text(json.dumps(facts))
    with pytest.raises(UserError, match=rf"/\d+: .*{message}.*: the model's sizes"):
        restore(run)


def test_a_damaged_config_is_told(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        vqvae_jax.restore(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    place = Workdir(tmp_path)
    place.write_json(place.results, {"a": 1})

    def full(self, content):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(UserError, match=r"cannot write .*results.json: No space left"):
        place.write_json(place.results, {"a": 2})
    assert json.loads(place.results.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_workdir_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--workdir=.*file/run cannot be written to"):
        Workdir(tmp_path / "file" / "run").require_usable({})


def test_the_command_is_that_of_the_first_time(tmp_path):
    workdir = Workdir(tmp_path)
    assert workdir.read_command() == ""
    for command in ("", "python launch.py --config 'a b'", "another"):
        workdir.begin({"seed": 0}, command=command)
    assert workdir.read_command() == "python launch.py --config 'a b'"
    assert workdir.read_json(workdir.config) == {"seed": 0}


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    """Two that write the same file take each other's from under them."""
    monkeypatch.setattr("jax.process_index", lambda: 1)
    place = Workdir(tmp_path)
    place.write_json(place.results, {"a": 1})
    place.write_bytes(place.report, b"a")
    assert not list(tmp_path.iterdir())


def test_speakers_are_written_once_and_others_refused(tmp_path):
    place = Workdir(tmp_path)
    place.keep_speakers(["ann", "bob"])
    place.keep_speakers(("ann", "bob"))
    for others in (["bob", "ann"], ["ann"], ["ann", "bob", "cy"]):
        with pytest.raises(
            UserError, match=r"speech of 2 speakers \(ann, bob \.\.\.\)"
        ):
            place.keep_speakers(others)
    assert place.read_json(place.speakers) == {"speaker_names": ["ann", "bob"]}


def test_a_model_of_speech_has_the_speakers_of_its_run(make_config, tmp_path):
    place = Workdir(tmp_path)
    place.write_json(place.config, make_config("speech:small", {}))
    with pytest.raises(UserError, match=r"speakers\.json does not exist"):
        place.experiment()
    place.keep_speakers(["ann", "bob"])
    assert place.experiment().model.speaker_names == ("ann", "bob")
