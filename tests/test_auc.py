"""AUC, DeLong's covariance, the paired bootstrap and ROC curves."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from lib.auc import AucError, auc, auc_interval, compare, delong, delong_test, roc


def cases(n=60, shift=(1.0, 0.6), seed=0, shared=0.5):
    """Labels [2 n] and scores of two correlated classifiers [2, 2 n], separated by `shift` deviations."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], n)
    common = rng.standard_normal(2 * n)
    scores = [
        shared * common + np.sqrt(1 - shared**2) * rng.standard_normal(2 * n) + s * labels for s in shift
    ]
    return labels, np.array(scores)


def brute_force_delong(labels, scores):
    """DeLong et al. 1988, equations (4) to (8), pair by pair."""
    psi = lambda x, y: float(x > y) + 0.5 * float(x == y)  # noqa: E731
    positive = [row[labels == 1] for row in scores]
    negative = [row[labels == 0] for row in scores]
    v10 = np.array(
        [[np.mean([psi(x, y) for y in ys]) for x in xs] for xs, ys in zip(positive, negative, strict=True)]
    )
    v01 = np.array(
        [[np.mean([psi(x, y) for x in xs]) for y in ys] for xs, ys in zip(positive, negative, strict=True)]
    )
    covariance = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    return v10.mean(1), covariance


@pytest.mark.parametrize("ties", [False, True])
def test_delong_agrees_with_brute_force_and_sklearn(ties):
    labels, scores = cases(25)
    scores = np.round(scores) if ties else scores
    areas, covariance = delong(labels, scores)
    expected, brute = brute_force_delong(labels, scores)
    assert areas == pytest.approx(expected) and covariance == pytest.approx(brute)
    assert areas == pytest.approx([roc_auc_score(labels, row) for row in scores])
    assert auc(labels, scores) == pytest.approx(areas)


def test_delong_by_hand():
    """Two positive and two negative cases: V10 = (1, 1/2), V01 = (1/2, 1), so 3/4 and (1/8)/2 + (1/8)/2."""
    areas, covariance = delong([1, 1, 0, 0], [[4.0, 2.0, 3.0, 1.0]])
    assert areas == pytest.approx([0.75]) and covariance.item() == pytest.approx(0.125)


def test_delong_p_value_by_hand_and_at_its_ends():
    labels, scores = cases()
    areas, covariance = brute_force_delong(labels, scores)
    z = (areas[1] - areas[0]) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    difference, p = delong_test(labels, *scores)
    assert (difference, p) == (pytest.approx(areas[1] - areas[0]), pytest.approx(2 * norm.sf(abs(z))))
    assert delong_test(labels, scores[0], scores[0]) == (0.0, 1.0)
    assert delong_test(labels, scores[0], 3 * scores[0] - 7) == (0.0, 1.0)
    assert delong_test(labels, labels[::-1], labels) == (1.0, 0.0)


def test_delong_p_values_are_uniform_where_there_is_no_difference():
    p = np.array(
        [
            delong_test(*cases(40, (0.8, 0.8), seed)[:1], *cases(40, (0.8, 0.8), seed)[1])[1]
            for seed in range(300)
        ]
    )
    assert 0.02 < (p < 0.05).mean() < 0.09 and 0.4 < (p < 0.5).mean() < 0.6


def test_bootstrap_and_delong_tell_the_same_story():
    labels, scores = cases(100)
    found = compare(labels, *scores)
    areas, covariance = delong(labels, scores)
    deviation = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.difference.value == pytest.approx(areas[1] - areas[0])
    width = found.difference.high - found.difference.low
    assert width == pytest.approx(2 * 1.96 * deviation, rel=0.12)
    assert found.difference.low < found.difference.value < found.difference.high
    assert len(found.p_values) == 1


def test_pairing_narrows_the_interval():
    labels, scores = cases(100, shared=0.95)
    paired = compare(labels, *scores).difference
    of_each = [auc_interval(labels, row) for row in scores]
    assert paired.high - paired.low < 0.6 * np.hypot(*(e.high - e.low for e in of_each))


def test_trainings_widen_the_interval_and_patients_keep_their_images():
    labels, scores = cases(100)
    rng = np.random.default_rng(1)
    seeds = scores[:1] + 1.5 * rng.standard_normal((5, 200))
    one, some = auc_interval(labels, scores[0]), auc_interval(labels, seeds)
    assert some.value == pytest.approx(auc(labels, seeds).mean())
    assert some.low < some.value < some.high
    assert auc_interval(labels, np.repeat(scores[:1], 5, 0)) == one  # the same training five times
    doubled = auc_interval(np.tile(labels, 2), np.tile(scores[0], 2), np.tile(np.arange(200), 2))
    assert doubled.high - doubled.low == pytest.approx(one.high - one.low, rel=0.1)


def test_roc_curve_has_the_area_it_should():
    labels, scores = cases(100)
    grid, curves = roc(labels, scores, points=2001)
    areas = ((curves[:, 1:] + curves[:, :-1]) / 2 * np.diff(grid)).sum(1)
    assert areas == pytest.approx(auc(labels, scores), abs=2e-3)
    assert (curves[:, 0] == 0).all() and (curves[:, -1] == 1).all() and (np.diff(curves) >= 0).all()


@pytest.mark.parametrize(
    "labels, scores, said",
    [
        ([1, 1], [0.1, 0.2], "one class"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "0 and 1"),
        ([0, 1], [0.1], "one score a label"),
        ([0, 1], [0.1, np.nan], "not finite"),
    ],
)
def test_what_has_no_curve_is_named(labels, scores, said):
    with pytest.raises(AucError, match=said):
        auc(labels, scores)


@pytest.mark.filterwarnings("error")
def test_one_case_of_a_class_has_no_p_value():
    difference, p = delong_test([1, 0, 0], [0.2, 0.1, 0.3], [0.4, 0.1, 0.3])
    assert difference == 0.5 and np.isnan(p)
    found = compare([1, 0, 0], [0.2, 0.1, 0.3], [0.4, 0.1, 0.3], resamples=50)
    assert found.difference.value == 0.5 and np.isnan(found.p_values).all()
