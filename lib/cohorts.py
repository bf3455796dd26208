"""A data set cut for a diagnosis: images that train, that select, and that are scored once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lib.classify import Cases
from lib.datasets import load_images, splits
from lib.errors import UserError
from lib.imagesets import ImageSet
from lib.specs import is_own
from lib.tasks import training_sets

HELD_SHARE = 0.2  # of the training images, held out where a data set has no split val


class CohortError(UserError):
    """A data set that holds nothing to tell apart."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """The first class of a data set (healthy) and its last one (diseased).

    parts   (name, class, training images, held-out ones on which its loss is watched or None) of every
            class, in order: what embeddings are trained from, as in 02
    validation, test   a pair of ImageSets each, healthy first; no patient is in two of them or in train
    """

    name: str
    parts: tuple[tuple[str, str, ImageSet, ImageSet | None], ...]
    validation: tuple[ImageSet, ImageSet]
    test: tuple[ImageSet, ImageSet]

    @property
    def pair(self) -> tuple:
        """The parts of the two classes."""
        return self.parts[0], self.parts[-1]

    @property
    def labels(self) -> tuple[str, str]:
        """Their names, healthy first."""
        return self.pair[0][1], self.pair[1][1]

    @property
    def train(self) -> tuple[ImageSet, ImageSet]:
        """Their training images."""
        return self.pair[0][2], self.pair[1][2]

    @property
    def available(self) -> int:
        """Training cases, half of each class."""
        return 2 * min(map(len, self.train))

    @property
    def test_labels(self) -> np.ndarray:
        """bool of each test case, in the order of `Cases.of(*self.test)`."""
        return np.repeat([False, True], [len(part) for part in self.test])

    @property
    def test_patients(self) -> np.ndarray:
        """The patient of each."""
        return np.array([patient for part in self.test for patient in part.patients])

    def real(self, chosen: tuple[np.ndarray, np.ndarray]) -> Cases:
        """The training cases at the indices `chosen`, of each class."""
        return Cases.of(*(part.subset(rows) for part, rows in zip(self.train, chosen, strict=True)))


def cohorts(
    dataset: str | None,
    n_train: int,
    n_watched: int,
    n_validation: int,
    n_test: int,
    side: int,
    seed: int,
) -> Iterator[Cohort]:
    """One Cohort a data set, with at most these numbers of cases, half of each class.

    Training images are those of 02 where these are as many. A data set without a split val gives the
    patients of HELD_SHARE of its training images to validation, and its embeddings never see them. Raises
    CohortError where there is no second class.
    """
    found: dict[str, list[tuple[str, str, ImageSet, ImageSet | None]]] = {}
    for part in training_sets(dataset, n_train // 2, n_watched, side, seed):
        found.setdefault(part[0], []).append(part)
    for name, parts in found.items():
        if len(parts) < 2:
            raise CohortError(
                f"{dataset or name}: one class, {parts[0][1]}: name a data set with a healthy class (called "
                "so, or the first by name) and a diseased one (the last)"
            )
        spec = dataset if is_own(dataset) else f"phantom:{name}"
        labels = parts[0][1], parts[-1][1]
        if "val" in splits(spec):
            validation = _both(spec, labels, n_validation, "val", side, seed)
        else:
            kept, validation = _held_out(parts[0][2], parts[-1][2])
            parts = [(name, label, images, None) for label, images in zip(labels, kept, strict=True)]
        yield Cohort(name, tuple(parts), validation, _both(spec, labels, n_test, "test", side, seed))


def _both(spec, labels, n, split, side, seed):
    """At most n // 2 images of each class, equally many of both."""
    parts = [load_images(spec, n // 2, split, side, seed, label, fewer=True) for label in labels]
    each = min(map(len, parts))
    return tuple(part.subset(slice(0, each)) for part in parts)


def _held_out(*parts):
    """(what stays, what is held out) of the training images of each class, by patient."""
    patients = list(
        dict.fromkeys(p for part in parts for p in part.patients[-round(HELD_SHARE * len(part)) :])
    )
    out = [np.isin(part.patients, patients) for part in parts]
    if min(min(o.sum(), (~o).sum()) for o in out) < 2:
        raise CohortError(
            f"{parts[0].spec}: no split val, and too few patients in train to hold some out: add a folder val"
        )
    kept, held = (
        [part.subset(o ^ flip) for part, o in zip(parts, out, strict=True)] for flip in (True, False)
    )
    each = min(map(len, held))
    return tuple(kept), tuple(part.subset(slice(0, each)) for part in held)
