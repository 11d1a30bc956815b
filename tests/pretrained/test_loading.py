"""Sources of trained models, which all give the same model."""

import shutil
import sys
import types

import jax
import numpy as np
import pytest
from launch_checks import python

import vqvae_jax
from vqvae_jax.models.base import fingerprint
from vqvae_jax.pretrained.loading import find
from vqvae_jax.runtime.errors import UserError


def assert_same_restored(a, b):
    """Assert that two results of `restore` are equal, to the last bit."""
    assert a[0] == b[0]
    assert jax.tree.structure(a[1]) == jax.tree.structure(b[1])
    jax.tree.map(np.testing.assert_array_equal, a[1], b[1])


def test_a_file_and_its_folder_restore_the_run(finished_run, digits_file):
    for source in (digits_file, digits_file.parent, str(digits_file)):
        for stage in (None, "vqvae", "prior"):
            assert_same_restored(
                vqvae_jax.restore(source, stage), vqvae_jax.restore(finished_run, stage)
            )


def test_a_file_has_all_metadata_of_the_run(finished_run, digits_file):
    of_run, of_file = find(finished_run).metadata, find(digits_file).metadata
    assert of_file == of_run
    assert of_file.results["codebook_codes"] == 16
    assert of_file.config["data"]["name"] == "digits"
    assert of_file.models["prior"].class_names[:3] == ("0", "1", "2")


def test_models_of_another_training_loop(finished_run, tmp_path):
    pairs = vqvae_jax.restore(finished_run), vqvae_jax.restore(finished_run, "prior")
    path = vqvae_jax.save_pretrained((*pairs[0], *pairs[1]), tmp_path / "both")
    assert_same_restored(vqvae_jax.restore(path), pairs[0])
    assert_same_restored(vqvae_jax.restore(path, "prior"), pairs[1])
    path = vqvae_jax.save_pretrained(pairs[0], tmp_path / "one")
    assert_same_restored(vqvae_jax.restore(path), pairs[0])
    with pytest.raises(UserError, match=r"no prior in .*one.*followed by nothing"):
        vqvae_jax.restore(path, "prior")


def test_half_precision_halves_the_file_and_rounds_the_arrays(
    finished_run, digits_file, tmp_path
):
    """The prior belongs to the rounded model, whose codes differ a little."""
    path = vqvae_jax.save_pretrained(finished_run, tmp_path / "half", half=True)
    numbers = 0
    for stage in ("vqvae", "prior"):
        (_, found), (_, params) = (
            vqvae_jax.restore(source, stage) for source in (path, digits_file)
        )
        expected = jax.tree.map(
            lambda x: np.asarray(x).astype("float16").astype("float32"), params
        )
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        numbers += sum(x.size for x in jax.tree.leaves(expected))
    # The names of types in the headers differ too.
    saved_bytes = digits_file.stat().st_size - path.stat().st_size
    assert saved_bytes == pytest.approx(2 * numbers, abs=100)
    model, params = vqvae_jax.restore(path)
    assert find(path).metadata.codes_of == fingerprint(model, params)


def test_values_beyond_half_precision_are_refused(finished_run, tmp_path):
    model, params = vqvae_jax.restore(finished_run)
    large = jax.tree.map(lambda x: x + 1e5, params.encoder)
    with pytest.raises(UserError, match=r"larger than float16 .* half=False"):
        vqvae_jax.save_pretrained(
            (model, params._replace(encoder=large)), tmp_path, half=True
        )
    assert not list(tmp_path.iterdir())


class TestHub:
    @pytest.fixture
    def calls(self, digits_file, monkeypatch):
        """Calls of a stub of the Hub's client, which has the file under any name."""
        calls = []

        def hf_hub_download(repository, filename, *, revision):
            calls.append((repository, filename, revision))
            if repository == "user/missing":
                raise OSError("404 Client Error\nRepository Not Found")
            return str(digits_file)

        stub = types.ModuleType("huggingface_hub")
        stub.hf_hub_download = hf_hub_download
        monkeypatch.setitem(sys.modules, "huggingface_hub", stub)
        return calls

    def test_a_name_is_downloaded(self, calls, finished_run):
        found = vqvae_jax.restore("hf://user/digits")
        assert_same_restored(found, vqvae_jax.restore(finished_run))
        vqvae_jax.restore("hf://user/digits@v1.0", "prior")
        file = "model.safetensors"
        assert calls == [("user/digits", file, None), ("user/digits", file, "v1.0")]

    @pytest.mark.parametrize(
        "name",
        ["hf://", "hf://a", "hf://a/", "hf://a/b@", "hf://a/b/c", "hf://a/../b"],
    )
    def test_invalid_names_raise(self, calls, name):
        message = "is not a name on the Hub: expected hf://user/name"
        with pytest.raises(UserError, match=message):
            vqvae_jax.restore(name)
        assert not calls

    @pytest.mark.usefixtures("calls")
    def test_a_failed_download_raises(self):
        with pytest.raises(UserError, match=r"cannot be downloaded: 404 Client Error$"):
            vqvae_jax.restore("hf://user/missing")

    def test_a_missing_client_raises(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(UserError, match=r"is not installed: pip install"):
            vqvae_jax.restore("hf://user/digits")


def test_missing_models_and_unknown_stages_raise(digits_file, tmp_path):
    for name in (tmp_path / "nowhere", "hf:a/b"):
        with pytest.raises(
            UserError, match=rf"{name} does not exist: expected a run's"
        ):
            vqvae_jax.restore(name)
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        vqvae_jax.restore(tmp_path)
    with pytest.raises(UserError, match=r"no video in .*is followed by prior"):
        vqvae_jax.restore(digits_file, "video")


def test_a_prior_over_other_codes_is_not_exported(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    path = run / "prior.json"
    text = path.read_text()
    assert '"fingerprint": "' in text
    path.write_text(text.replace('"fingerprint": "', '"fingerprint": "0'))
    with pytest.raises(UserError, match=r"trained on the codes of another model"):
        vqvae_jax.save_pretrained(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_has_no_prior_yet(finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "prior")
    (run / "prior.json").unlink()
    (run / "results.json").unlink()
    path = vqvae_jax.save_pretrained(run, tmp_path / "out")
    assert find(path).metadata.models == {}
    with pytest.raises(UserError, match=r"there is no prior in .* yet: train it first"):
        vqvae_jax.restore(path, "prior")
    assert_same_restored(vqvae_jax.restore(path), vqvae_jax.restore(finished_run))


_RESTORE = """
import sys
import vqvae_jax
for stage in (None, "prior"):
    vqvae_jax.restore(sys.argv[1], stage)
heavy = "array_record grain matplotlib ml_collections orbax PIL"
print([name for name in heavy.split() if name in sys.modules])
"""


def test_reading_a_file_does_not_import_the_extra_train(digits_file):
    found = python("-c", _RESTORE, digits_file)
    assert found.stdout == "[]\n", found.stderr
