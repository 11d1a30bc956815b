"""Run the code blocks of docs/library.md as printed."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizers

PAGE = (Path(__file__).parents[1] / "docs" / "library.md").read_text(encoding="utf-8")
COMMON = "The quantizer in another library"
NEEDS = {"Haiku": "haiku", "Equinox": "equinox"}
LIBRARIES = ("Plain JAX", "Flax Linen", "Flax NNX", *NEEDS)
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in LIBRARIES[1:]]


def blocks(heading: str) -> list[str]:
    """Return the code blocks of the section under a heading."""
    _, _, below = PAGE.partition(f"# {heading}\n")
    section = re.split(r"^#+ ", below, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def run(code: str, namespace: dict) -> None:
    exec(compile(code, "docs/library.md", "exec"), namespace)


@pytest.mark.parametrize("library", [LIBRARIES[0], *SLOW])
def test_the_autoencoder_learns(library):
    if library in NEEDS:
        pytest.importorskip(NEEDS[library])
    namespace: dict = {"__name__": "page"}
    for code in blocks(COMMON) + blocks(library):
        run(code, namespace)
    losses, codes = namespace["losses"], namespace["codes"]
    # The error of predicting the mean image is the variance of the pixels.
    images = np.asarray(namespace["images"])
    assert losses[-1] < images.var(axis=0).mean()
    assert codes.shape == (1797, 4, 1)
    used = quantizers.usage(jnp.asarray(codes), num_codes=32)
    assert quantizers.active_codes(used)[0] > 4


@pytest.mark.slow
def test_a_trained_model_and_a_training_loop(finished_run, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(finished_run)
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for code in blocks("A trained model"):
        run(code, namespace)
    assert namespace["images"].shape == (5, 8, 8, 1)
    assert namespace["nats"].shape == (5,)
    np.testing.assert_array_equal(
        namespace["lower_half"][:, :2], namespace["codes"][:, :2]
    )
    alone = namespace["draw_one"](namespace["keys"][3], namespace["labels"][3])
    np.testing.assert_array_equal(namespace["each"][3], alone)
    for code in blocks("Your own training loop"):
        run(code, namespace)
    assert np.isfinite(namespace["loss"])


def test_every_block_of_the_page_is_run():
    headings = (COMMON, *LIBRARIES, "A trained model", "Your own training loop")
    assert PAGE.count("```python") == sum(len(blocks(each)) for each in headings)
