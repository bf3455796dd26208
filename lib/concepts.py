"""The embeddings that 07 to 09 combine: every class of every data set, and what reads its pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lib.artefacts import trained_all
from lib.datasets import load_images
from lib.embedding import Embedding
from lib.errors import UserError
from lib.estimators import FINDINGS, QUANTITIES, Reader, is_fitted, reader
from lib.imagesets import DatasetError, ImageSet
from lib.inversion import InversionSettings
from lib.specs import is_own, prefix_of
from lib.sweep import sweep
from lib.tasks import training_sets

#: What is shown to grow from healthy to diseased; of data without a reader, the mean intensity.
MEASURED = {"prostate": "conspicuity", "chest": "ctr", "histology": "area"}
INTENSITY = "mean intensity"
#: archive -> the modality of its images
ARCHIVES = {"chexpert": "chest", "picai": "prostate", "pcam": "histology"}


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
        """What its images are of: a phantom's or an archive's; "" of a folder, whatever its name."""
        return ARCHIVES.get(prefix_of(self.spec)[0], "") if is_own(self.spec) else self.name

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

    def healthy_images(self, n: int, n_others: int, seed: int) -> tuple[ImageSet, ImageSet]:
        """At most n healthy images of the split test, and at most n_others of val.

        Where a split has none, the first are of val, and the second of train.
        """
        side, found = self.images[self.healthy].images.shape[-1], []
        for split in ("test", "val", "train"):
            most = n_others if found else n
            try:
                found.append(load_images(self.spec, most, split, side, seed, self.healthy, fewer=True))
            except DatasetError:  # no such split, or no healthy patient in it
                continue
        return found[0], found[1]

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
    own = is_own(dataset)
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
    known = [name for name in learned if not own and name in QUANTITIES and name in FINDINGS]
    calls = [partial(_fit_reader, modality=name, **how) for name in known if not is_fitted(name, **how)]
    sweep(base, calls, "readers of the truth")
    readers = {name: reader(name, **how) for name in known}
    for name, (embeddings, sets) in learned.items():
        spec = dataset if own else f"phantom:{name}"
        yield Concepts(name, spec, embeddings, sets, readers.get(name))


def _fit_reader(base, **given):
    reader(**given)
