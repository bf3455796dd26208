"""Several findings in one picture by AND: how often each is truly there."""

from itertools import combinations

import numpy as np
import pandas as pd

from lib.artefacts import sampled
from lib.concepts import INTENSITY, Concepts
from lib.measures import wilson
from lib.phantoms import draw

_PHANTOM_SEED = 990_004  # of the phantoms that readings are compared with; no data set counts so far
#: way -> the weight of each of m prompts: as the paper's tool does, or sharing the guidance between them
WAYS = {"sum": lambda m: 1.0, "mean": lambda m: 1 / m}


def subsets(findings) -> list[tuple[str, ...]]:
    """None, each finding, each pair, ... all of them."""
    return [c for size in range(len(findings) + 1) for c in combinations(findings, size)]


def pictures(base, concepts: Concepts, n: int, **drawing) -> dict[tuple[str, tuple[str, ...]], np.ndarray]:
    """(way, findings) -> float32 [n, 3, H, W], the same n noises for all.

    Ways: `sum` and `mean` compose the healthy embedding with those of the findings; `alone` draws one
    embedding; `phantom`, where there is a reader, is what the combination truly looks like.
    """
    known = concepts.embeddings
    drawn = {}
    for chosen in subsets(concepts.findings):
        if len(chosen) < 2:
            alone = known[chosen[0] if chosen else concepts.healthy]
            drawn["alone", chosen] = sampled(base, alone, n, **drawing)
        parts = [known[label] for label in (concepts.healthy, *chosen)]
        for way, weight in WAYS.items():
            if chosen:
                what = dict.fromkeys(parts, weight(len(parts)))
                drawn[way, chosen] = sampled(base, what, n, **drawing)
        if concepts.reader and (concepts.name == "chest" or len(chosen) < 2):
            label = "+".join(chosen) or concepts.healthy
            drawn["phantom", chosen] = draw(concepts.name, label, n, _PHANTOM_SEED, base.image_side)[0]
    return drawn


def presence(concepts: Concepts, drawn) -> pd.DataFrame:
    """One row a way, combination and finding: how often it is read, with its Wilson interval.

    asked: whether the combination holds it. Without a reader nothing can be read, and `present` is empty:
    then the mean intensity with its standard error is all there is.
    """
    rows = []
    for (way, chosen), images in drawn.items():
        tone = images.mean((1, 2, 3))
        row = {"dataset": concepts.name, "way": way, "asked_for": "+".join(chosen) or concepts.healthy}
        row |= {"n": len(images), INTENSITY: tone.mean(), "se": tone.std(ddof=1) / np.sqrt(len(tone))}
        found = concepts.reader.present(images) if concepts.reader else {}
        for finding in concepts.findings:
            row |= {"finding": finding, "asked": finding in chosen}
            if finding in found:
                low, high = wilson(found[finding].sum(), len(images))
                row |= {"present": found[finding].mean(), "low": low, "high": high}
            else:
                row |= {"present": np.nan, "low": np.nan, "high": np.nan}
            rows.append(dict(row))
    return pd.DataFrame(rows)


def ratios(table: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How many times as often each finding is there when asked for as when not, one row a way and finding.

    Counts are pooled over combinations. `without` of the composed ways is the healthy embedding alone and
    the combinations without the finding. The interval resamples pictures; half a picture is added to each
    count, so that a finding never seen without being asked for divides by more than nothing. One that is
    seen in no picture at all has no ratio: nan.
    """
    rng, rows = np.random.default_rng(seed), []
    keys = ["dataset", "way", "finding"]
    baseline = table[(table.way == "alone") & ~table.asked & ~table.asked_for.isin(table.finding)]
    for (name, way, finding), part in table.dropna(subset="present").groupby(keys, sort=False):
        if way in WAYS:
            extra = baseline[(baseline.dataset == name) & (baseline.finding == finding)]
            part = pd.concat([part, extra])
        (k1, n1), (k0, n0) = (_pooled(part[part.asked == asked]) for asked in (True, False))
        draws = (rng.binomial(n1, k1 / n1, resamples) + 0.5) / n1 * n0
        draws = draws / (rng.binomial(n0, k0 / n0, resamples) + 0.5)
        low, high = np.quantile(draws, (0.025, 0.975))
        ratio = (k1 + 0.5) / n1 * n0 / (k0 + 0.5)
        if not k1 and not k0:  # what is left would be the ratio of the numbers of pictures
            ratio = low = high = np.nan
        row = {"dataset": name, "way": way, "finding": finding, "n_with": n1, "n_without": n0}
        row |= {"with": k1 / n1, "without": k0 / n0, "ratio": ratio}
        rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def _pooled(part):
    return int(round((part.present * part.n).sum())), int(part.n.sum())
