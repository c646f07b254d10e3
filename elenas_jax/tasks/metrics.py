"""Metrics of data sets, in NumPy. A network whose outputs are NaN gets the worst value, never NaN."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Metric(NamedTuple):
    """How good outputs are.

    fn: (outputs `[N, O]`, targets `[N, O]`) -> number. NaN where the targets alone do not define it.
    """

    fn: Callable[[np.ndarray, np.ndarray], float]
    higher_is_better: bool


def accuracy(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns the share of rows whose largest output is at the class of the one-hot target."""
    outputs = np.asarray(outputs)
    right = np.argmax(outputs, axis=-1) == np.argmax(targets, axis=-1)
    return float(np.mean(right & ~np.isnan(outputs).any(axis=-1)))


def roc_auc(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns the area under the ROC curve, the mean over columns.

    A column counts if both classes are among its measured (not NaN) targets. The area is the chance
    that a positive row ranks above a negative one, ties counting half (Mann and Whitney, 1947).
    """
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    areas = []
    for column in range(targets.shape[1]):
        measured = ~np.isnan(targets[:, column])
        positive = targets[measured, column] > 0.5
        if 0 < positive.sum() < len(positive):
            areas.append(_area(outputs[measured, column], positive))
    return float(np.mean(areas)) if areas else float("nan")


def pixel_roc_auc(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns the area under the ROC curve over all targets together, as of the pixels of masks."""
    return roc_auc(np.reshape(outputs, (-1, 1)), np.reshape(targets, (-1, 1)))


def mean_average_precision(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns the mean over columns of the average precision: of the precision at each positive row.

    The precision at a row is the share of positives among those whose output is at least the row's. Columns
    without a positive do not count.
    """
    outputs, targets = np.asarray(outputs), np.asarray(targets) > 0.5
    found = []
    for scores, positive in zip(outputs.T, targets.T, strict=True):
        if positive.any():
            found.append(_average_precision(scores, positive))
    return float(np.mean(found)) if found else float("nan")


def _average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    if np.isnan(scores).any():
        return 0.0
    _, group = np.unique(-scores, return_inverse=True)
    num_groups = group.max() + 1
    hits = np.bincount(group, weights=positive, minlength=num_groups)
    precision = np.cumsum(hits) / np.cumsum(np.bincount(group, minlength=num_groups))
    return float(np.sum(hits * precision) / positive.sum())


def macro_f1(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns the mean over classes of F1 = 2 hits / (predicted + true); classes in neither do not count."""
    outputs = np.asarray(outputs)
    num_classes = outputs.shape[-1]
    wanted = np.argmax(targets, axis=-1)
    # A row with a NaN is a prediction of no class.
    given = np.where(np.isnan(outputs).any(axis=-1), num_classes, np.argmax(outputs, axis=-1))
    predicted = np.bincount(given, minlength=num_classes + 1)[:num_classes]
    true = np.bincount(wanted, minlength=num_classes)
    hits = np.bincount(wanted[given == wanted], minlength=num_classes)
    there = predicted + true > 0
    return float(np.mean(2 * hits[there] / (predicted + true)[there]))


def one_minus_relative_l2(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns 1 minus the mean over rows of |output - target| / |target|; 1 is perfect, 0 as good as zeros.

    Rows that are zero throughout do not count.
    """
    outputs, targets = np.asarray(outputs, np.float64), np.asarray(targets, np.float64)
    size = np.linalg.norm(targets, axis=-1)
    if not (size > 0).any():
        return float("nan")
    if np.isnan(outputs).any():
        return float("-inf")
    return float(1.0 - np.mean((np.linalg.norm(outputs - targets, axis=-1)[size > 0]) / size[size > 0]))


def _area(scores: np.ndarray, positive: np.ndarray) -> float:
    if np.isnan(scores).any():
        return 0.0
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(sizes) - (sizes - 1) / 2  # equal scores share the mean of their ranks, from 1
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    above = ranks[group][positive].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * num_negative))


def perplexity(losses: np.ndarray, targets: np.ndarray | None = None) -> float:
    """Returns exp of the mean of negative log-likelihoods per word (in nats).

    Args:
      losses: of any shape, one for each word; or the mean over all words.
      targets: not used; there so that metrics share a signature.
    """
    mean = np.mean(np.asarray(losses, np.float64))
    if np.isnan(mean) or mean > np.log(np.finfo(np.float64).max):
        return float("inf")
    return float(np.exp(mean))


def r2(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns the share of the targets' variance that is explained, the mean over columns.

    Preferred to the root mean square error because it has no unit: it may be averaged over targets
    of different kinds, and does not depend on whether they were standardised. 1 is perfect, 0 as
    good as the mean, below 0 worse. Columns that are constant do not count.
    """
    outputs, targets = np.asarray(outputs, np.float64), np.asarray(targets, np.float64)
    total = np.sum(np.square(targets - targets.mean(axis=0)), axis=0)
    varies = total > 0
    if not varies.any():
        return float("nan")
    if np.isnan(outputs).any():
        return float("-inf")
    residual = np.sum(np.square(targets - outputs), axis=0)
    return float(np.mean(1.0 - residual[varies] / total[varies]))


def pixel_r2(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Returns `r2` over all targets together, as of the pixels of maps."""
    return r2(np.reshape(outputs, (-1, 1)), np.reshape(targets, (-1, 1)))


METRICS = {
    "accuracy": Metric(accuracy, higher_is_better=True),  # classes
    "roc_auc": Metric(roc_auc, higher_is_better=True),  # 0/1 labels, some not measured
    "mean_average_precision": Metric(mean_average_precision, higher_is_better=True),  # 0/1 labels
    "pixel_roc_auc": Metric(pixel_roc_auc, higher_is_better=True),  # 0/1 labels of pixels
    "macro_f1": Metric(macro_f1, higher_is_better=True),  # classes of unequal size
    "perplexity": Metric(perplexity, higher_is_better=False),  # text
    "r2": Metric(r2, higher_is_better=True),  # numbers
    "pixel_r2": Metric(pixel_r2, higher_is_better=True),  # maps of numbers
    "one_minus_relative_l2": Metric(one_minus_relative_l2, higher_is_better=True),  # fields of numbers
}
