"""A data set cut for a diagnosis: images that train, that select, and that are scored once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lib.classify import Cases
from lib.datasets import load_images, splits
from lib.errors import UserError
from lib.imagesets import ImageSet
from lib.tasks import training_sets

HELD_SHARE = 0.2  # of the training images, held out where a data set has no split val


class CohortError(UserError):
    """A data set that holds nothing to tell apart."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """The first class of a data set (healthy) and its last one (diseased).

    train, validation, test   a pair of ImageSets each, healthy first; no patient is in two of them
    watched   held-out images on which the loss of an embedding is watched, as in 02, or None
    """

    name: str
    labels: tuple[str, str]
    train: tuple[ImageSet, ImageSet]
    watched: tuple[ImageSet | None, ImageSet | None]
    validation: tuple[ImageSet, ImageSet]
    test: tuple[ImageSet, ImageSet]

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
    found: dict[str, list[tuple[str, ImageSet, ImageSet]]] = {}
    for name, label, images, held in training_sets(dataset, n_train // 2, n_watched, side, seed):
        found.setdefault(name, []).append((label, images, held))
    for name, parts in found.items():
        if len(parts) < 2:
            raise CohortError(
                f"{dataset or name}: one class, {parts[0][0]}: name a data set with a healthy class (the "
                "first by name) and a diseased one (the last)"
            )
        (healthy, one, one_held), (diseased, other, other_held) = parts[0], parts[-1]
        phantom = dataset is None or dataset.startswith("phantom:")
        spec = f"phantom:{name}" if phantom else dataset
        labels, train, watched = (healthy, diseased), (one, other), (one_held, other_held)
        if "val" in splits(spec):
            validation = _both(spec, labels, n_validation, "val", side, seed)
        else:
            train, validation = _held_out(*train)
            watched = None, None
        yield Cohort(
            name, labels, train, watched, validation, _both(spec, labels, n_test, "test", side, seed)
        )


def _both(spec, labels, n, split, side, seed):
    """At most n // 2 images of each class, equally many of both."""
    wanted = n // 2 if spec.startswith("phantom:") else None
    parts = [load_images(spec, wanted, split, side, seed, label) for label in labels]
    each = min(n // 2, *map(len, parts))
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
