"""Class accuracy of class-conditional samples under a classifier of real images."""

import numpy as np
from jaxtyping import Int, UInt8


def class_accuracy(
    train_images: UInt8[np.ndarray, "N H W C"],
    train_labels: Int[np.ndarray, " N"],
    images: UInt8[np.ndarray, "M H W C"],
    labels: Int[np.ndarray, " M"],
) -> float:
    """Return the accuracy on `images` of a classifier trained on real images.

    The classifier is scikit-learn's support vector machine on pixels, which recognises
    99 % of real handwritten digits; it suits small, simple images only.
    """
    # Imported here because it takes seconds.
    from sklearn.svm import SVC

    classifier = SVC().fit(_rows(train_images), train_labels)
    return float(np.mean(classifier.predict(_rows(images)) == labels))


def _rows(images):
    return images.reshape(len(images), -1) / 255.0
