"""The area under the ROC curve: values, intervals over patients and trainings, comparisons, curves.

Labels are 0 or 1, scores higher for 1. Scores of several trainings are the rows of an array [seeds, n].
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_curve

from lib.errors import UserError
from lib.metrics import Estimate


class AucError(UserError):
    """Labels and scores that have no ROC curve."""


@dataclass(frozen=True)
class Comparison:
    """AUC of b less AUC of a, its 95 % interval, and DeLong's two-sided p value of each pair of trainings."""

    difference: Estimate
    p_values: tuple[float, ...]


def auc(labels, scores) -> np.ndarray:
    """AUC of each row of scores [..., n]: the share of pairs ranked right, ties counting half."""
    labels, scores = _checked(labels, scores)
    ranks = rankdata(scores, axis=-1)
    positive = labels.sum()
    above = ranks[..., labels].sum(-1) - positive * (positive + 1) / 2
    return above / (positive * (len(labels) - positive))


def delong(labels, scores) -> tuple[np.ndarray, np.ndarray]:
    """(AUCs [m], their covariance [m, m]) of m classifiers scored on the same n cases, scores [m, n].

    DeLong et al. 1988 by midranks, as in Sun & Xu 2014, doi 10.1109/LSP.2014.2337313.
    """
    labels, scores = _checked(labels, np.atleast_2d(scores))
    positive, negative = scores[:, labels], scores[:, ~labels]
    n, m = positive.shape[1], negative.shape[1]
    overall = rankdata(scores, axis=1)
    # For each case, the share of the other class that it is ranked right against.
    right_positive = (overall[:, labels] - rankdata(positive, axis=1)) / m
    right_negative = 1 - (overall[:, ~labels] - rankdata(negative, axis=1)) / n
    covariance = np.cov(right_positive) / n + np.cov(right_negative) / m
    return right_positive.mean(1), np.atleast_2d(covariance)


def delong_test(labels, a, b) -> tuple[float, float]:
    """(AUC of b less AUC of a, two-sided p value) for two classifiers scored on the same cases [n].

    Of a single case of either class nothing is known of the spread: p is nan.
    """
    labels, _ = _checked(labels, a)
    if min(labels.sum(), (~labels).sum()) < 2:
        return float(auc(labels, b) - auc(labels, a)), float("nan")
    areas, covariance = delong(labels, np.stack([a, b]))
    difference = float(areas[1] - areas[0])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance <= 0:  # the same ranking twice, or two perfect ones
        return difference, 1.0 if difference == 0 else 0.0
    return difference, float(2 * norm.sf(abs(difference) / np.sqrt(variance)))


def auc_interval(labels, scores, patients=None, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean AUC of scores [n] or [seeds, n], with its 95 % percentile bootstrap interval.

    Resampled are patients, whose images stay together, and trainings; patients [n] names each image's.
    """
    labels, scores = _checked(labels, np.atleast_2d(scores))
    replicates = _replicates(labels, [scores], patients, resamples, seed)[0]
    return Estimate(float(auc(labels, scores).mean()), *_quantiles(replicates))


def compare(labels, a, b, patients=None, resamples: int = 2000, seed: int = 0) -> Comparison:
    """How much higher the mean AUC of scores b is than that of a, each [n] or [seeds, n], on the same cases.

    A paired bootstrap: both are scored on the same resampled patients; the trainings of each are
    resampled on their own. DeLong's test, which knows one training only, is the cross-check: a p value
    for each pair of rows, as far as there are pairs.
    """
    labels, a = _checked(labels, np.atleast_2d(a))
    _, b = _checked(labels, np.atleast_2d(b))
    of_a, of_b = _replicates(labels, [a, b], patients, resamples, seed)
    value = float(auc(labels, b).mean() - auc(labels, a).mean())
    pairs = zip(a, b, strict=False)
    return Comparison(
        Estimate(value, *_quantiles(of_b - of_a)),
        tuple(delong_test(labels, one, other)[1] for one, other in pairs),
    )


def roc(labels, scores, points: int = 101) -> tuple[np.ndarray, np.ndarray]:
    """(false positive rates [points], true positive rates [seeds, points]) of scores [n] or [seeds, n]."""
    labels, scores = _checked(labels, np.atleast_2d(scores))
    grid = np.linspace(0, 1, points)
    rows = []
    for row in scores:
        false, true, _ = roc_curve(labels, row, drop_intermediate=False)
        # Where the curve rises upright, the least of shifts puts its points in order.
        curve = np.interp(grid, false + 1e-12 * np.arange(len(false)), true)
        rows.append(np.append(curve[:-1], 1.0))
    return grid, np.array(rows)


def _replicates(labels, several, patients, resamples, seed):
    """Bootstrap replicates [resamples] of the mean AUC of each of `several` score arrays [seeds, n]."""
    rng = np.random.default_rng(seed)
    patients = np.arange(len(labels)) if patients is None else np.unique(patients, return_inverse=True)[1]
    n = patients.max() + 1
    weights = rng.multinomial(n, np.full(n, 1 / n), 2 * resamples)[:, patients].astype(float)
    both = (weights[:, labels].sum(1) > 0) & (weights[:, ~labels].sum(1) > 0)
    weights = weights[both][:resamples]  # the few resamples without one of the classes are left out
    positive, negative = weights[:, labels], weights[:, ~labels]
    pairs = positive.sum(1) * negative.sum(1)
    found = []
    for scores in several:
        areas = []
        for row in scores:
            apart = row[labels][:, None] - row[~labels][None]
            right = (apart > 0) + 0.5 * (apart == 0)
            areas.append(np.einsum("rp,rp->r", negative @ right.T, positive) / pairs)
        chosen = rng.integers(len(scores), size=(len(weights), len(scores)))
        found.append(np.take_along_axis(np.array(areas).T, chosen, 1).mean(1))
    return found


def _quantiles(replicates):
    low, high = np.quantile(replicates, (0.025, 0.975))
    return float(low), float(high)


def _checked(labels, scores):
    labels, scores = np.asarray(labels), np.asarray(scores, float)
    if labels.dtype != bool and not np.isin(labels, (0, 1)).all():
        raise AucError(f"labels {np.unique(labels)[:5].tolist()}: 0 and 1 are the classes of a ROC curve")
    labels = labels.astype(bool)
    if scores.shape[-1:] != labels.shape or labels.ndim != 1:
        raise AucError(f"{labels.shape} labels and {scores.shape} scores: one score a label")
    if labels.all() or not labels.any():
        raise AucError(f"all {len(labels)} cases are of one class: AUC needs both")
    if not np.isfinite(scores).all():
        raise AucError("scores that are not finite: the training ran away")
    return labels, scores
