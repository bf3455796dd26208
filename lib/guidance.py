"""How the way of drawing changes pictures: guidance, solver and its steps, on embeddings that are there.

Here a reader chooses settings, so pictures are compared with real images of the split val: what is chosen
by them is not chosen on what the other notebooks test on.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from lib.artefacts import sampled, seconds_an_image
from lib.fidelity import Drawing, Judge, Task, embedding_of, rank_correlation, summarise, untrained
from lib.inversion import InversionSettings
from lib.metrics import METRICS
from lib.sweep import sweep
from lib.tasks import token_of

#: What tells one way of drawing from another.
WAY = ["sampler", "guidance", "steps"]
NEAR = 0.05  # of the best KID


def ways(
    reference: Drawing, guidances: Sequence[float], step_counts: Sequence[int], samplers: Sequence[str]
) -> list[Drawing]:
    """The reference; each guidance by each number of steps with its sampler; each sampler by each number of
    steps at its guidance. Each once; the reference's number of steps is one of them."""
    step_counts = sorted({*step_counts, reference.steps})
    grid = [replace(reference, guidance=g, steps=s) for g in guidances for s in step_counts]
    solvers = [replace(reference, sampler=name, steps=s) for name in samplers for s in step_counts]
    return list(dict.fromkeys([reference, *grid, *solvers]))


def way_rows(
    base, task: Task, settings: InversionSettings, drawings: Sequence[Drawing], seeds: Sequence[int]
) -> list[dict]:
    """One row a way of drawing and seed, with the seconds an image took; the floor; the control.

    A seed decides the training and the noise, which is the same for every way. The control draws, the
    first way, with vectors near the vocabulary's mean. settings.vectors are trained on all of task.train.
    """
    judge, rows = Judge(base, task, drawings[0]), []
    shared = {"dataset": task.name, "class": task.label}
    none = {"sampler": "", "guidance": 0.0, "steps": 0, "seed": 0}
    rows.append(shared | {"condition": "real"} | none | judge.judge(task.second.images[: drawings[0].n]))
    shared_by_all = {"task": task, "settings": settings, "vectors": settings.vectors, "n": len(task.train)}
    runs = sweep(base, [partial(embedding_of, **shared_by_all, seed=seed) for seed in seeds], "trainings")
    for seed, run in zip(seeds, runs, strict=True):
        first = untrained(base, replace(settings, token=token_of(task.name, task.label), seed=seed))
        drawn = [("untrained", first, drawings[0]), *(("embedding", run.embedding, way) for way in drawings)]
        for condition, embedding, way in drawn:
            images = sampled(base, embedding, way.n, **way.settings(seed))
            row = shared | {"condition": condition, "seed": seed}
            row |= {name: getattr(way, name) for name in WAY}
            row["seconds_an_image"] = seconds_an_image(base, embedding, way.n, **way.settings(seed))
            rows.append(row | judge.judge(images))
    return rows


def like(rows: pd.DataFrame, reference: Drawing, *free: str) -> pd.DataFrame:
    """The rows drawn as the reference is but for those of WAY in `free`, with floor and control."""
    fixed = [name for name in WAY if name not in free]
    same = pd.concat([rows[name] == getattr(reference, name) for name in fixed], axis=1).all(axis=1)
    return rows[same | (rows.condition != "embedding")]


def low_or_high(rows: pd.DataFrame, low: float) -> pd.DataFrame:
    """Which guidance scale is better, `low` or the highest? One row a data set and metric.

    rows: `like(rows, reference, "guidance")`. at_low, at_high: means over seeds; better: "low" or "high"
    where their 95 % intervals (as in lib.fidelity.summarise) do not meet, else "not apart"; best: the scale
    of the best mean; rho: rank correlation of metric and scale over all trainings, from `low` on. low_from,
    low_to, high_from, high_to: the intervals.
    """
    table, summary = [], summarise(rows, "guidance")
    for name, part in summary.groupby("dataset", sort=False):
        scales = part[part.condition == "embedding"].set_index("guidance").sort_index()
        runs = rows[(rows.dataset == name) & (rows.condition == "embedding") & (rows.guidance >= low)]
        floor, control = (part[part.condition == c].iloc[0] for c in ("real", "untrained"))
        one, other = scales.loc[low], scales.iloc[-1]
        for metric, more in METRICS.items():
            better = "not apart"
            for which, this, that in (("low", one, other), ("high", other, one)):
                above, below = (this, that) if more else (that, this)
                if above[f"{metric}_low"] > below[f"{metric}_high"]:
                    better = which
            row = {"dataset": name, "metric": metric, "low": low, "high": scales.index[-1]}
            row |= {"at_low": one[metric], "at_high": other[metric], "better": better}
            for which, end in (("low", one), ("high", other)):
                row |= {f"{which}_from": end[f"{metric}_low"], f"{which}_to": end[f"{metric}_high"]}
            row |= {"best": scales[metric].idxmax() if more else scales[metric].idxmin()}
            row |= {"rho": rank_correlation(runs.guidance, runs[metric])}
            row |= {"floor": floor[metric], "untrained": control[metric], "seeds": int(one.seeds)}
            table.append(row | {"n_real": int(one.n_real), "n_fake": int(one.n_fake)})
    return pd.DataFrame(table)


def frontier(rows: pd.DataFrame) -> pd.DataFrame:
    """The ways that no other one beats in both time and KID, the fastest first; means over seeds.

    One row a data set and way: seconds an image, KID and its interval over pictures (the mean of the
    seeds' bounds), precision and coverage; near_best: whether KID is within NEAR of the best one. The first
    of these is the fastest of all ways that come so near.
    """
    drawn = rows[rows.condition == "embedding"]
    shown = ["seconds_an_image", "kid", "kid_low", "kid_high", "precision", "coverage"]
    table = []
    for name, part in drawn.groupby("dataset", sort=False):
        means = part.groupby(WAY, as_index=False)[shown].mean().assign(seeds=part.seed.nunique())
        means = means.sort_values(["seconds_an_image", "kid"])
        best = means[means.kid < means.kid.cummin().shift(fill_value=float("inf"))]
        best = best.assign(near_best=best.kid <= best.kid.min() + NEAR * abs(best.kid.min()))
        table.append(best.assign(n_real=part.n_real.iloc[0], n_fake=part.n_fake.iloc[0], dataset=name))
    found = pd.concat(table, ignore_index=True)
    return found[["dataset", *WAY, *shown, "near_best", "seeds", "n_real", "n_fake"]]
