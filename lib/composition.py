"""Several findings in one picture by AND: how often each is truly there."""

from itertools import combinations

import numpy as np
import pandas as pd

from lib.artefacts import sampled
from lib.concepts import INTENSITY, ConceptError, Concepts, emphasised
from lib.measures import wilson
from lib.phantoms import draw
from lib.tasks import learned_classes

MOST_FINDINGS = 5  # whose combinations are all drawn, in three ways
_PHANTOM_SEED = 990_004  # of the phantoms that readings are compared with; no data set counts so far
#: way -> the weights of healthy and the findings: 1 each, as the paper's tool has it, 1 shared between them,
#: or healthy and the findings' differences from it
WAYS = {
    "sum": lambda parts, emphasis: dict.fromkeys(parts, 1.0),
    "mean": lambda parts, emphasis: dict.fromkeys(parts, 1 / len(parts)),
    "difference": lambda parts, emphasis: emphasised(parts[0], parts[1:], emphasis),
}


def check_findings(dataset: str | None) -> None:
    """Raises ConceptError for a data set of more findings than are combined, before any is learned."""
    if dataset is not None:
        subsets(learned_classes(dataset)[1:])


def subsets(findings) -> list[tuple[str, ...]]:
    """None, each finding, each pair, ... all of them. Raises ConceptError for more than MOST_FINDINGS."""
    if len(findings) > MOST_FINDINGS:
        raise ConceptError(
            f"{len(findings)} findings ({', '.join(findings[:3])}, ...) have {2 ** len(findings)} "
            f"combinations: name a data set of at most {MOST_FINDINGS} beside the healthy "
            "class (of an archive: ?classes=)"
        )
    return [c for size in range(len(findings) + 1) for c in combinations(findings, size)]


def pictures(
    base, concepts: Concepts, n: int, emphasis: float, **drawing
) -> dict[tuple[str, tuple[str, ...]], np.ndarray]:
    """(way, findings) -> float32 [n, 3, H, W], the same n noises for all.

    Ways: those of WAYS compose the healthy embedding with those of the findings, `difference` by `emphasis`
    times what tells each from it; `alone` draws one embedding; `phantom`, where there is a reader, is what
    the combination truly looks like. Of a single finding, no findings is the healthy embedding with as much
    weight as the way gives both, which is as much guidance.
    """
    known = concepts.embeddings
    drawn = {}
    for chosen in subsets(concepts.findings):
        if len(chosen) < 2:
            alone = known[chosen[0] if chosen else concepts.healthy]
            drawn["alone", chosen] = sampled(base, alone, n, **drawing)
        if concepts.reader and (concepts.name == "chest" or len(chosen) < 2):
            label = "+".join(chosen) or concepts.healthy
            drawn["phantom", chosen] = draw(concepts.name, label, n, _PHANTOM_SEED, base.image_side)[0]
        parts = [known[label] for label in (concepts.healthy, *chosen)]
        for way, weights in WAYS.items():
            if chosen:
                drawn[way, chosen] = sampled(base, weights(parts, emphasis), n, **drawing)
            elif len(concepts.findings) == 1:
                weight = sum(weights([*parts, known[concepts.findings[0]]], emphasis).values())
                drawn[way, chosen] = sampled(base, {parts[0]: weight}, n, **drawing)
    return drawn


def readings(concepts: Concepts, drawn) -> dict[tuple[str, tuple[str, ...]], dict[str, np.ndarray]]:
    """(way, findings) -> finding -> bool [n], whether it is read in each picture; none without a reader."""
    if concepts.reader is None:
        return {}
    return {key: concepts.reader.present(images) for key, images in drawn.items()}


def presence(concepts: Concepts, drawn, found) -> pd.DataFrame:
    """One row a way, combination and finding: how often it is read, with its Wilson interval.

    found: of `readings`. asked: whether the combination holds it. Without a reader nothing can be read, and
    `present` is empty: then the mean intensity with its standard error is all there is.
    """
    rows = []
    for (way, chosen), images in drawn.items():
        tone = images.mean((1, 2, 3))
        row = {"dataset": concepts.name, "way": way, "asked_for": "+".join(chosen) or concepts.healthy}
        row |= {"n": len(images), INTENSITY: tone.mean(), "se": tone.std(ddof=1) / np.sqrt(len(tone))}
        read = found.get((way, chosen), {})
        for finding in concepts.findings:
            row |= {"finding": finding, "asked": finding in chosen}
            if finding in read:
                low, high = wilson(read[finding].sum(), len(images))
                row |= {"present": read[finding].mean(), "low": low, "high": high}
            else:
                row |= {"present": np.nan, "low": np.nan, "high": np.nan}
            rows.append(dict(row))
    return pd.DataFrame(rows)


def together(name: str, found) -> pd.DataFrame:
    """How often all findings of a combination of several are there at once, one row a way and combination.

    found: of `readings`, of the data set `name`. together: the share of pictures, with its Wilson interval;
    unasked: the same of the healthy embedding alone, whose pictures should show none.
    """
    rows = []
    for (way, chosen), read in found.items():
        if len(chosen) < 2:
            continue
        both, unasked = (np.all([of[f] for f in chosen], axis=0) for of in (read, found["alone", ()]))
        low, high = wilson(both.sum(), len(both))
        row = {"dataset": name, "way": way, "asked_for": "+".join(chosen), "n": len(both)}
        rows.append(row | {"together": both.mean(), "low": low, "high": high, "unasked": unasked.mean()})
    return pd.DataFrame(rows)


def ratios(name: str, found, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How many times as often each finding is there when asked for as when not, one row a way and finding.

    found: of `readings`, of the data set `name`. Combinations with the finding are compared with those of as
    many others, a mean over these numbers, since more terms alone make more of whatever a reader sees; a
    finding that has no such company is compared with the healthy embedding, at as much guidance. Half a
    picture is added to each count, so that a finding never seen without being asked for divides by more than
    nothing; one that is seen in no picture at all has no ratio: nan. The interval is that of two independent
    shares (Jeffreys); since combinations share their noises, each counts as the fewer independent pictures
    that its variance over noises comes to (Korn and Graubard 1998). Where none or all show a finding, nothing
    tells how alike combinations are, and they count as one.
    """
    rng, rows = np.random.default_rng(seed), []
    for way in dict.fromkeys(way for way, _ in found):
        combinations = {chosen: read for (of, chosen), read in found.items() if of == way}
        if way in WAYS:
            combinations = {(): found["alone", ()]} | combinations
        for finding in dict.fromkeys(f for read in combinations.values() for f in read):
            parts = _matched(combinations, finding)
            (k1, n1), (k0, n0) = (((weights @ seen).mean() * seen.size, seen.size) for seen, weights in parts)
            ratio = (k1 + 0.5) / n1 * n0 / (k0 + 0.5)
            draws = [_shares(*part, rng, resamples) for part in parts]
            low, high = np.quantile(draws[0] / draws[1], (0.025, 0.975))
            if not k1 and not k0:  # what is left would be the ratio of the numbers of pictures
                ratio = low = high = np.nan
            row = {"dataset": name, "way": way, "finding": finding, "n_with": n1, "n_without": n0}
            row |= {"with": k1 / n1, "without": k0 / n0, "ratio": ratio}
            rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def _matched(combinations, finding):
    """What is read of the finding with it and without, each as bool [combinations, noises] and weights."""
    sides = [[chosen for chosen in combinations if (finding in chosen) == asked] for asked in (True, False)]
    shared = set.intersection(*({len(chosen) for chosen in side} for side in sides))
    if shared:
        sides = [[chosen for chosen in side if len(chosen) in shared] for side in sides]
    parts = []
    for side in sides:
        sizes = [len(chosen) if shared else 0 for chosen in side]
        weights = np.array([1 / sizes.count(size) for size in sizes])
        parts.append((np.stack([combinations[chosen][finding] for chosen in side]), weights / weights.sum()))
    return parts


def _shares(present, weights, rng, resamples):
    """Draws of a weighted share, of what is seen in pictures [combinations, noises]."""
    noises = weights @ present
    share, size, effect = noises.mean(), present.size, len(present)
    if 0 < share < 1:
        effect = max(1.0, noises.var(ddof=1) / len(noises) * size / (share * (1 - share)))
    seen, size = share * size / effect, size / effect
    return rng.beta(seen + 0.5, size - seen + 0.5, resamples)
