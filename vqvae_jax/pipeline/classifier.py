"""Do class-conditional samples look like their class? A classifier's opinion."""

import numpy as np
from jaxtyping import Int, UInt8


def class_accuracy(
    train_images: UInt8[np.ndarray, "N H W C"],
    train_labels: Int[np.ndarray, " N"],
    images: UInt8[np.ndarray, "M H W C"],
    labels: Int[np.ndarray, " M"],
) -> float:
    """Return the part of `images` that a classifier of real images gives its label.

    The classifier is scikit-learn's support vector machine on pixels, which recognises
    99 % of real handwritten digits; it suits small, simple images only.
    """
    # Here: the import takes seconds, which a run spends when it needs it.
    from sklearn.svm import SVC

    classifier = SVC().fit(_rows(train_images), train_labels)
    return float(np.mean(classifier.predict(_rows(images)) == labels))


def _rows(images):
    return images.reshape(len(images), -1) / 255.0
