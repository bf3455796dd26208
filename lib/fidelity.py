"""How close to real images an embedding draws: one row a training, with floors and a control.

Every row compares pictures with the same real test images, which no training has seen: those of an
embedding, a second real sample (the floor), and those of vectors that were never trained (the control).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr, t

from lib.artefacts import SEEING, remembered, sampled, trained
from lib.config import digest
from lib.datasets import load_images, of_splits, splits
from lib.embedding import Embedding
from lib.features import extract, load_extractor
from lib.imagesets import DatasetError, ImageSet
from lib.inversion import InversionSettings
from lib.metrics import METRICS, fidelity
from lib.phantoms import MODALITIES
from lib.starts import initial_vectors
from lib.sweep import sweep
from lib.tasks import learned_classes, name_of, token_of

LEAST = 4  # images that can be compared with: of fewer FID has no interval
_CODE = ("lib.features", "lib.metrics", "lib.fidelity", *SEEING)


@dataclass(frozen=True)
class Task:
    """One class of one data set: what is trained on, and real images that no training sees.

    real is what everything is compared with, second a sample as large: the floor.
    """

    name: str
    label: str
    train: ImageSet
    real: ImageSet
    second: ImageSet


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn from an embedding, and what they are compared by (lib.features)."""

    n: int
    guidance: float
    steps: int
    sampler: str = "ddim"
    features: str = "base"

    def settings(self, seed: int) -> dict:
        """What `sampled` takes: each training draws with noise of its own, alike under every condition."""
        return {
            "guidance": self.guidance,
            "steps": self.steps,
            "sampler": self.sampler,
            "seed": seed * 100_000,
        }


def tasks(
    dataset: str | None, n_train: int, n_real: int, side: int, seed: int, split: str = "test"
) -> Iterator[Task]:
    """The last class of each data set: the diseased one of the phantoms.

    n_real images of `split` are compared with, or half of the user's where these are fewer than twice that;
    the user's training images are n_train at most. Where half of that split is less than LEAST, what
    the other held-out split has comes to it.
    split "val": for what a reader may choose by; of a data set without one, those of test.
    Raises DatasetError where no split but train has images enough.
    """
    for spec in [f"phantom:{m}" for m in MODALITIES] if dataset is None else [dataset]:
        label = learned_classes(spec)[-1]
        test = _held_out(spec, 2 * n_real, split, side, seed, label)
        train = load_images(spec, n_train, "train", side, seed, label, fewer=True)
        yield Task(name_of(spec), label, train, *_halves(test))


def _held_out(spec, n, split, side, seed, label):
    """At most n images of `split`, with those of the other held-out one where they are too few to halve."""
    found, there = None, splits(spec)
    names = sorted({"val", "test"} & {*there}, key=lambda name: name != split)
    for more in of_splits(spec, n, names, side, seed, label):
        found = more if found is None else found.joined(more)
        if min(map(len, _halves(found))) >= LEAST:
            return found
    n = 0 if found is None else len(found)
    raise DatasetError(
        f"{spec}: {n} images of class {label!r} outside split train: what is drawn is compared with two "
        f"samples of at least {LEAST} that share no patient: add images, or a folder test"
    )


def _halves(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Two parts as large as each other that share no patient, in the order of the images."""
    patients, _ = pd.factorize(np.array(images.patients))
    cut = max(1, (np.bincount(patients).cumsum() <= len(images) // 2).sum())
    rows = np.flatnonzero(patients < cut), np.flatnonzero(patients >= cut)
    n = min(map(len, rows))
    return tuple(images.subset(part[:n]) for part in rows)


class Judge:
    """Compares pictures with a task's real images; the extractor is made when it is first needed."""

    def __init__(self, base, task: Task, drawing: Drawing):
        self.task = task
        self._base, self._name = base, drawing.features
        self._extractor, self._real = None, None

    def features(self, images) -> np.ndarray:
        """float64 [n, d], scaled by the training images."""
        if self._extractor is None:
            self._extractor = load_extractor(self._name, self._base, self.task.train)
        return extract(self._extractor, images)

    def judge(self, images: np.ndarray) -> dict[str, float]:
        """n_real, n_fake, and each metric with its interval: kid, kid_low, kid_high, ..."""
        key = {
            "base": self._base.digest,
            "features": self._name,
            "scale": self.task.train.digest,
            "real": self.task.real.digest,
            "images": digest(np.asarray(images)),
        }
        return remembered("fidelity", key, _CODE, lambda: self._judge(images))

    def _judge(self, images):
        if self._real is None:
            self._real = self.features(self.task.real)
        row = {"n_real": len(self._real), "n_fake": len(images)}
        k = max(1, min(5, len(self._real) - 1, len(images) - 1))
        for metric, found in fidelity(self._real, self.features(images), k).items():
            row |= {metric: found.value, f"{metric}_low": found.low, f"{metric}_high": found.high}
        return row


def fidelity_rows(
    base,
    task: Task,
    settings: InversionSettings,
    drawing: Drawing,
    conditions: Sequence[tuple[int, int]],
    seeds: Sequence[int],
) -> list[dict]:
    """One row a condition (K vectors, n training images) and seed, and those of the floor and the control.

    A seed decides the first vectors, the order of training, which n of the training images are used, and
    the noise that pictures are drawn from. The control is `untrained` from each seed, at the largest K.
    """
    largest, calls = max(k for k, _ in conditions), [partial(_floor_row, task=task, drawing=drawing)]
    for seed in seeds:
        chosen = replace(settings, token=token_of(task.name, task.label), seed=seed)
        shared = {"task": task, "settings": chosen, "drawing": drawing}
        calls.append(partial(_control_row, **shared, vectors=largest))
        calls += [partial(_embedding_row, **shared, vectors=k, n=n) for k, n in conditions]
    return sweep(base, calls, f"{task.name}, {task.label}: trainings")


def _floor_row(base, task, drawing):
    row = {"dataset": task.name, "class": task.label, "condition": "real", "vectors": 0}
    row |= {"n_train": 0, "seed": 0}
    return row | Judge(base, task, drawing).judge(task.second.images[: drawing.n])  # FID compares at one n


def _control_row(base, task, settings, drawing, vectors):
    first = untrained(base, replace(settings, vectors=vectors))
    images = sampled(base, first, drawing.n, **drawing.settings(settings.seed))
    row = {"dataset": task.name, "class": task.label, "condition": "untrained", "vectors": vectors}
    return row | {"n_train": 0, "seed": settings.seed} | Judge(base, task, drawing).judge(images)


def _embedding_row(base, task, settings, drawing, vectors, n):
    run = embedding_of(base, task, settings, vectors, n, settings.seed)
    images = sampled(base, run.embedding, drawing.n, **drawing.settings(settings.seed))
    row = {"dataset": task.name, "class": task.label, "condition": "embedding", "vectors": vectors}
    row |= {"n_train": n, "seed": settings.seed, "steps": settings.steps, "seconds": run.seconds}
    return row | Judge(base, task, drawing).judge(images)


def embedding_of(base, task: Task, settings: InversionSettings, vectors: int, n: int, seed: int):
    """The training of one condition, from `lib.artefacts.trained`."""
    images = task.train.subset(chosen_images(len(task.train), n, seed))
    chosen = replace(settings, token=token_of(task.name, task.label), vectors=vectors, seed=seed)
    return trained(base, images, chosen, text=f"{task.name}, K = {vectors}, n = {n}, seed {seed}")


def chosen_images(total: int, n: int, seed: int) -> np.ndarray:
    """Which n of `total` images, in order; all of them for n = total. Fewer are part of more."""
    return np.sort(np.random.default_rng([seed, 40]).permutation(total)[: min(n, total)])


def untrained(base, settings: InversionSettings) -> Embedding:
    """Vectors that were never trained, draws or the phrase of `init`: what must draw no modality."""
    return Embedding(initial_vectors(base, settings), settings.token)


def nearest(judge: Judge, images: np.ndarray) -> np.ndarray:
    """The training image that lies nearest to each of `images`, by the features; [n, 3, H, W]."""
    apart = cdist(judge.features(images), judge.features(judge.task.train))
    return judge.task.train.images[apart.argmin(1)]


def summarise(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Mean of each metric over seeds with its 95 % interval, one row a data set, condition and value of `by`.

    The interval is Student's t over seeds where there are three; else that of the pictures of one seed.
    """
    table = []
    for (name, label, condition, value), part in rows.groupby(
        ["dataset", "class", "condition", by], sort=False
    ):
        row = {"dataset": name, "class": label, "condition": condition, by: value, "seeds": len(part)}
        row |= {"n_real": part.n_real.iloc[0], "n_fake": part.n_fake.iloc[0]}
        for metric in METRICS:
            mean, n = part[metric].mean(), len(part)
            low, high = part[f"{metric}_low"].mean(), part[f"{metric}_high"].mean()
            if n >= 3:
                reach = t.ppf(0.975, n - 1) * part[metric].std() / np.sqrt(n)
                low, high = mean - reach, mean + reach
            row |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
        table.append(row)
    return pd.DataFrame(table)


def trend(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Does each metric follow `by`? One row a data set and metric.

    rho: Spearman's over all trainings. first, last: means at the least (from) and the largest (to) value of
    `by`; apart: whether their intervals (as in `summarise`) do not meet; closed: how much of the way from the
    untrained vectors to the floor the last one goes; nan where these two are equal. first_low, ... are the
    ends of the intervals.
    """
    table, summary = [], summarise(rows, by)
    for name, part in summary.groupby("dataset", sort=False):
        runs = rows[(rows.dataset == name) & (rows.condition == "embedding")]
        steps = part[part.condition == "embedding"].sort_values(by)
        first, last = steps.iloc[0], steps.iloc[-1]
        floor, control = (part[part.condition == c].iloc[0] for c in ("real", "untrained"))
        for metric, more in METRICS.items():
            lows, highs = ([end[f"{metric}_{side}"] for end in (first, last)] for side in ("low", "high"))
            whole = control[metric] - floor[metric]
            table.append(
                {
                    "dataset": name,
                    "metric": metric,
                    "better": "higher" if more else "lower",
                    "seeds": int(first.seeds),
                    "rho": rank_correlation(runs[by], runs[metric]),
                    "from": int(first[by]),
                    "to": int(last[by]),
                    "first": first[metric],
                    "last": last[metric],
                    "untrained": control[metric],
                    "floor": floor[metric],
                    "apart": bool(max(lows) > min(highs)),
                    **{f"first_{side}": first[f"{metric}_{side}"] for side in ("low", "high")},
                    **{f"last_{side}": last[f"{metric}_{side}"] for side in ("low", "high")},
                    "n_real": int(last.n_real),
                    "n_fake": int(last.n_fake),
                    "closed": (control[metric] - last[metric]) / whole if whole else np.nan,
                }
            )
    return pd.DataFrame(table)


def rank_correlation(x: pd.Series, y: pd.Series) -> float:
    """Spearman's rho; nan where one of both is constant."""
    return float(spearmanr(x, y).statistic) if min(x.nunique(), y.nunique()) > 1 else np.nan
