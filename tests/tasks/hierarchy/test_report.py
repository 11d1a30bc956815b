"""The report on a second VQ-VAE."""

import base64
import re

import numpy as np
import pytest
from page_checks import PLAYGROUNDS, assert_accessible

from vqvae_jax.data.dataset import open_dataset
from vqvae_jax.report import image_grid
from vqvae_jax.tasks.hierarchy.report import latent_use
from vqvae_jax.workdir import Workdir

RESULTS = {
    "global_bits_per_frame": 27.0,
    "decoder_bits_per_frame_right_latents": 1000.25,
    "decoder_bits_per_frame_other_latents": 1200.0,
    "decoder_bits_per_frame_without_latents": 1100.0,
    "total_bits_per_frame": 1027.25,
    "vae_kl_bits_per_frame": 0.04,
    "vae_decoder_bits_per_frame_right_latents": 1100.5,
    "vae_decoder_bits_per_frame_other_latents": 1100.5,
    "vae_total_bits_per_frame": 1100.54,
}


def test_table_has_a_row_for_each_model():
    section = latent_use(RESULTS)
    head, *rows = section.table
    assert [row[1:] for row in rows] == [
        ("1,000.2", "1,200.0", "27.0", "1,027.2"),
        ("1,100.5", "1,100.5", "0.0", "1,100.5"),
        ("–", "–", "0", "1,100.0"),
    ]
    assert all(len(row) == len(head) for row in rows)


@pytest.mark.slow
def test_page_shows_frames_and_their_reconstructions(hierarchy_run):
    page = (hierarchy_run / "report.html").read_text()
    captions = re.findall("<figcaption>([^<]*)</figcaption>", page)
    start = captions.index("test frames")
    captions = captions[start:]
    assert captions[:3] == [
        "test frames",
        "first VQ-VAE: 64 bits",
        "drawn from 2 codes: 6 bits",
    ]
    assert captions[3].startswith("drawn from the latents of a VAE")
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    workdir = Workdir(hierarchy_run)
    with np.load(workdir.reconstructions) as file:
        frames, drawn = file["frames"], file["hierarchy"]
    test = open_dataset(workdir.experiment().data).test
    originals = np.stack([test[int(i)]["image"] for i in frames])
    # The first twelve are those of the report on any VQ-VAE.
    for picture, images in ((12, originals), (14, drawn)):
        expected = image_grid.image_grid(images, columns=16)
        assert base64.b64decode(pictures[picture]) == expected
    assert "Learning curves of the second VQ-VAE" in page
    assert "Are the latents used?" in page


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_is_self_contained_responsive_and_accessible(
    hierarchy_run, open_page, barriers, theme
):
    report = hierarchy_run / "report.html"
    assert_accessible(open_page, barriers, report, theme=theme, playgrounds=PLAYGROUNDS)
