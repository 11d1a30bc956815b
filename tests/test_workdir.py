"""Reading a workdir, writing its files atomically, and workdirs of version 0.1."""

import json
import shutil

import jax
import numpy as np
import pytest
from launch_checks import python

import vqvae_jax
from vqvae_jax import pipeline, registry
from vqvae_jax.cli.main import main
from vqvae_jax.models.base import fingerprint
from vqvae_jax.runtime import compilation
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.workdir import IMAGES, Workdir


def test_restored_models_encode_decode_sample_and_score(finished_run):
    model, params = vqvae_jax.restore(finished_run)
    images = np.random.default_rng(0).integers(256, size=(3, 8, 8, 1), dtype=np.uint8)
    codes = jax.jit(model.encode)(params, images)
    assert codes.shape == (3, 4, 4, 1)
    assert model.decode(params, codes).shape == images.shape
    prior, prior_params = vqvae_jax.restore(finished_run, "prior")
    labels = np.array([1, 2, 3], np.int32)
    drawn = prior.sample(prior_params, jax.random.key(0), labels=labels)
    assert drawn.shape == (3, 4, 4, 1)
    assert prior.log_prob(prior_params, drawn, labels=labels).shape == (3,)


def test_samples_match_their_schema(finished_run):
    workdir = Workdir(finished_run)
    arrays = workdir.read_samples()
    assert arrays["images"].shape == (40, 8, 8, 1)
    assert len(arrays["class_names"]) == 10
    with pytest.raises(UserError, match="codes is int32"):
        workdir.read_samples(IMAGES | {"codes": "i clips rows frames h w g"})


def test_restores_on_one_device_the_checkpoint_of_eight(finished_run):
    _, params = vqvae_jax.restore(finished_run)
    assert {len(x.sharding.device_set) for x in jax.tree.leaves(params)} == {1}


def test_fingerprint_depends_on_encoder_and_embeddings(finished_run):
    model, params = vqvae_jax.restore(finished_run)
    state = params.quantizer
    moved = params._replace(quantizer=state._replace(embeddings=state.embeddings + 1))
    counted = params._replace(quantizer=state._replace(counts=state.counts + 1))
    other = params._replace(encoder=jax.tree.map(lambda x: x + 1, params.encoder))
    same = fingerprint(model, params)
    assert fingerprint(model, counted) == same
    assert fingerprint(model, moved) != same != fingerprint(model, other)


def test_a_missing_run_and_a_missing_prior_raise(finished_run, tmp_path):
    with pytest.raises(UserError, match=r"config.json does not exist: is .* a run's"):
        vqvae_jax.restore(tmp_path)
    shutil.copytree(finished_run, tmp_path / "run")
    (tmp_path / "run" / "prior.json").unlink()
    with pytest.raises(UserError, match=r"there is no prior in .* yet: train"):
        vqvae_jax.restore(tmp_path / "run", "prior")
    with pytest.raises(UserError, match=r"prior.json does not exist"):
        Workdir(tmp_path / "run").restore("prior")


@pytest.mark.parametrize(
    "restore", [vqvae_jax.restore, lambda path, stage: Workdir(path).restore(stage)]
)
def test_a_stage_of_another_experiment_raises(finished_run, restore):
    message = r"no hierarchy in .*: its vqvae is followed by prior"
    with pytest.raises(UserError, match=message):
        restore(finished_run, "hierarchy")


@pytest.mark.parametrize(
    ("stage", "file", "key", "message"),
    [
        (
            "vqvae",
            "config.json",
            ("model", "quantizer", "num_codes"),
            r"quantizer/counts has shape \(1, 16\) in the checkpoint, expected "
            r"\(1, 8\)",
        ),
        (
            "prior",
            "prior.json",
            ("num_codes",),
            r"bias has shape \(1, 16\) in the checkpoint, expected \(1, 8\)",
        ),
    ],
)
def test_other_sizes_than_those_of_the_checkpoint_raise(
    finished_run, tmp_path, stage, file, key, message
):
    """The message names an array and its shapes."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    values = json.loads((run / file).read_text())
    section = values
    for name in key[:-1]:
        section = section[name]
    section[key[-1]] = 8
    (run / file).write_text(json.dumps(values))
    with pytest.raises(UserError, match=rf"/\d+: .*{message}.*: the model's sizes"):
        vqvae_jax.restore(run, stage)


def test_a_damaged_config_raises(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        vqvae_jax.restore(tmp_path)


def test_a_workdir_without_write_access_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--workdir=.*file/run cannot be written to"):
        Workdir(tmp_path / "file" / "run").require_usable({})


def test_the_config_and_the_first_command_are_saved(tmp_path):
    workdir = Workdir(tmp_path)
    assert workdir.read_command() == ""
    for command in ("", "python launch.py --config 'a b'", "another"):
        workdir.begin({"seed": 0}, command=command)
    assert workdir.read_command() == "python launch.py --config 'a b'"
    assert workdir.read_json(workdir.config) == {"format": 2, "seed": 0}
    assert workdir.read_config() == {"seed": 0}


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    """Two processes that write the same file remove each other's temporary file."""
    monkeypatch.setattr("jax.process_index", lambda: 1)
    workdir = Workdir(tmp_path)
    workdir.write_json(workdir.results, {"a": 1})
    workdir.write_bytes(workdir.report, b"a")
    assert not list(tmp_path.iterdir())


def test_options_given_by_the_data_are_saved_once_and_others_raise(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.keep_given({"speaker_names": ["ann", "bob"]})
    workdir.keep_given({"speaker_names": ("ann", "bob")})
    for others in (["bob", "ann"], ["ann"], ["ann", "bob", "cy"]):
        with pytest.raises(
            UserError, match=r"data with 2 speaker_names \(ann, bob \.\.\.\)"
        ):
            workdir.keep_given({"speaker_names": others})
    assert workdir.read_json(workdir.given) == {"speaker_names": ["ann", "bob"]}


def test_options_that_the_config_decides_are_not_read_from_the_data(copied_run):
    (copied_run / "given.json").write_text('{"image_shape": ["a"]}')
    assert Workdir(copied_run).experiment().model.image_shape == (8, 8, 1)


def with_config(path, config):
    """Return a workdir with this config.json."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path


OLD = r"^{} is a run of vqvae_jax 0\.1, .*: choose another --workdir, or use version 0"


@pytest.mark.parametrize(
    "read",
    [
        vqvae_jax.restore,
        lambda path: vqvae_jax.restore(path, "prior"),
        lambda path: Workdir(path).restore(),
        lambda path: Workdir(path).experiment(),
    ],
    ids=["restore", "restore prior", "Workdir.restore", "experiment"],
)
def test_restoring_a_run_of_version_0_1_raises(tiny_config, tmp_path, read):
    run = with_config(tmp_path / "old", tiny_config)
    with pytest.raises(UserError, match=OLD.format(run)) as caught:
        read(run)
    assert "\n" not in str(caught.value)


def test_resuming_a_run_of_version_0_1_raises(tiny_config, tmp_path):
    run = with_config(tmp_path / "old", tiny_config)
    with pytest.raises(UserError, match=OLD.format(run)) as caught:
        pipeline.run(tiny_config, str(run))
    assert "\n" not in str(caught.value)
    assert [path.name for path in run.iterdir()] == ["config.json"]


def test_launch_with_a_run_of_version_0_1_exits_in_one_line(tmp_path):
    run = with_config(tmp_path / "old", {"seed": 0})
    found = python("launch.py", "--config=digits", f"--workdir={run}")
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"error: {run} is a run of vqvae_jax 0.1, ")
    assert [path.name for path in run.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "name", [name for name, spec in registry.COMMANDS.items() if spec.needs_model]
)
def test_commands_with_a_run_of_version_0_1_exit_in_one_line(
    name, tiny_config, tmp_path, monkeypatch, capsys
):
    # Programs compiled by tests stay out of the user's cache.
    monkeypatch.setattr(compilation, "keep_programs", lambda: None)
    monkeypatch.chdir(tmp_path)
    run = with_config(tmp_path / "old", tiny_config)
    _, *others = registry.COMMANDS[name].example.split()
    assert main([name, str(run), *others]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {run} is a run of vqvae_jax 0.1, ")


@pytest.mark.parametrize(
    ("version", "message"),
    [(1, r"is a run of vqvae_jax 0\.1"), (3, r"config\.json has the unknown format 3")],
)
def test_another_format_raises(tmp_path, version, message):
    run = with_config(tmp_path / "new", {"format": version})
    with pytest.raises(UserError, match=message):
        vqvae_jax.restore(run)
