"""The card that lies beside a file."""

import json
import re

import vqvae_jax
from vqvae_jax.pretrained import card as card_lib
from vqvae_jax.pretrained.loading import find


def test_a_card_tells_the_run(finished_run, tmp_path):
    folder = tmp_path / "mine"
    vqvae_jax.save_pretrained(finished_run, folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "model.safetensors",
    ]
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: vqvae_jax\ntags:\n- vq-vae\n")
    assert "# VQVAE of digits" in card
    results = json.loads((finished_run / "results.json").read_text())
    assert f"| test_psnr_db | {results['test_psnr_db']:.5g} |" in card
    config = json.loads(re.search(r"```json\n(.*?)```", card, re.DOTALL).group(1))
    assert config == json.loads((finished_run / "config.json").read_text())
    assert f"hf upload USER/NAME {folder}" in card


def test_what_a_card_shows_runs(finished_run, tmp_path):
    """With the file instead of the Hub."""
    import jax
    import jax.numpy as jnp

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


def test_a_card_of_models_alone_has_no_figures(finished_run, tmp_path):
    vqvae_jax.save_pretrained(vqvae_jax.restore(finished_run), tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "# VQVAE\n" in card
    assert "## Results" not in card
    assert "restore_prior" not in card


def test_a_folder_has_no_name(finished_run, tmp_path):
    """Whatever name its config was made with."""
    about = find(finished_run).about
    for source, title in (("tfds", "# VQVAE of digits\n"), ("folder", "# VQVAE\n")):
        data = {**about.config["data"], "source": source}
        of_source = about._replace(config={**about.config, "data": data})
        assert title in card_lib.of(of_source, tmp_path)
