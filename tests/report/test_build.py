"""The report of a finished run shows what the run left."""

import base64
import json
import re

import jax
import numpy as np
import pytest

from vqvae_jax.data.dataset import open_dataset
from vqvae_jax.data.source import first_examples
from vqvae_jax.errors import UserError
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import build as build_lib
from vqvae_jax.report import figures
from vqvae_jax.workdir import Workdir, restore


@pytest.fixture(scope="module")
def page(finished_run) -> str:
    return (finished_run / "report.html").read_text()


@pytest.fixture(scope="module")
def pictures(page) -> list[bytes]:
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    return [base64.b64decode(data) for data in found]


def test_names_the_run_and_holds_its_config(finished_run, page):
    assert f"<h1>VQ-VAE: {finished_run.name}</h1>" in page
    assert "&quot;seed&quot;: 0" in page
    results = json.loads((finished_run / "results.json").read_text())
    assert page.count("<tr>") == len(results)


def test_reconstructions_are_of_images_from_all_over_test(
    finished_run, tiny_config, pictures
):
    """Of the first, the last and 30 between: a folder has its classes in order."""
    dataset = open_dataset(Experiment.from_config(tiny_config).data)
    test = first_examples(dataset.test, len(dataset.test))["image"]
    images = test[np.round(np.arange(32) * (len(test) - 1) / 31).astype(int)]
    model, params = restore(finished_run)
    decoded = np.asarray(jax.jit(model.reconstruct)(params, images))
    expected = figures.reconstructions(images, decoded, columns=16)
    assert pictures[0] == expected


def test_samples_are_the_runs_own_in_order_of_class(finished_run, page, pictures):
    rows = [path.read_bytes() for path in sorted((finished_run / "samples").iterdir())]
    assert pictures[1 : 1 + len(rows)] == rows
    for digit in range(10):
        assert f'alt="Samples {digit}"' in page
        assert f"<figcaption>{digit}</figcaption>" in page


def test_curves_are_of_what_was_logged(finished_run, pictures):
    lines = (finished_run / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    expected = [figures.learning_curves(entries, s) for s in ("vqvae", "prior")]
    assert pictures[-2:] == expected


def test_samples_without_classes_have_no_caption(tmp_path):
    workdir = Workdir(tmp_path)
    np.savez(
        workdir.samples,
        images=np.zeros((3, 8, 8, 1), np.uint8),
        labels=np.zeros(3, int),
        class_names=np.array([], str),
    )
    (picture,) = build_lib._samples(workdir, is_decoded=True).pictures
    assert (picture.alt, picture.caption) == ("Samples", "")


def test_large_images_and_many_classes_stay_a_page(tmp_path):
    """Rows of 8 images of 128x128, and 32 of 100 classes from first to last."""
    workdir = Workdir(tmp_path)
    images = np.random.default_rng(0).integers(256, size=(110, 128, 128, 3), dtype="u1")
    labels = np.arange(110) % 100
    labels[100:] = 0
    names = np.array([f"class {label}" for label in range(100)])
    np.savez(workdir.samples, images=images, labels=labels, class_names=names)
    pictures = build_lib._samples(workdir, is_decoded=True).pictures
    labels_shown = [int(picture.caption.split()[1]) for picture in pictures]
    assert len(labels_shown) == 32
    assert labels_shown[0] == 0
    assert labels_shown[-1] == 99
    assert set(np.diff(labels_shown)) == {3, 4}
    first = images[[0, *range(100, 107)]]
    assert pictures[0].image == figures.image_grid(first, columns=8)


def test_a_small_test_split_is_shown_whole():
    assert build_lib.spread(3, 32) == [0, 1, 2]
    assert build_lib.spread(10, 4) == [0, 3, 6, 9]


def test_an_unfinished_run_is_told(tmp_path, tiny_config):
    experiment = Experiment.from_config(tiny_config)
    dataset = open_dataset(experiment.data)
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        build_lib.build(Workdir(tmp_path), experiment, dataset)
