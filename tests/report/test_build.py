"""The report of a finished run, compared with the files of the run."""

import base64
import json
import re
import shutil

import numpy as np
import pytest

from vqvae_jax import registry
from vqvae_jax.data.dataset import open_dataset
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import figures, image_grid
from vqvae_jax.report.build import build_page, samples_section
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.workdir import Workdir

PLAYGROUND_IS_AVAILABLE = any(map(registry.is_available, registry.REPORT_SECTIONS))


@pytest.fixture(scope="module")
def page(finished_run) -> str:
    return (finished_run / "report.html").read_text()


@pytest.fixture(scope="module")
def pictures(page) -> list[bytes]:
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    return [base64.b64decode(data) for data in found]


def test_the_page_has_the_name_config_and_sections_of_the_run(finished_run, page, read):
    reader = read(page)
    assert reader.texts["h1"] == [f"VQ-VAE: {finished_run.name}"]
    assert '"seed": 0' in reader.texts["pre"][0]
    assert "Images of digits, 8×8×1, as 4×4×1 codes of K = 16." in reader.texts["p"]
    results = json.loads((finished_run / "results.json").read_text())
    assert page.count("<tr>") == len(results)
    assert "Test PSNR (dB)" in page
    assert reader.texts["h2"] == [
        "Results",
        "Reconstructions",
        *(["Latent playground"] if PLAYGROUND_IS_AVAILABLE else []),
        "Samples",
        "Codebook",
        "Learning curves of the VQ-VAE",
        "Learning curves of the prior",
    ]


def test_the_page_of_a_studys_run_has_its_command_and_its_setting(
    finished_run, tmp_path, tiny_config
):
    workdir = tmp_path / "beta=0.5" / "3"
    shutil.copytree(finished_run, workdir)
    (workdir / "command.txt").write_text("python launch.py --x='a b'\n")
    experiment = Experiment.from_config(tiny_config)
    dataset = open_dataset(experiment.data)
    page = build_page(Workdir(workdir), experiment, dataset, sections=[])
    assert "<code>python launch.py --x=&#x27;a b&#x27;</code>" in page
    assert "VQ-VAE: beta=0.5/3" in page


def test_the_page_is_small_and_every_graphic_has_a_text_alternative(page, read):
    assert len(page) < 600_000
    assert not re.search(r'\b(src|srcset|href)="(?!data:|#)', page)
    reader = read(page)
    for tag, name in (("img", "alt"), ("svg", "aria-label"), ("canvas", "aria-label")):
        found = reader.of(tag)
        assert found or (tag == "canvas" and not PLAYGROUND_IS_AVAILABLE)
        assert all(attrs[name] for attrs in found)
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)


def test_samples_are_those_of_the_run_sorted_by_class(finished_run, page, pictures):
    with np.load(finished_run / "samples.npz") as samples:
        images, labels = samples["images"], samples["labels"]
    expected = [
        image_grid.image_grid(images[labels == digit][:16], columns=8)
        for digit in range(10)
    ]
    # After the twelve reconstructions.
    assert pictures[12:] == expected
    assert page.count("data:image/png;base64,") == len(pictures)
    for digit in range(10):
        assert f'alt="Samples {digit}"' in page
        assert f"<figcaption>{digit}</figcaption>" in page


def test_learning_curves_show_the_logged_metrics(finished_run, page, read):
    lines = (finished_run / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    for stage in ("vqvae", "prior"):
        for plot in figures.learning_curves(entries, stage).values():
            assert page.count(figures.svg(plot).decode().removeprefix("<svg")) == 1
    captions = read(page).texts["figcaption"]
    assert "Codebook loss, Commitment loss" in captions
    assert "Reconstruction loss" in captions


def test_samples_without_classes_have_no_caption(tmp_path):
    workdir = Workdir(tmp_path)
    np.savez(
        workdir.samples,
        images=np.zeros((3, 8, 8, 1), np.uint8),
        labels=np.zeros(3, int),
        class_names=np.array([], str),
        samples_per_second=1.0,
    )
    (picture,) = samples_section(workdir, "").cards
    assert (picture.alt, picture.caption) == ("Samples", "")


def test_large_images_and_many_classes_are_subsampled(tmp_path):
    """Two rows of 4 images of 128x128; 32 of 100 classes, evenly spaced."""
    workdir = Workdir(tmp_path)
    images = np.random.default_rng(0).integers(256, size=(110, 128, 128, 3), dtype="u1")
    labels = np.arange(110) % 100
    labels[100:] = 0
    names = np.array([f"class {label}" for label in range(100)])
    np.savez(
        workdir.samples,
        images=images,
        labels=labels,
        class_names=names,
        samples_per_second=1.0,
    )
    cards = samples_section(workdir, "").cards
    labels_shown = [int(picture.caption.split()[1]) for picture in cards]
    assert len(labels_shown) == 32
    assert labels_shown[0] == 0
    assert labels_shown[-1] == 99
    assert set(np.diff(labels_shown)) == {3, 4}
    first = images[[0, *range(100, 107)]]
    assert cards[0].image == image_grid.image_grid(first, columns=4)


def test_a_missing_run_raises(tmp_path, tiny_config):
    experiment = Experiment.from_config(tiny_config)
    dataset = open_dataset(experiment.data)
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        build_page(Workdir(tmp_path), experiment, dataset, sections=[])
