"""What a selection aims at: the class shares of all data, and counts that go with them."""

from __future__ import annotations

import numpy as np

from geojax.errors import DataError


def target_of(
    train_labels: np.ndarray,
    classes: int,
    test_labels: np.ndarray | None = None,
    *,
    faithful: bool = False,
) -> np.ndarray:
    """Class shares p of the training data of all devices of all base stations.

    Args:
      train_labels: integers (samples,) in [0, classes).
      classes: F.
      test_labels: as ``train_labels``; read by ``faithful`` only.
      faithful: count test labels as well, as the code of FedGS's authors does. It is a leak, if a
        harmless one.

    Returns:
      float64 (F,), sums to one.

    Raises:
      DataError: labels are missing or out of range, or nobody has a sample of some class.

    >>> target_of(np.array([0, 1, 1, 1]), 2).tolist()
    [0.25, 0.75]
    """
    labels = np.asarray(train_labels)
    if faithful:
        if test_labels is None:
            raise DataError("selection.faithful = true counts test labels, and there are none")
        labels = np.concatenate([labels, np.asarray(test_labels)])
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or not labels.size:
        raise DataError(
            f"a selection goes by class labels, one integer a sample; these are {labels.dtype} of "
            f"shape {labels.shape}; use selection=everyone or selection=random"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"labels from {labels.min()} to {labels.max()} are not in [0, {classes}), the classes"
        )
    counts = np.bincount(labels, minlength=classes)
    absent = np.flatnonzero(counts == 0)
    if absent.size:
        named = ", ".join(map(str, absent[:8])) + ", …" * (absent.size > 8)
        raise DataError(
            f"no device has a sample of class {named} ({absent.size} of {classes} classes); take "
            "more data (data.train_samples), number the classes that there are from 0 on, or use "
            "selection=random"
        )
    return counts / counts.sum()


def as_batches(class_counts: np.ndarray, batch: int) -> np.ndarray:
    """Class counts of holders of unequal size, each made a batch of ``batch`` samples.

    So centers of a round, or devices by their whole data, can be chosen from like next batches.
    Rounded by largest remainder, ties to the lowest class, so that each row sums to ``batch``.

    Args:
      class_counts: (K, F), not negative, no row of zeros.
      batch: n.

    Returns:
      float32 (K, F), whole numbers.

    Raises:
      DataError: a row is empty.

    >>> as_batches(np.array([[1, 3], [10, 0]]), 8).tolist()
    [[2.0, 6.0], [8.0, 0.0]]
    """
    counts = np.asarray(class_counts, np.float64)
    sums = counts.sum(axis=1, keepdims=True)
    if (sums <= 0).any():
        raise DataError(f"device {int(np.argmin(sums))} has no samples; give each at least one")
    ideal = batch * counts / sums
    whole = np.floor(ideal)
    behind = np.argsort(whole - ideal, axis=1, kind="stable")
    left = batch - whole.sum(axis=1, keepdims=True)
    np.put_along_axis(
        whole,
        behind,
        np.take_along_axis(whole, behind, 1) + (np.arange(counts.shape[1]) < left),
        axis=1,
    )
    return whole.astype(np.float32)
