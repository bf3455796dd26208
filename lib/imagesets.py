"""Image sets and what every reader of them shares: requests, candidates, splits, selection."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from lib.errors import UserError

SPLITS = ("train", "val", "test")
# A share of the patients each; cut by a hash of the patient, see `assigned_split`.
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
JOINED = ", "  # between the splits of a set that holds images of several
MEMORY = 4e9  # bytes of pixels that are not read unless their number was asked for


class DatasetError(UserError):
    """Images, a class or a split that are not there, or cannot be read."""


class UnreadableError(Exception):
    """One image that cannot be used; its text is the reason. Costs that image, not the set."""


# What any decoder raises for a file that is damaged or not of its format.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    MemoryError,
    struct.error,
)


@contextmanager
def naming_damage(*others: type[Exception]) -> Iterator[None]:
    """Makes UnreadableError, in one line, of DAMAGE and of what else this decoder raises for it."""
    try:
        yield
    except (*DAMAGE, *others) as error:
        raise UnreadableError(" ".join(str(error).split()) or type(error).__name__) from error


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in memory, with what is known of each.

    images    float32 [n, 3, H, W], RGB, 0 to 1
    labels    class of each image
    ids       name of each image, unique in its data set
    patients  patient of each image; the image's own name where nothing is known
    truth     ground truth by name, first dimension n; of phantoms, and the masks that an archive has
    skipped   (name, reason) of what was met and could not be used
    spec, split, note   where they came from and how the split was made
    """

    images: np.ndarray
    labels: list[str]
    ids: list[str]
    patients: list[str]
    truth: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    spec: str = ""
    split: str = "train"
    note: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        side = self.images.shape[-1]
        counts = ", ".join(f"{label} {self.labels.count(label)}" for label in self.classes)
        return f"ImageSet({self.spec!r}, {self.split}, {counts}, {side} px)"

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, in order of appearance."""
        return tuple(dict.fromkeys(self.labels))

    @cached_property
    def digest(self) -> str:
        """16 hex digits of the pixels and the labels, in their order."""
        found = hashlib.sha256(repr((self.images.shape, list(self.labels))).encode())
        found.update(np.ascontiguousarray(self.images, dtype="<f4").tobytes())
        return found.hexdigest()[:16]

    def subset(self, indices: Sequence[int] | np.ndarray | slice) -> ImageSet:
        """The images at `indices` (integers, a mask of length n, or a slice), in that order."""
        chosen = np.arange(len(self))[indices]
        return replace(
            self,
            images=self.images[chosen],
            labels=[self.labels[i] for i in chosen],
            ids=[self.ids[i] for i in chosen],
            patients=[self.patients[i] for i in chosen],
            truth={name: values[chosen] for name, values in self.truth.items()},
        )

    def joined(self, other: ImageSet) -> ImageSet:
        """These images, then those of another set of the same data, side and kinds of truth."""
        return replace(
            self,
            images=np.concatenate([self.images, other.images]),
            labels=self.labels + other.labels,
            ids=self.ids + other.ids,
            patients=self.patients + other.patients,
            truth={name: np.concatenate([values, other.truth[name]]) for name, values in self.truth.items()},
            skipped=self.skipped + other.skipped,
            split=f"{self.split}{JOINED}{other.split}",
        )

    def of(self, label: str) -> ImageSet:
        """The images of one class. Raises DatasetError where there is none."""
        check_label(label, self.classes, self.spec)
        return self.subset([i for i, found in enumerate(self.labels) if found == label])


@dataclass(frozen=True)
class Request:
    """What `load_images` was asked for, checked."""

    spec: str
    n: int | None = None
    split: str = "train"
    side: int = 64
    seed: int = 0
    label: str | None = None
    fewer: bool = False

    def __post_init__(self) -> None:
        _check_integer("n", self.n, 1, self.spec, optional=True)
        _check_integer("side", self.side, 1, self.spec)
        _check_integer("seed", self.seed, 0, self.spec)
        if self.split not in (*SPLITS, "all"):
            known = ", ".join((*SPLITS, "all"))
            raise DatasetError(f"{self.spec}: unknown split {self.split!r}: one of {known}")


class Source(Protocol):
    """One data set, opened: what it has, and its images on request."""

    classes: tuple[str, ...]
    splits: tuple[str, ...]

    def load(self, request: Request) -> ImageSet:
        """The images asked for. Raises DatasetError where they are not there."""


@dataclass(frozen=True)
class Candidate:
    """An image that can be read when it is chosen.

    `read(side)` gives float32 [3, side, side] in [0, 1], alone or with its truth: a dict of arrays
    under the same names for every image of the data set. It raises UnreadableError.
    """

    id: str
    patient: str
    label: str
    split: str
    read: Callable[[int], np.ndarray | tuple[np.ndarray, dict[str, np.ndarray]]]


def assigned_split(patient: str, seed: int = 0) -> str:
    """The split of a patient in a data set that comes without any: about 80/10/10 %.

    A hash of the name alone decides, so that a patient stays where he is whatever else is in
    the folder, whichever class is loaded and whatever the seed of the choice: no image of a patient
    seen in training is ever tested on. `seed` is that of the split itself, for repeated experiments
    over several splits.
    """
    place = _fraction(f"split {seed}" if seed else "split", patient)
    for split in SPLITS:
        place -= SHARES[split]
        if place < 0:
            return split
    return SPLITS[-1]


def collect(candidates: Iterable[Candidate], request: Request, classes: Sequence[str]) -> ImageSet:
    """Choose and read: `request.n` images of each class asked for, all of them for None.

    classes: all there are, in their order. With `request.fewer`, a class that has less than n gives what
    it has.

    The order within a class is a hash of seed and id, whatever order the candidates come in:
    the first m of n images are the m that n=m gives. An image that cannot be read is left out
    with its reason, and the next one takes its place.

    Raises DatasetError for a class that is not there, where too few images can be read, and where all are
    asked for and would fill the memory.
    """
    pool = list(candidates)
    labels = list(classes)
    if request.label is not None:
        check_label(request.label, labels, request.spec)
        labels = [request.label]
    inside = [c for c in pool if request.split in ("all", c.split)]
    if request.n is None:
        _check_memory(sum(c.label in labels for c in inside), request)
    chosen: list[tuple[Candidate, np.ndarray, dict]] = []
    skipped: list[tuple[str, str]] = []
    for label in labels:
        ranked = sorted(
            (c for c in inside if c.label == label),
            key=lambda c: (_fraction(f"order {request.seed}", c.id), c.id),
        )
        read, failed = _read(ranked, request)
        if not read or (len(read) < (request.n or 1) and not request.fewer):
            total = sum(c.label == label for c in pool)
            raise DatasetError(_too_few(label, len(ranked), total, failed, request))
        chosen += read
        skipped += failed
    return ImageSet(
        images=np.stack([pixels for _, pixels, _ in chosen]),
        labels=[c.label for c, *_ in chosen],
        ids=[c.id for c, *_ in chosen],
        patients=[c.patient for c, *_ in chosen],
        truth={name: np.stack([truth[name] for *_, truth in chosen]) for name in chosen[0][2]},
        skipped=skipped,
        spec=request.spec,
        split=request.split,
    )


def check_label(label: str, known: Iterable[str], spec: str) -> None:
    """Raise DatasetError unless `label` is one of the `known` classes."""
    known = tuple(known)
    if label not in known:
        raise DatasetError(f"{spec}: no class {label!r}: there are {', '.join(known)}")


def _check_memory(count: int, request: Request) -> None:
    need = count * 3 * request.side**2 * 4
    if need > MEMORY:
        raise DatasetError(
            f"{request.spec}: {count} images of {request.side} pixels take {need / 1e9:.0f} GB of memory: "
            "give n, how many of each class"
        )


def _read(ranked: list[Candidate], request: Request):
    """The first `request.n` readable candidates with pixels and truth, and what failed before."""
    read, failed = [], []
    for candidate in ranked:
        if request.n is not None and len(read) == request.n:
            break
        try:
            found = candidate.read(request.side)
        except UnreadableError as error:
            failed.append((candidate.id, str(error)))
        else:
            read.append((candidate, *(found if isinstance(found, tuple) else (found, {}))))
    return read, failed


def _too_few(label: str, inside: int, total: int, failed: list, request: Request) -> str:
    """One line on what is there instead of the images asked for."""
    readable = inside - len(failed)
    where = f"{request.spec}: class {label!r} has {readable} readable images"
    where += "" if request.split == "all" else f" in split {request.split!r}"
    why = f" ({len(failed)} unreadable, such as {': '.join(failed[0])})" if failed else ""
    asked = "" if request.n is None else f", {request.n} asked for"
    ways = ["add images" if request.n is None or not readable else f"ask for at most {readable}"]
    if total > inside:
        ways.append(f"take another split (split='all' has {total})")
    return f"{where}{why}{asked}: {' or '.join(ways)}"


def _check_integer(name: str, value, least: int, spec: str, optional: bool = False) -> None:
    if optional and value is None:
        return
    number = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not number or value < least:
        raise DatasetError(f"{spec}: {name}={value!r} must be a whole number from {least} up")


def _fraction(purpose: str, name: str) -> float:
    """A number in [0, 1) that depends on nothing but the two texts."""
    found = hashlib.sha256(f"{purpose}\0{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(found[:8], "big") / 2**64
