"""The released models: found by name, and described by their cards."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import vqvae_jax
from vqvae_jax.pretrained import released
from vqvae_jax.pretrained.loading import find
from vqvae_jax.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
# The photos of `example_photos` are beside the models.
FOLDERS = (path.name for path in (ROOT / "weights").iterdir() if path.is_dir())
NAMES = sorted(set(FOLDERS) - {"photos"})


def test_every_folder_of_weights_has_a_name():
    assert list(released.names()) == NAMES != []


@pytest.mark.parametrize("name", NAMES)
def test_the_card_has_the_results_of_the_file(name):
    metadata = find(name).metadata
    card = (ROOT / "weights" / name / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| ([\d.e+-]+) \|$", card, re.MULTILINE))
    assert metadata.results
    for result, value in metadata.results.items():
        assert rows[result] == f"{value:.5g}", result


def test_a_name_is_the_file_in_weights(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model, params = vqvae_jax.restore("cifar10")
    expected, arrays = vqvae_jax.restore(ROOT / "weights" / "cifar10")
    assert model == expected
    embeddings = params.quantizer.embeddings, arrays.quantizer.embeddings
    np.testing.assert_array_equal(*embeddings)


def test_an_existing_path_comes_before_a_name(monkeypatch, digits_file, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits_file.parent, tmp_path / "cifar10")
    assert vqvae_jax.restore("cifar10")[0].image_shape == (8, 8, 1)


def test_other_names_raise():
    with pytest.raises(UserError, match=rf"or a released model \({', '.join(NAMES)}\)"):
        find("cifar11")


def test_models_lists_them(command):
    found = command("models")
    assert (found.code, found.err) == (0, "")
    for name in NAMES:
        assert re.search(rf"^{name} ", found.out, re.MULTILINE)
    about = json.loads(command("models", "--json").out)
    assert list(about) == NAMES
    assert about["cifar10"]["results"]["codebook_active_codes"] == 5120


def test_the_digits_are_evaluated_as_their_card_says(command, digits_dir, tmp_path):
    """The arrays are halved: figures differ by less than a thousandth."""
    out = tmp_path / "results.json"
    words = ("evaluate", "digits", out, "--data_dir", digits_dir)
    assert command(*words, "--sum_over_classes").code == 0
    found = json.loads(out.read_text())
    results = find("digits").metadata.results
    assert found == pytest.approx({name: results[name] for name in found}, rel=1e-3)
    assert {"test_psnr_db", "prior_bits_per_code"} <= found.keys()
