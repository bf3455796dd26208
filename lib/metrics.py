"""How far one set of pictures is from another: FID, KID, precision, recall, density, coverage.

Pure functions of features [n, d] (lib.features makes them from pictures). No number stands alone: each
comes with a 95 % interval, and `fidelity` measures a second real sample beside the generated one.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.stats import bootstrap, norm
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from lib.errors import UserError

#: metric -> whether more of it is better
METRICS = {
    "kid": False,
    "fid": False,
    "precision": True,
    "recall": True,
    "density": True,
    "coverage": True,
}
_SUBSETS = 100  # of KID where the two sets are not equally large


class MetricError(UserError):
    """Sets that cannot be compared."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class _Ready(torch.nn.Module):
    """The extractor that torchmetrics is given: what it gets are features already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features):
        return features


def fid(real, fake) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features (Heusel et al. 2017), by torchmetrics.

    Biased upwards in small sets (Chong & Forsyth 2020, arXiv 1911.07023): compare only sets of equal size,
    with the value of two real sets beside them.
    """
    real, fake = _pair(real, fake)
    metric = FrechetInceptionDistance(feature=_Ready(real.shape[1]))
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(fake), real=False)
    # Where covariances are singular, rounding can leave a hair below 0.
    return max(float(metric.compute()), 0.0)


def kid(real, fake, seed: int = 0) -> float:
    """Squared maximum mean discrepancy under (x.y / d + 1)^3 (Binkowski et al. 2018), by torchmetrics.

    Unbiased, so two samples of one population score 0 on average, now and then less. All pairs are used
    where the sets are equally large; else the mean over random subsets of the smaller one's size.
    """
    real, fake = _pair(real, fake)
    size = min(len(real), len(fake))
    subsets = 1 if len(real) == len(fake) else _SUBSETS
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features")
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(feature=_Ready(real.shape[1]), subsets=subsets, subset_size=size)
        metric.update(torch.from_numpy(real), real=True)
        metric.update(torch.from_numpy(fake), real=False)
        return float(metric.compute()[0])


def prdc(real, fake, k: int = 5) -> dict[str, np.ndarray]:
    """Per picture, what precision, recall, density and coverage are the means of.

    Around each sample lies a ball that reaches its k-th nearest neighbour in its own set, itself not
    counted. precision [fake]: lies in a ball of a real one; recall [real]: lies in a ball of a fake one
    (Kynkaanniemi et al. 2019, arXiv 1904.06991). density [fake]: number of real balls it lies in, over k,
    and so beyond 1 at times; coverage [real]: its own ball holds a fake one (Naeem et al. 2020,
    arXiv 2002.09797).
    """
    real, fake = _pair(real, fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise MetricError(f"k = {k}: from 1 to {min(len(real), len(fake)) - 1} for sets of this size")
    real_reach, fake_reach = _reach(real, k), _reach(fake, k)
    apart = cdist(real, fake)
    in_real = apart < real_reach[:, None]
    return {
        "precision": in_real.any(0).astype(float),
        "recall": (apart < fake_reach[None]).any(1).astype(float),
        "density": in_real.sum(0) / k,
        "coverage": (apart.min(1) < real_reach).astype(float),
    }


def _reach(samples, k):
    """Distance to the k-th nearest neighbour within the set."""
    return np.partition(cdist(samples, samples), k, axis=1)[:, k]


def fid_interval(real, fake, groups: int = 20) -> tuple[float, float]:
    """95 % interval of `fid` by the delete-a-group jackknife, both sets being cut into `groups`.

    Not by the bootstrap: a resample holds fewer distinct pictures, whose fitted Gaussians are further
    apart, so that every replicate lies above the estimate.
    """
    real, fake = _narrowed(*_pair(real, fake, least=4))  # each picture is left out once
    groups = min(groups, len(real), len(fake))
    value, variance = fid(real, fake), 0.0
    for left, statistic in ((real, lambda part: fid(part, fake)), (fake, lambda part: fid(real, part))):
        without = [statistic(left[np.arange(len(left)) % groups != g]) for g in range(groups)]
        variance += (groups - 1) / groups * np.sum((np.array(without) - np.mean(without)) ** 2)
    reach = norm.ppf(0.975) * np.sqrt(variance)
    return max(value - reach, 0.0), value + reach


def _narrowed(real, fake):
    """Both in the coordinates of the space that they span, which has fewer than there are pictures: distances
    and FID stay as they are, and a square root of 2048 x 2048 is not taken forty times.
    """
    both = np.concatenate([real, fake])
    if both.shape[1] < len(both):
        return real, fake
    axes = np.linalg.svd(both - both.mean(0), full_matrices=False)[2]
    return real @ axes.T, fake @ axes.T


def kid_interval(real, fake, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of `kid`, both sets resampled.

    Ours, since scipy's would count a picture drawn twice as a pair of equal ones, of which the unbiased
    estimate knows none. Here a resample is a vector of counts, and a picture is never paired with itself.
    """
    real, fake = _pair(real, fake)
    rng = np.random.default_rng(seed)
    within_real, within_fake, between = (_kernel(a, b) for a, b in ((real, real), (fake, fake), (real, fake)))
    np.fill_diagonal(within_real, 0)
    np.fill_diagonal(within_fake, 0)
    n, m = len(real), len(fake)
    a = rng.multinomial(n, np.full(n, 1 / n), resamples).astype(float)
    b = rng.multinomial(m, np.full(m, 1 / m), resamples).astype(float)
    pairs_real, pairs_fake = n * n - (a * a).sum(1), m * m - (b * b).sum(1)
    some = (pairs_real > 0) & (pairs_fake > 0)  # of three pictures, one may be drawn three times
    a, b, pairs_real, pairs_fake = a[some], b[some], pairs_real[some], pairs_fake[some]
    values = (
        np.einsum("ri,ri->r", a @ within_real, a) / pairs_real
        + np.einsum("ri,ri->r", b @ within_fake, b) / pairs_fake
        - 2 * np.einsum("ri,ri->r", a @ between, b) / (n * m)
    )
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _kernel(a, b):
    return (a @ b.T / a.shape[1] + 1) ** 3


def mean_interval(values, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean, by scipy."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return np.nan, np.nan
    if np.ptp(values) == 0:  # every resample is alike
        return float(values[0]), float(values[0])
    rng = np.random.default_rng(seed)
    found = bootstrap((values,), np.mean, n_resamples=resamples, method="percentile", rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def fidelity(
    real, fake, k: int = 5, seed: int = 0, resamples: int = 1000, only: Sequence[str] | None = None
) -> dict[str, Estimate]:
    """Every metric of METRICS (or those in `only`) of features fake [m, d] against real [n, d].

    Intervals are over the pictures of these two sets, not over trainings; those of precision, recall,
    density and coverage take the balls as given. Raises MetricError.
    """
    wanted = list(METRICS) if only is None else list(only)
    if unknown := [name for name in wanted if name not in METRICS]:
        raise MetricError(f"no metric {unknown[0]!r}: there are {', '.join(METRICS)}")
    found: dict[str, Estimate] = {}
    if "kid" in wanted:
        found["kid"] = Estimate(kid(real, fake, seed), *kid_interval(real, fake, resamples, seed))
    if "fid" in wanted:
        found["fid"] = Estimate(fid(real, fake), *fid_interval(real, fake))
    if set(wanted) - {"kid", "fid"}:
        for name, values in prdc(real, fake, k).items():
            found[name] = Estimate(float(values.mean()), *mean_interval(values, resamples, seed))
    return {name: found[name] for name in wanted}


def _pair(real, fake, least: int = 3) -> tuple[np.ndarray, np.ndarray]:
    real, fake = (np.asarray(part, np.float64) for part in (real, fake))
    few = min(len(real), len(fake)) < least
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or few:
        wanted = f"two arrays [n, d] of one d, n at least {least}"
        raise MetricError(f"features {real.shape} and {fake.shape}: {wanted}")
    if not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise MetricError("features that are not finite: the pictures hold nan, or the base overflowed")
    return real, fake
