"""Do synthetic images help a classifier? The paper's table, how the gain depends on numbers, the controls.

Synthetic images for n real ones come from embeddings that were trained on those n and no others, so that
each row knows as many patients as it says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from lib.artefacts import sampled, trained_all
from lib.auc import auc, auc_interval
from lib.classify import Cases, ClassifierSettings, ClassifyError, diagnose
from lib.cohorts import Cohort
from lib.denoising import image_losses
from lib.embedding import Embedding
from lib.fidelity import LEAST, Drawing, Judge, Task, chosen_images
from lib.gap import floor_losses
from lib.inversion import InversionSettings
from lib.metrics import METRICS
from lib.sweep import sweep

REAL, BOTH, HALVES, SYNTHETIC, FEW, SHUFFLED = (
    "real",
    "real + synthetic",
    "real + synthetic, halves",
    "synthetic",
    "synthetic, few",
    "shuffled labels",
)


@dataclass(frozen=True)
class Condition:
    """What a classifier is trained on: numbers of cases, half of each class.

    embedding_images: of each class, 0 without synthetic cases; in_table: a row of the paper's table, or its
    control.
    """

    kind: str
    n_real: int
    n_synthetic: int
    embedding_images: int
    in_table: bool = False


@dataclass(frozen=True)
class Plan:
    """What is compared, and from which seeds; a training of seed i uses the embeddings of i, in turn.

    reals, synthetics   even numbers of cases; the largest of each make the paper's table
    few                 images a class of the last row of that table; None leaves it out

    Raises ClassifyError for numbers that are odd or all 0, and without a seed.
    """

    reals: Sequence[int]
    synthetics: Sequence[int]
    few: int | None
    seeds: Sequence[int]
    embedding_seeds: Sequence[int]

    def __post_init__(self):
        for name in ("reals", "synthetics"):
            numbers = getattr(self, name)
            if not numbers or max(numbers) < 2 or min(numbers) < 0 or any(n % 2 for n in numbers):
                raise ClassifyError(f"{name} = {list(numbers)}: even numbers of cases, one of them not 0")
        if not self.seeds or not self.embedding_seeds:
            raise ClassifyError("seeds, embedding_seeds: at least one of each")

    @property
    def most(self) -> int:
        """Synthetic cases of the paper's table."""
        return max(self.synthetics)

    def conditions(self, available: int) -> list[Condition]:
        """The table's rows, its control, then the other numbers; no more real cases than `available`."""
        reals = sorted({min(n, available) for n in self.reals if n})
        full = reals[-1]
        table = [
            (REAL, full, 0, 0),
            (BOTH, full, self.most, full // 2),
            (HALVES, full, self.most, full // 2),
            (SYNTHETIC, 0, self.most, full // 2),
            *([(FEW, 0, self.most, min(self.few, full // 2))] if self.few else []),
            (SHUFFLED, full, 0, 0),
        ]
        fewer = [Condition(BOTH, full, n, full // 2) for n in sorted(self.synthetics) if 0 < n < self.most]
        for n in reals[:-1]:
            fewer += [Condition(REAL, n, 0, 0), Condition(BOTH, n, self.most, n // 2)]
        return [*(Condition(*row, in_table=True) for row in table), *fewer]


@dataclass(frozen=True, eq=False)
class Outcome:
    """One condition of one cohort: one row a training, and the scores [seeds, n] of its test cases."""

    cohort: Cohort
    condition: Condition
    rows: list[dict]
    scores: np.ndarray

    @property
    def naming(self) -> dict:
        """What every table says of it."""
        return {"dataset": self.cohort.name, "class": self.cohort.labels[1]} | vars(self.condition)


@dataclass(frozen=True)
class Synthesis:
    """How synthetic images are made; `drawing.n` is not used."""

    settings: InversionSettings
    drawing: Drawing

    def cases(self, base, cohort: Cohort, n_images: int, n: int, seed: int) -> Cases:
        """n synthetic cases, half of each class, from embeddings of n_images a class."""
        return Cases.of(*(self.pictures(base, cohort, i, n_images, n // 2, seed) for i in (0, 1)))

    def pictures(self, base, cohort: Cohort, which: int, n_images: int, n: int, seed: int) -> np.ndarray:
        """float32 [n, 3, H, W] of the healthy (0) or the diseased class (1).

        `seed` decides the training, which n_images it has, and the noise. Fewer pictures are part of more.
        """
        way = self.drawing.settings(seed)
        way["seed"] += 50_000 * which  # the classes share no noise
        return sampled(base, self.embeddings(base, cohort, n_images, seed)[which], n, **way)

    def embeddings(self, base, cohort: Cohort, n_images: int, seed: int) -> tuple[Embedding, Embedding]:
        """Those of n_images of the healthy and of the diseased class, trained from `seed`."""
        whole = n_images >= max(len(images) for images in cohort.train)
        parts = [
            (name, label, images.subset(chosen_images(len(images), n_images, seed)), held)
            for name, label, images, held in (cohort.parts if whole else cohort.pair)
        ]  # of the whole, every class, as in 02: what is there is read
        runs = trained_all(base, parts, replace(self.settings, seed=seed))
        return runs[0].embedding, runs[-1].embedding


def outcomes(
    base,
    cohort: Cohort,
    synthesis: Synthesis,
    plan: Plan,
    settings: ClassifierSettings,
) -> list[Outcome]:
    """Every condition of the plan, trained from each seed and scored on the test cases once."""
    conditions = plan.conditions(cohort.available)
    origins = [plan.embedding_seeds[i % len(plan.embedding_seeds)] for i in range(len(plan.seeds))]
    wanted = [(c.embedding_images, origin) for c in conditions if c.n_synthetic for origin in origins]
    wanted = list(dict.fromkeys(wanted))  # the most are drawn once; fewer are their first
    shared = {"cohort": cohort, "synthesis": synthesis, "most": plan.most}
    makers = [partial(_draw, **shared, n_images=n, origin=origin) for n, origin in wanted]
    sweep(base, makers, f"{cohort.name}: synthetic images")
    calls = [
        partial(_diagnosed, **shared, condition=c, origin=origin, settings=replace(settings, seed=seed))
        for c in conditions
        for seed, origin in zip(plan.seeds, origins, strict=True)
    ]
    runs = iter(sweep(base, calls, f"{cohort.name}: classifiers"))
    found = []
    for condition in conditions:
        rows, scores = [], []
        for seed, origin in zip(plan.seeds, origins, strict=True):
            run = next(runs)
            last = run.records.iloc[-1]
            row = {"seed": seed, "embedding_seed": origin}
            row["auc"] = float(auc(cohort.test_labels, run.scores))
            row |= {"validation_auc": last.best_auc, "best_step": int(last.best_step)}
            row |= {"n_validation": sum(map(len, cohort.validation)), "n_test": len(cohort.test_labels)}
            rows.append(row | {"seconds": run.seconds})
            scores.append(run.scores)
        found.append(Outcome(cohort, condition, rows, np.array(scores)))
    return found


def _draw(base, cohort, synthesis, most, n_images, origin):
    synthesis.cases(base, cohort, n_images, most, origin)


def _diagnosed(base, cohort, synthesis, most, condition, origin, settings):
    """One training; its cases are gathered here, so that those of no other are in memory."""
    each, numbers = condition.n_real // 2, (condition.n_real, condition.n_synthetic)
    real = cohort.real(tuple(chosen_images(len(part), each, origin) for part in cohort.train))
    selecting, synthetic = Cases.of(*cohort.validation), None
    if condition.n_synthetic:
        synthetic = synthesis.cases(base, cohort, condition.embedding_images, most, origin)
    if condition.kind == SHUFFLED:
        real, selecting = (shuffled(cases, settings.seed) for cases in (real, selecting))
    return diagnose(
        real=real,
        synthetic=synthetic,
        validation=selecting,
        test=Cases.of(*cohort.test),
        settings=settings,
        numbers=numbers,
        device=base.device,
        text=f"{cohort.name}: {condition.kind}, {numbers[0]} + {numbers[1]}, seed {settings.seed}",
        halves=condition.kind == HALVES,
    )


def shuffled(cases: Cases, seed: int) -> Cases:
    """The same images under labels that mean nothing, as many of each: half of either true class, as far as
    its number lets (of unequal classes, the share that the whole has).

    A plain permutation of 200 labels agrees with the true ones in 43 to 57 % of cases, which a classifier
    of classes that are easily told apart learns, and then is off 0.5 without a fault of the experiment's.
    """
    rng, labels = np.random.default_rng([seed, 60]), np.empty(len(cases), bool)
    healthy, diseased = np.flatnonzero(~cases.labels), np.flatnonzero(cases.labels)
    swapped = round(len(healthy) * len(diseased) / max(1, len(cases)))
    for rows, n in ((healthy, swapped), (diseased, len(diseased) - swapped)):
        labels[rows] = rng.permutation(np.arange(len(rows)) < n)
    return Cases(cases.images, labels)


def class_fidelity(base, cohort: Cohort, synthesis: Synthesis, plan: Plan) -> list[dict]:
    """Are synthetic images of each class nearer to real ones of that class than to those of the other?

    Compared with the real test images of each class: real validation images of either class (of the same:
    the floor), and as many synthetic ones of either. Embeddings are those of the table and the first seed.
    One row each: class, pictures, of, and the metrics of lib.metrics, nan where there are fewer than LEAST.
    """
    full = plan.conditions(cohort.available)[0].n_real
    blank = {f"{m}{end}": np.nan for m in METRICS for end in ("", "_low", "_high")}
    drawn = [
        synthesis.pictures(base, cohort, i, full // 2, plan.most // 2, plan.embedding_seeds[0])
        for i in (0, 1)
    ]
    rows = []
    for i, label in enumerate(cohort.labels):
        task = Task(cohort.name, label, cohort.train[i], cohort.test[i], cohort.validation[i])
        judge = Judge(base, task, synthesis.drawing)
        for pictures, parts in (("real", [part.images for part in cohort.validation]), ("synthetic", drawn)):
            for of, images in zip(cohort.labels, parts, strict=True):
                row = {"dataset": cohort.name, "class": label, "pictures": pictures, "of": of}
                shown = images[: len(cohort.validation[i])]
                row |= {"n_real": len(task.real), "n_fake": len(shown)} | blank
                enough = min(len(shown), len(task.real)) >= LEAST
                rows.append(row | judge.judge(shown) if enough else row)
    return rows


def class_evidence(
    base, cohort: Cohort, synthesis: Synthesis, plan: Plan, floor_steps: int = 0, draws: int = 16
) -> dict:
    """Do the embeddings know their class? The AUC of telling real test cases by their denoising loss alone.

    A case's score is its loss under the healthy embedding less that under the diseased one, of the same
    noise, as in a diffusion classifier (Li et al. 2023, arXiv 2303.16203); at 0.5 neither has learned what
    tells the classes apart. Embeddings are those of the table and the first seed. One row: the AUC with its
    95 % interval over patients, and the mean score of each class.

    floor_steps  updates of two whole U-Nets, each fine-tuned on one class (lib.gap) and stopped on the
                 validation cases; `floor_auc` and its interval say what these know. 0: none, and nan
    """
    full, seed = plan.conditions(cohort.available)[0].n_real, plan.embedding_seeds[0]
    pair = synthesis.embeddings(base, cohort, full // 2, seed)
    under = [[image_losses(base, part, e, draws=draws).tolist() for part in cohort.test] for e in pair]
    found, (healthy, diseased) = _told_apart(cohort, under)
    row = {"dataset": cohort.name, "class": cohort.labels[1], "auc": found.value, "low": found.low}
    row |= {"high": found.high, "score_healthy": healthy, "score_diseased": diseased, "draws": draws}
    row |= {"n_test": len(cohort.test_labels), "floor_steps": floor_steps}
    row |= dict.fromkeys(("floor_auc", "floor_low", "floor_high"), np.nan)
    if floor_steps:
        shared = {"tests": cohort.test, "steps": floor_steps, "seed": seed, "draws": draws}
        learned = [part.subset(chosen_images(len(part), full // 2, seed)) for part in cohort.train]
        calls = [
            partial(floor_losses, train=part, stop=stop, **shared)
            for part, stop in zip(learned, cohort.validation, strict=True)
        ]
        found, _ = _told_apart(cohort, sweep(base, calls, f"{cohort.name}: U-Nets fine-tuned"))
        row |= {"floor_auc": found.value, "floor_low": found.low, "floor_high": found.high}
    return row


def _told_apart(cohort, under):
    """(AUC with its interval, mean score of each class).

    under: the losses of the test images of each class under the healthy model, and under the diseased one.
    """
    scores = [np.subtract(*losses) for losses in zip(*under, strict=True)]
    found = auc_interval(cohort.test_labels, np.concatenate(scores), cohort.test_patients)
    return found, [part.mean() for part in scores]
