"""FID, KID, precision, recall, density and coverage: formulas by hand, and what they do to bad pictures."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from lib.features import BaseFeatures, FeatureError, extract, load_extractor
from lib.metrics import (
    METRICS,
    MetricError,
    fid,
    fid_interval,
    fidelity,
    kid,
    kid_interval,
    mean_interval,
    prdc,
)
from lib.phantoms import draw

N = 100


def gaussians(n, d, shift, seed=0, spread=1.0):
    return shift + spread * np.random.default_rng(seed).standard_normal((n, d))


def test_fid_of_two_gaussians_is_the_closed_form():
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)); for diagonal S the last is the sum of (s1 - s2)^2."""
    d, n = 4, 200_000
    one = gaussians(n, d, 0.0, 0) * [1, 2, 3, 4]
    two = gaussians(n, d, [1, 0, 0, 2], 1) * [2, 2, 1, 4] + [0, 0, 0, 0]
    shift = np.array([2, 0, 0, 8.0])  # the shift is scaled with the rest
    expected = (shift**2).sum() + ((np.array([1, 2, 3, 4]) - [2, 2, 1, 4]) ** 2).sum()
    assert fid(one, two) == pytest.approx(expected, rel=0.01)


def test_fid_of_samples_by_hand():
    """In one dimension: (mean difference)^2 + (difference of the deviations)^2."""
    one, two = np.array([[0.0], [2.0], [4.0]]), np.array([[1.0], [5.0], [9.0]])
    assert fid(one, two) == pytest.approx((5 - 2) ** 2 + (4 - 2) ** 2)
    assert fid(one, one) == pytest.approx(0, abs=1e-6)


def test_kid_by_hand():
    """Kernel (x y + 1)^3 in one dimension; pairs of a sample with itself are left out."""
    real, fake = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [0.0], [1.0]])
    within_real = (1 + 1 + 27) / 3  # pairs 01, 02, 12
    within_fake = (1 + 1 + 1) / 3
    between = (1 + 1 + 1 + 1 + 1 + 8 + 1 + 1 + 27) / 9
    assert kid(real, fake) == pytest.approx(within_real + within_fake - 2 * between)


def brute_force_prdc(real, fake, k):
    """Naeem et al. 2020, one loop a definition."""

    def reach(samples, i):
        others = [np.linalg.norm(samples[i] - samples[j]) for j in range(len(samples)) if j != i]
        return sorted(others)[k - 1]

    near = lambda x, samples, i: np.linalg.norm(x - samples[i]) < reach(samples, i)  # noqa: E731
    n, m = len(real), len(fake)
    return {
        "precision": np.mean([any(near(y, real, i) for i in range(n)) for y in fake]),
        "recall": np.mean([any(near(x, fake, j) for j in range(m)) for x in real]),
        "density": np.sum([near(y, real, i) for y in fake for i in range(n)]) / (k * m),
        "coverage": np.mean([any(near(y, real, i) for y in fake) for i in range(n)]),
    }


@pytest.mark.parametrize("k", [1, 3])
def test_prdc_agrees_with_brute_force(k):
    real, fake = gaussians(18, 3, 0.0), gaussians(14, 3, 0.7, 1)
    found = {name: values.mean() for name, values in prdc(real, fake, k).items()}
    assert found == pytest.approx(brute_force_prdc(real, fake, k))


def test_prdc_by_hand():
    """Real 0, 1, 10 and k = 1: balls of 1, 1 and 9. Fake 0.5, 0.6, 30: balls of 0.1, 0.1 and 29.4."""
    found = prdc([[0.0], [1.0], [10.0]], [[0.5], [0.6], [30.0]], k=1)
    assert found["precision"].tolist() == [1, 1, 0] and found["recall"].tolist() == [0, 1, 1]
    assert found["density"].tolist() == [2, 2, 0] and found["coverage"].tolist() == [1, 1, 0]


def test_unequal_sets_give_the_same_kid_each_time():
    real, fake = gaussians(40, 5, 0.0), gaussians(30, 5, 0.5, 1)
    state = torch.random.get_rng_state()
    first = kid(real, fake)
    assert kid(real, fake) == first and torch.equal(torch.random.get_rng_state(), state)
    assert first == pytest.approx(kid(real[:30], fake), abs=0.3)


def coverage_of(interval, statistic, trials=60, n=60, d=6):
    """Share of samples whose interval holds the mean of the statistic over many samples; and how wide the
    intervals are, in those that its deviation over these samples makes."""
    pairs = [(gaussians(n, d, 0.0, 2 * t), gaussians(n, d, 0.4, 2 * t + 1)) for t in range(trials)]
    values, found = [statistic(*pair) for pair in pairs], np.array([interval(*pair) for pair in pairs])
    held = (found[:, 0] <= np.mean(values)) & (np.mean(values) <= found[:, 1])
    return held.mean(), np.diff(found).mean() / (2 * 1.96 * np.std(values))


def test_intervals_hold_the_expected_value_about_as_often_as_they_say():
    """And are no wider than that takes, or nothing would ever be apart."""
    of_kid = coverage_of(lambda a, b: kid_interval(a, b, 300), kid)
    of_fid = coverage_of(lambda a, b: fid_interval(a, b, 15), fid)
    rng = np.random.default_rng(0)
    shares = rng.random((100, 80)) < 0.7
    found = np.array([mean_interval(share, 300) for share in shares])
    held = ((found[:, 0] <= 0.7) & (found[:, 1] >= 0.7)).mean()
    of_mean = held, np.diff(found).mean() / (2 * 1.96 * shares.mean(1).std())
    for held, width in (of_kid, of_fid, of_mean):
        assert held >= 0.85 and 0.7 < width < 1.4, (held, width)


def test_intervals_hold_their_estimate():
    for name, found in fidelity(gaussians(60, 8, 0.0), gaussians(60, 8, 0.5, 1), resamples=300).items():
        assert found.low <= found.value <= found.high and found.low < found.high, name


@pytest.mark.filterwarnings("error")
def test_three_pictures_have_an_interval_too():
    low, high = kid_interval(gaussians(3, 2, 0.0), gaussians(3, 2, 0.5, 1))
    assert np.isfinite([low, high]).all() and low < high


@pytest.mark.parametrize(
    "real, fake, said",
    [
        (np.zeros((5, 2)), np.zeros((5, 3)), "one d"),
        (np.zeros((2, 2)), np.zeros((5, 2)), "at least 3"),
        (np.zeros((3, 2)), np.zeros((5, 2)), "at least 4"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), "not finite"),
    ],
)
def test_sets_that_do_not_compare_are_named(real, fake, said):
    with pytest.raises(MetricError, match=said):
        fidelity(real, fake)


def test_unknown_names_are_told_what_there_is(base, pictures):
    with pytest.raises(MetricError, match="kid, fid"):
        fidelity(np.zeros((5, 2)), np.zeros((5, 2)), only=["lpips"])
    with pytest.raises(FeatureError, match="inception"):
        load_extractor("vgg", base, pictures)


@pytest.fixture(scope="module")
def pictures_of():
    """Tumours, normal nodes and chests [n, 3, 64, 64]."""
    wanted = (("histology", "tumour", 400), ("histology", "normal", 100), ("chest", "healthy", 100))
    return {label: draw(modality, label, n, seed=70)[0] for modality, label, n in wanted}


@pytest.fixture(scope="module")
def extractor(base, pictures_of):
    return load_extractor("base", base, pictures_of["tumour"][:N])


@pytest.fixture(scope="module")
def sets(extractor, pictures_of):
    """degradation -> (features of real pictures, features of fake ones at each strength, 0 first)."""
    tumour, normal = extract(extractor, pictures_of["tumour"][N:]), extract(extractor, pictures_of["normal"])
    real, second = tumour[:N], tumour[N : 2 * N]
    drawn, rng = pictures_of["tumour"][2 * N : 3 * N], np.random.default_rng(0)
    blurred = [np.stack([gaussian_filter(x, (0, s, s)) for x in drawn]) for s in (0.8, 1.6)]
    noisy = [np.clip(drawn + s * rng.standard_normal(drawn.shape), 0, 1) for s in (0.1, 0.2)]
    half = N // 2
    chest = extract(extractor, pictures_of["healthy"])
    two_modes = np.concatenate([real[:half], chest[:half]])
    both = np.concatenate([second[:half], chest[half : 2 * half]])
    return {
        "blur": (real, [second, *(extract(extractor, images) for images in blurred)]),
        "noise": (real, [second, *(extract(extractor, images) for images in noisy)]),
        "mode dropping": (two_modes, [both, second]),
        "repetition": (real, [second, *(second[rng.integers(0, m, N)] for m in (30, 6))]),
        "class swap": (real, [second, np.concatenate([second[:half], normal[:half]]), normal[:N]]),
    }


def values_of(real, fake):
    return {"kid": kid(real, fake), "fid": fid(real, fake)} | {
        name: values.mean() for name, values in prdc(real, fake).items()
    }


@pytest.fixture(scope="module")
def measured(sets):
    """degradation -> metric -> its value at each strength."""
    found = {name: [values_of(real, fake) for fake in fakes] for name, (real, fakes) in sets.items()}
    return {name: {metric: [v[metric] for v in row] for metric in METRICS} for name, row in found.items()}


#: What a metric cannot see: precision and density ask whether each picture could be real, not how many
#: different ones there are; recall asks whether the fake ones spread over the real ones, as normal nodes,
#: which vary more than tumours, do.
BLIND = {(d, m) for d in ("mode dropping", "repetition") for m in ("precision", "density")}
BLIND |= {("class swap", "recall")}
TOLERANCE = {"kid": 0.0, "fid": 0.0}  # of the shares: two pictures in a hundred


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("degradation", ["blur", "noise", "mode dropping", "repetition", "class swap"])
def test_metrics_follow_what_is_wrong(measured, degradation, metric):
    values = measured[degradation][metric]
    if (degradation, metric) in BLIND:
        pytest.skip("blind to it by definition")
    worse = np.diff(values) * (-1 if METRICS[metric] else 1)
    tolerance = TOLERANCE.get(metric, 0.02)
    assert (worse > -tolerance).all() and worse.sum() > 2 * tolerance, values


@pytest.mark.slow
def test_a_second_real_sample_is_at_the_floor(measured, sets):
    real, (second, *_) = sets["blur"]
    floor = fidelity(real, second, resamples=500)
    assert floor["kid"].low < 0 < floor["kid"].high
    assert all(abs(floor["kid"].value) < 0.25 * row["kid"][-1] for row in measured.values())
    assert min(floor[m].value for m in ("precision", "recall", "coverage")) > 0.75
    assert floor["density"].value > 0.75
    # FID has no floor at 0 for so few: halves of one real sample are as far apart as two samples.
    assert floor["fid"].value < 0.8 * min(row["fid"][-1] for row in measured.values())
    assert fid(real[: N // 2], real[N // 2 :]) > floor["fid"].value > 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Metric `Kernel")
def test_torchmetrics_takes_the_extractor_as_it_is(extractor, pictures_of):
    real, fake = (torch.from_numpy(pictures_of[label][:40]) for label in ("tumour", "normal"))
    ours = extract(extractor, real), extract(extractor, fake)
    frechet = FrechetInceptionDistance(feature=extractor)
    kernel = KernelInceptionDistance(feature=extractor, subsets=1, subset_size=40)
    for metric in (frechet, kernel):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    assert float(frechet.compute()) == pytest.approx(fid(*ours), rel=1e-3)
    assert float(kernel.compute()[0]) == pytest.approx(kid(*ours), rel=1e-3)


def test_features_are_the_same_in_any_batch_and_without_the_rest(base, pictures):
    extractor = BaseFeatures(base, pictures)
    together = extract(extractor, pictures)
    assert together.shape == (12, extractor.num_features)
    assert extract(extractor, pictures, batch_size=5) == pytest.approx(together, abs=1e-3)
    assert extract(extractor, pictures[3:4]) == pytest.approx(together[3:4], abs=1e-3)
    assert 0.3 < np.square(together).mean() <= 1  # whitened, the least components shrunk
