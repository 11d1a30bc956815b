"""The classifier of samples: accurate on real digits, at chance on shuffled labels."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vqvae_jax.pipeline.evaluate import class_accuracy


@pytest.fixture(scope="module")
def digits():
    """Train and test images and labels; every fifth digit is in test."""
    bunch = load_digits()
    images = np.round(bunch.images[..., None] * (255 / 16)).astype(np.uint8)
    test = np.arange(len(images)) % 5 == 4
    return images[~test], bunch.target[~test], images[test], bunch.target[test]


def test_recognises_real_digits(digits):
    assert class_accuracy(*digits) > 0.95


def test_shuffled_labels_give_chance_accuracy(digits):
    train_images, train_labels, images, labels = digits
    rng = np.random.default_rng(0)
    wanted = class_accuracy(train_images, train_labels, images, rng.permutation(labels))
    assert wanted == pytest.approx(0.1, abs=0.05)
    learnt = class_accuracy(train_images, rng.permutation(train_labels), images, labels)
    assert learnt == pytest.approx(0.1, abs=0.08)


def test_accuracy_is_the_fraction_of_agreeing_labels(digits):
    train_images, train_labels, images, labels = digits
    half = np.where(np.arange(len(labels)) % 2 == 0, labels, (labels + 1) % 10)
    accuracy = class_accuracy(train_images, train_labels, images, half)
    assert accuracy == pytest.approx(0.5, abs=0.03)
