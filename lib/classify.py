"""The diagnostic experiment: telling diseased from healthy images, trained on real and synthetic ones.

As in the paper: AdamW, heavy augmentation, and the weights of the best validation AUC kept; the test split
is scored once, by those.
"""

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from lib.auc import auc
from lib.config import digest
from lib.progress import progress
from lib.resnet import IMAGENET, Classifier, ClassifierSettings, ClassifyError, augment
from lib.runs import Run, atomic_write, code_digest, path_digest

__all__ = [
    "Cases",
    "Classifier",
    "ClassifierSettings",
    "ClassifyError",
    "Diagnosis",
    "Record",
    "Training",
    "diagnose",
]


@dataclass(frozen=True, eq=False)
class Cases:
    """Images float32 [n, 3, H, W] in [0, 1] with labels bool [n], True for diseased."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(cls, healthy, diseased) -> "Cases":
        """Two sets (ImageSets or arrays) as one, healthy first."""
        parts = [np.asarray(getattr(p, "images", p), np.float32) for p in (healthy, diseased)]
        return cls(np.concatenate(parts), np.repeat([False, True], [len(p) for p in parts]))

    def take(self, n: int) -> "Cases":
        """The first n // 2 of each class, so that fewer are always part of more. Raises ClassifyError."""
        rows = [np.flatnonzero(self.labels == label)[: n // 2] for label in (False, True)]
        if n % 2 or min(map(len, rows)) < n // 2:
            have = [int((self.labels == label).sum()) for label in (False, True)]
            raise ClassifyError(f"{n} cases, half of each class: there are {have[0]} and {have[1]}")
        rows = np.concatenate(rows)
        return Cases(self.images[rows], self.labels[rows])

    def __add__(self, other: "Cases") -> "Cases":
        parts = [(a, b) for a, b in ((self.images, self.labels), (other.images, other.labels)) if len(a)]
        return Cases(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    @property
    def digest(self) -> str:
        """16 hex digits of pixels and labels."""
        return digest([self.images, self.labels])


@dataclass(frozen=True)
class Record:
    """After `step` updates: mean loss since the last record, AUC of the validation cases, the best yet."""

    step: int
    loss: float
    validation_auc: float
    best_step: int
    best_auc: float
    seconds: float


class Training:
    """One training, step by step: iterate over its Records, then take the `best` classifier.

    first: the number of leading cases that make half of each batch, whatever the rest; None: all alike.
    checkpoint: a file to go on from, and to write each `checkpoint_every` updates; a run that was killed
    ends bit for bit where an uninterrupted one does, on the same machine. Raises ClassifyError for cases of
    one class, for a checkpoint of other cases or settings, and if the loss is no longer a number.
    """

    def __init__(
        self,
        cases: Cases,
        validation: Cases,
        settings: ClassifierSettings,
        device: str | torch.device = "cpu",
        checkpoint: Path | None = None,
        first: int | None = None,
    ):
        for name, part in (("training", cases), ("validation", validation)):
            if not len(part) or part.labels.all() or not part.labels.any():
                raise ClassifyError(f"{len(part)} {name} cases: both classes are needed")
        if first is not None and not 0 < first < len(cases):
            raise ClassifyError(f"first = {first} of {len(cases)} cases: some of them, and not all")
        self._validation, self._settings, self._first = validation, settings, first
        self._images = torch.from_numpy(np.asarray(cases.images, np.float32))
        self._labels = torch.from_numpy(np.asarray(cases.labels, np.int64))
        scaling = IMAGENET
        if settings.weights is None:
            scaling = cases.images.mean((0, 2, 3)), cases.images.std((0, 2, 3)).clip(1e-3)
        # channels last and a fused optimizer: an update takes a fifth less time on a CPU
        with torch.random.fork_rng(devices=[]):  # transformers draws the first weights from torch's own
            torch.manual_seed(settings.seed)
            self._model = Classifier(settings, *scaling).to(device, memory_format=torch.channels_last)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self._identity = digest([cases.digest, validation.digest, asdict(settings), first])
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        self.records: list[Record] = []
        self._step, self._losses, self._kept = 0, [], None
        if self._checkpoint is not None and self._checkpoint.exists():
            self._restore()

    def __iter__(self) -> Iterator[Record]:
        settings = self._settings
        yield from list(self.records)
        before = self.records[-1].seconds if self.records else 0.0
        started = time.perf_counter()
        while self._step < settings.steps:
            self._update()
            due = self._step == settings.steps
            if due or self._step % settings.validate_every == 0:
                self._validate(before + time.perf_counter() - started)
            if self._checkpoint is not None and not due and self._step % settings.checkpoint_every == 0:
                self._save()
            if self.records and self.records[-1].step == self._step:
                yield self.records[-1]

    @property
    def best(self) -> Classifier:
        """The classifier of the best validation AUC so far, of equal ones the first."""
        if self._kept is None:
            raise ClassifyError("no classifier yet: iterate over the training first")
        best = copy.deepcopy(self._model)
        best.load_state_dict(self._kept)
        return best.eval()

    def _update(self):
        """One update; every draw depends on the seed and the step alone."""
        settings, device = self._settings, self._model.mean.device
        rng = np.random.default_rng([settings.seed, 4, self._step])
        rows = torch.from_numpy(self._rows(rng, settings.batch_size))
        images = augment(self._images[rows].to(device), settings, rng)
        self._model.train()
        loss = F.binary_cross_entropy_with_logits(self._model(images), self._labels[rows].to(device).float())
        self._optimizer.param_groups[0]["lr"] = settings.rate(self._step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._losses.append(loss.detach())
        self._step += 1

    def _rows(self, rng, n):
        """n cases, drawn evenly, or half of them (of an odd number, the fewer) from the first ones."""
        if self._first is None:
            return rng.integers(len(self._images), size=n)
        rest = rng.integers(self._first, len(self._images), size=n - n // 2)
        return np.concatenate([rng.integers(self._first, size=n // 2), rest])

    def _validate(self, seconds):
        loss = float(torch.stack(self._losses).mean())
        if not np.isfinite(loss):
            raise ClassifyError(
                f"the loss is {loss} at step {self._step}: lower learning_rate = "
                f"{self._settings.learning_rate}"
            )
        self._losses = []
        found = float(auc(self._validation.labels, self._model.scores(self._validation.images)))
        best_step, best_auc = (
            (self.records[-1].best_step, self.records[-1].best_auc) if self.records else (0, -1.0)
        )
        if found > best_auc:
            best_step, best_auc = self._step, found
            self._kept = {k: v.detach().clone() for k, v in self._model.state_dict().items()}
        self.records.append(Record(self._step, loss, found, best_step, best_auc, seconds))

    def _save(self):
        content = {
            "identity": self._identity,
            "model": self._model.state_dict(),
            "kept": self._kept,
            "optimizer": self._optimizer.state_dict(),
            "step": self._step,
            "losses": self._losses,
            "records": [vars(record) for record in self.records],
        }
        atomic_write(self._checkpoint, lambda part: torch.save(content, part))

    def _restore(self):
        content = torch.load(self._checkpoint, map_location=self._model.mean.device, weights_only=True)
        if content["identity"] != self._identity:
            raise ClassifyError(
                f"{self._checkpoint}: the checkpoint of other cases or settings: name another file"
            )
        self._model.load_state_dict(content["model"])
        self._optimizer.load_state_dict(content["optimizer"])
        self._kept, self._step, self._losses = content["kept"], content["step"], content["losses"]
        self.records = [Record(**record) for record in content["records"]]


@dataclass(frozen=True)
class Diagnosis:
    """What one training came to: scores of the test cases [n], higher for diseased, and its records."""

    scores: np.ndarray
    records: pd.DataFrame
    seconds: float


def diagnose(
    real: Cases,
    synthetic: Cases | None,
    validation: Cases,
    test: Cases,
    settings: ClassifierSettings,
    numbers: tuple[int, int] = (200, 0),
    device: str | torch.device = "cpu",
    text: str = "",
    halves: bool = False,
) -> Diagnosis:
    """Trains on the first numbers[0] real and numbers[1] synthetic cases, half of each class; scores test.

    halves: half of each batch is real, however many more synthetic cases there are; else all are drawn alike.
    Test labels choose nothing. Done before, it is read; interrupted, it goes on from its last checkpoint.
    `text` names the training to whoever watches. Raises ClassifyError.
    """
    cases = real.take(numbers[0])
    if numbers[1]:
        if synthetic is None:
            raise ClassifyError(f"{numbers[1]} synthetic cases asked for, and none are given")
        cases = cases + synthetic.take(numbers[1])
    digests = [part.digest for part in (cases, validation)] + [digest(test.images)]
    first = numbers[0] if halves else None
    key = {"cases": digests, "settings": asdict(settings), "first": first}
    key["code"] = code_digest("lib.classify", "lib.resnet", "lib.auc")
    if settings.folder:
        key["weights"] = path_digest(settings.folder)
    run = Run(None, "classifiers", key)
    if not run.done:
        with run.locked():
            if not run.done:
                _diagnose(run, cases, validation, test, settings, device, text, first)
    records = pd.read_csv(run.folder / "records.csv")
    return Diagnosis(np.load(run.folder / "scores.npy"), records, float(records.seconds.iloc[-1]))


def _diagnose(run, cases, validation, test, settings, device, text, first):
    training = Training(cases, validation, settings, device, run.scratch / "checkpoint.pt", first)
    for record in training:
        best = f"best validation AUC {record.best_auc:.3f}"
        progress(record.step, settings.steps, f"{text or 'classifier'}: loss {record.loss:.3f}, {best}")
    with run.writing() as folder:
        np.save(folder / "scores.npy", training.best.scores(test.images))
        pd.DataFrame([vars(record) for record in training.records]).to_csv(
            folder / "records.csv", index=False
        )
