"""The embeddings that 07 to 09 combine: every class of every data set, and what reads its pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lib.artefacts import trained_all
from lib.datasets import load_images, splits
from lib.embedding import Embedding
from lib.errors import UserError
from lib.estimators import FINDINGS, QUANTITIES, Reader, is_fitted, reader
from lib.imagesets import ImageSet
from lib.inversion import InversionSettings
from lib.sweep import sweep
from lib.tasks import training_sets

#: What is shown to grow from healthy to diseased; of data without a reader, the mean intensity.
MEASURED = {"prostate": "conspicuity", "chest": "ctr", "histology": "area"}
INTENSITY = "mean intensity"


class ConceptError(UserError):
    """A data set without a healthy and a diseased class."""


def emphasised(base: Embedding, others: Sequence[Embedding], times: float) -> dict[Embedding, float]:
    """What `generate` draws as `base` and `times` what tells each of `others` from it.

    Weights of AND that sum to 1: D = D_u + guidance * (D_b - D_u + times * sum_i (D_i - D_b)). One other at
    times 1 is that embedding alone; beyond, what both share stays and their difference grows. `base` among
    the others adds nothing.
    """
    weights = {base: 1 - times * len(others)}
    for other in others:
        weights[other] = weights.get(other, 0) + times
    return {embedding: weight for embedding, weight in weights.items() if weight}


@dataclass(frozen=True, eq=False)
class Concepts:
    """One data set's embeddings by class, healthy first, their training images, and its reader if any."""

    name: str
    spec: str
    embeddings: dict[str, Embedding]
    images: dict[str, ImageSet]
    reader: Reader | None

    @property
    def modality(self) -> str:
        """That of a phantom, whose truth is known; "" of a folder, whatever its name."""
        return self.name if self.spec.startswith("phantom:") else ""

    @property
    def healthy(self) -> str:
        """The first class."""
        return next(iter(self.embeddings))

    @property
    def findings(self) -> list[str]:
        """Every class but the first."""
        return list(self.embeddings)[1:]

    @property
    def quantity(self) -> str:
        """What the interpolation is measured by."""
        return MEASURED[self.name] if self.reader else INTENSITY

    def healthy_images(self, n: int, seed: int, calibration: bool = False) -> ImageSet:
        """At most n healthy images of the split test, or with `calibration` of val (train without one)."""
        split = "test"
        if calibration:
            split = "val" if "val" in splits(self.spec) else "train"
        side = self.images[self.healthy].images.shape[-1]
        return load_images(self.spec, n, split, side, seed, self.healthy, fewer=True)

    def measure(self, images) -> dict[str, np.ndarray]:
        """quantity -> [n] of pictures [n, 3, H, W]: the reader's, and the mean intensity always."""
        values = self.reader.read(images) if self.reader else {}
        return values | {INTENSITY: np.asarray(images, float).mean((1, 2, 3))}


def concepts(
    base,
    dataset: str | None,
    settings: InversionSettings,
    n_train: int,
    n_validation: int,
    seed: int,
    reader_phantoms: int | None = None,
) -> Iterator[Concepts]:
    """One Concepts a data set. Under the settings of 02_textual_inversion its embeddings are read again.

    Phantoms have readers (lib.estimators); images of the user's have no known truth, hence none.
    reader_phantoms: those that a reader is fitted on; None: as many as lib.estimators says. Raises
    ConceptError where there is no second class.
    """
    phantom = dataset is None or dataset.startswith("phantom:")
    learned: dict[str, tuple[dict, dict]] = {}
    parts = list(training_sets(dataset, n_train, n_validation, base.image_side, seed))
    for (name, label, images, _), run in zip(parts, trained_all(base, parts, settings), strict=True):
        embeddings, sets = learned.setdefault(name, ({}, {}))
        embeddings[label], sets[label] = run.embedding, images
    for name, (embeddings, _) in learned.items():
        if len(embeddings) < 2:
            raise ConceptError(
                f"{dataset or name}: one class, {next(iter(embeddings))}: name a data set with a healthy "
                "class (called so, or the first by name) and diseased ones"
            )
    how = {"n": reader_phantoms, "side": base.image_side}
    known = [name for name in learned if phantom and name in QUANTITIES and name in FINDINGS]
    calls = [partial(_fit_reader, modality=name, **how) for name in known if not is_fitted(name, **how)]
    sweep(base, calls, "readers of the truth")
    readers = {name: reader(name, **how) for name in known}
    for name, (embeddings, sets) in learned.items():
        spec = f"phantom:{name}" if phantom else dataset
        yield Concepts(name, spec, embeddings, sets, readers.get(name))


def _fit_reader(base, **given):
    reader(**given)
