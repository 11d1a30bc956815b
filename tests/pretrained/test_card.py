"""The card that is written beside a file."""

import json
import re

import jax
import jax.numpy as jnp

import vqvae_jax
from vqvae_jax.pretrained import card as card_lib
from vqvae_jax.pretrained.loading import find


def test_a_card_describes_the_run(finished_run, tmp_path):
    folder = tmp_path / "mine"
    vqvae_jax.save_pretrained(finished_run, folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "model.safetensors",
    ]
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: vqvae_jax\ntags:\n- vq-vae\n")
    assert "\nlicense: unknown\n---\n" in card
    assert "# VQVAE of digits" in card
    results = json.loads((finished_run / "results.json").read_text())
    assert f"| test_psnr_db | {results['test_psnr_db']:.5g} |" in card
    config = json.loads(re.search(r"```json\n(.*?)```", card, re.DOTALL).group(1))
    expected = json.loads((finished_run / "config.json").read_text())
    assert expected.pop("format") == 2
    assert config == expected
    assert f"hf upload USER/NAME {folder}" in card


def test_the_code_of_a_card_runs(finished_run, tmp_path):
    """Read the file instead of the Hub."""
    vqvae_jax.save_pretrained(finished_run, tmp_path)
    card = (tmp_path / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
    names = {
        "images": jnp.zeros((2, 8, 8, 1), jnp.uint8),
        "key": jax.random.key(0),
        "labels": jnp.array([1, 2, 3]),
    }
    exec(code.replace("hf://USER/NAME", str(tmp_path)), names)
    assert names["images"].shape == (2, 8, 8, 1)
    assert names["drawn"].shape == (3, 4, 4, 1)


def test_a_card_without_a_run_has_no_results_and_no_prior(finished_run, tmp_path):
    vqvae_jax.save_pretrained(vqvae_jax.restore(finished_run), tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "# VQVAE\n" in card
    assert "## Results" not in card
    assert "prior" not in card


def test_data_of_a_folder_have_no_name_in_the_title(finished_run, tmp_path):
    metadata = find(finished_run).metadata
    for source, title in (("tfds", "# VQVAE of digits\n"), ("folder", "# VQVAE\n")):
        data = {**metadata.config["data"], "source": source}
        changed = metadata._replace(config={**metadata.config, "data": data})
        assert title in card_lib.of(changed, tmp_path)
