"""Where a model may be, and that it is the same model everywhere."""

import shutil
import sys
import types

import jax
import numpy as np
import pytest

import vqvae_jax
from vqvae_jax.pretrained.loading import find
from vqvae_jax.runtime.errors import UserError


@pytest.fixture(scope="module")
def saved(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "digits"
    return vqvae_jax.save_pretrained(finished_run, folder)


def assert_same(a, b):
    """Two pairs of a model and its params."""
    assert a[0] == b[0]
    assert jax.tree.structure(a[1]) == jax.tree.structure(b[1])
    jax.tree.map(np.testing.assert_array_equal, a[1], b[1])


def test_a_file_and_its_folder_are_the_run(finished_run, saved):
    for place in (saved, saved.parent, str(saved)):
        assert_same(vqvae_jax.restore(place), vqvae_jax.restore(finished_run))
        assert_same(
            vqvae_jax.restore_prior(place), vqvae_jax.restore_prior(finished_run)
        )


def test_what_is_known_of_a_run_is_in_the_file(finished_run, saved):
    of_run, of_file = find(finished_run).about, find(saved).about
    assert of_file == of_run
    assert of_file.results["codebook_codes"] == 16
    assert of_file.config["data"]["name"] == "digits"
    assert of_file.models["prior"].class_names[:3] == ("0", "1", "2")


def test_models_of_ones_own_loop(finished_run, tmp_path):
    pairs = vqvae_jax.restore(finished_run), vqvae_jax.restore_prior(finished_run)
    path = vqvae_jax.save_pretrained((*pairs[0], *pairs[1]), tmp_path / "both")
    assert_same(vqvae_jax.restore(path), pairs[0])
    assert_same(vqvae_jax.restore_prior(path), pairs[1])
    path = vqvae_jax.save_pretrained(pairs[0], tmp_path / "one")
    assert_same(vqvae_jax.restore(path), pairs[0])
    with pytest.raises(UserError, match=r"no prior in .*one.*followed by nothing"):
        vqvae_jax.restore_prior(path)


@pytest.mark.slow
def test_a_second_vqvae_has_all_three_models(hierarchy_run, tmp_path):
    path = vqvae_jax.save_pretrained(hierarchy_run, tmp_path)
    stages = ("hierarchy", "hierarchy_vae", "hierarchy_without_latents")
    for stage in stages:
        assert_same(
            vqvae_jax.restore_second(path, stage),
            vqvae_jax.restore_second(hierarchy_run, stage),
        )
    assert tuple(find(path).about.models) == stages


@pytest.mark.slow
def test_speech_keeps_its_speakers_and_rate(speech_run, tmp_path):
    path = vqvae_jax.save_pretrained(speech_run, tmp_path)
    assert_same(vqvae_jax.restore(path), vqvae_jax.restore(speech_run))
    assert vqvae_jax.restore(path)[0].speaker_names == ("ann", "bob", "cy")
    assert find(path).about.sample_rate == 16_000
    assert_same(
        vqvae_jax.restore_second(path, "sequence_prior"),
        vqvae_jax.restore_second(speech_run, "sequence_prior"),
    )


class TestHub:
    @pytest.fixture
    def asked(self, saved, monkeypatch):
        """Calls of a stub of the Hub's client, which has the file under any name."""
        calls = []

        def hf_hub_download(repository, filename, *, revision):
            calls.append((repository, filename, revision))
            if repository == "user/missing":
                raise OSError("404 Client Error\nRepository Not Found")
            return str(saved)

        stub = types.ModuleType("huggingface_hub")
        stub.hf_hub_download = hf_hub_download
        monkeypatch.setitem(sys.modules, "huggingface_hub", stub)
        return calls

    def test_a_name_is_fetched(self, asked, finished_run):
        found = vqvae_jax.restore("hf://user/digits")
        assert_same(found, vqvae_jax.restore(finished_run))
        vqvae_jax.restore_prior("hf://user/digits@v1.0")
        file = "model.safetensors"
        assert asked == [("user/digits", file, None), ("user/digits", file, "v1.0")]

    @pytest.mark.parametrize(
        "name", ["hf://digits", "hf://a/b/c", "hf://user/", "hf://"]
    )
    def test_no_name(self, asked, name):
        with pytest.raises(UserError, match="expected hf://user/name"):
            vqvae_jax.restore(name)
        assert not asked

    @pytest.mark.usefixtures("asked")
    def test_what_the_hub_has_not(self):
        with pytest.raises(UserError, match=r"cannot be fetched: 404 Client Error$"):
            vqvae_jax.restore("hf://user/missing")

    def test_without_the_client(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(UserError, match=r"is not installed: pip install"):
            vqvae_jax.restore("hf://user/digits")


def test_nothing_and_another_stage(saved, tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist: expected a run's"):
        vqvae_jax.restore(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        vqvae_jax.restore(tmp_path)
    with pytest.raises(UserError, match=r"no video in .*is followed by prior"):
        vqvae_jax.restore_second(saved, "video")


def test_a_prior_of_other_codes_is_not_given_away(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    facts = (run / "prior.json").read_text().replace('"fingerprint": "', "&0")
    (run / "prior.json").write_text(facts.replace("&0", '"fingerprint": "0'))
    with pytest.raises(UserError, match=r"trained on the codes of another model"):
        vqvae_jax.save_pretrained(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_running_run_has_no_prior_yet(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "prior")
    (run / "prior.json").unlink()
    (run / "results.json").unlink()
    path = vqvae_jax.save_pretrained(run, tmp_path / "out")
    assert find(path).about.models == {}
    with pytest.raises(UserError, match=r"there is no prior in .* yet: train it first"):
        vqvae_jax.restore_prior(path)
    assert_same(vqvae_jax.restore(path), vqvae_jax.restore(finished_run))
