"""Data sets as their owners distribute them: what their readers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from lib import specs
from lib.imagesets import SPLITS, Candidate, DatasetError, ImageSet, Request, check_label, collect


class Archive(ABC):
    """One data set under a prefix of its own, opened: `PREFIX:FOLDER[,FOLDER]?option=value&...`.

    Every archive has the options `classes`, a comma between them, and `split_seed`, the seed of the
    hash that splits the patients, for repeats over several splits. A subclass says what is there:

    PREFIX   and how many folders follow it, `specs.FOLDERS`
    CLASSES  every class that can be asked for, the healthy one first
    DEFAULT  those of them that are taken unless `classes` says otherwise
    OPTIONS  its further options and their words, the default first
    RULE     how the split is made

    `skipped` holds what was met and could not be used, "kind of fault: details" each; `remarks` what
    was left out by rule. The note of an image set counts both.
    """

    PREFIX = ""
    CLASSES: tuple[str, ...] = ()
    DEFAULT: tuple[str, ...] = ()
    OPTIONS: dict[str, tuple[str, ...]] = {}
    RULE = "split by a hash of the patient, 80/10/10 % of the patients, split_seed {seed}"

    def __init__(self, rest: str, patient_pattern: str | None = None) -> None:
        """`rest` is what follows the prefix. Raises DatasetError for a folder or option that is not there."""
        self.spec = f"{self.PREFIX}:{rest}"
        if patient_pattern is not None:
            raise DatasetError(f"{self.spec}: names its patients itself: leave patient_pattern out")
        text, given = specs.options_of(rest)
        self.folders = [Path(name) for name in specs.folders_of(text, specs.FOLDERS[self.PREFIX])]
        for folder in self.folders:
            if not folder.is_dir():
                raise DatasetError(f"{folder}: no such folder: {self.spec!r} names where it was unpacked")
        self.options = self._options(given)
        self.skipped: list[tuple[str, str]] = []
        self.remarks: list[str] = []

    @cached_property
    def candidates(self) -> list[Candidate]:
        """Every image that may be chosen, of all splits and of the classes asked for."""
        found = list(self._scan())
        if not found:
            why = "; ".join([*self.remarks, *_tally(self.skipped)]) or "nothing of these classes"
            why += f", such as {': '.join(self.skipped[0])}" if self.skipped else ""
            raise DatasetError(f"{self.spec}: no images of {', '.join(self.wanted)}: {why}")
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        """Those asked for that have an image."""
        found = {candidate.label for candidate in self.candidates}
        return tuple(label for label in self.wanted if label in found)

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of train, val and test that have an image."""
        found = {candidate.split for candidate in self.candidates}
        return tuple(split for split in SPLITS if split in found)

    def load(self, request: Request) -> ImageSet:
        """The images asked for. Raises DatasetError where they are not there."""
        if request.split not in (*self.splits, "all"):
            raise DatasetError(
                f"{request.spec}: no split {request.split!r}: there are {', '.join(self.splits)}"
            )
        label = None if request.label is None else self.class_named(request.label)
        found = collect(self._pool(request.split), replace(request, label=label), self.classes)
        skipped = self.skipped + found.skipped
        return replace(found, skipped=skipped, note=self._note(request, skipped))

    def class_named(self, name: str) -> str:
        """The class that a user means by `name`. Raises DatasetError where there is none."""
        check_label(name, self.CLASSES, self.spec)
        return name

    @abstractmethod
    def _scan(self) -> Iterator[Candidate]:
        """Finds the candidates; fills `skipped` and `remarks`. Opens no image."""

    def _pool(self, split: str) -> Iterable[Candidate]:
        """What the images of a split are chosen from."""
        return self.candidates

    @property
    def rule(self) -> str:
        """How the split is made, with its seed."""
        return self.RULE.format(seed=self.split_seed)

    def _note(self, request: Request, skipped: list[tuple[str, str]]) -> str:
        chosen = f"images chosen with seed {request.seed}"
        return "; ".join([self.rule, chosen, *self.remarks, *_tally(skipped)])

    def _options(self, given: dict[str, str]) -> dict[str, str]:
        """The value of each option, given or default; sets `wanted` and `split_seed`."""
        known = {"classes": self.CLASSES, "split_seed": ("0, 1, 2, ...",), **self.OPTIONS}
        for name in given.keys() - known.keys():
            there = "; ".join(f"{option}={' | '.join(words)}" for option, words in known.items())
            raise DatasetError(f"{self.spec}: no option {name!r}: there are {there}")
        for name, words in self.OPTIONS.items():
            if given.get(name, words[0]) not in words:
                raise DatasetError(f"{self.spec}: {name}={given[name]!r} must be one of {', '.join(words)}")
        seed = given.get("split_seed", "0")
        if not (seed.isascii() and seed.isdigit()):
            raise DatasetError(f"{self.spec}: split_seed={seed!r} must be a whole number from 0 up")
        self.split_seed = int(seed)
        asked = given["classes"].split(",") if "classes" in given else self.DEFAULT or self.CLASSES
        named = {self.class_named(name.strip()) for name in asked}
        self.wanted = tuple(label for label in self.CLASSES if label in named)
        return {name: given.get(name, words[0]) for name, words in self.OPTIONS.items()}


def read_table(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV with at least these columns, all of it as text, NaN for blank. Raises DatasetError."""
    try:
        table = pd.read_csv(file, dtype=str, encoding="utf-8-sig", skipinitialspace=True)
    except FileNotFoundError as error:
        raise DatasetError(f"{file}: no such file: is this the folder as it was unpacked?") from error
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        reason = " ".join(str(error).split())
        raise DatasetError(f"{file}: cannot be read as CSV ({reason}): download it again") from error
    missing = [name for name in columns if name not in table]
    if missing:
        there = ", ".join(map(str, table.columns))
        raise DatasetError(
            f"{file}: no column {', '.join(map(repr, missing))}, only {there}: take the file as distributed"
        )
    return table


def in_later_split(patients: dict[str, Iterable[str]]) -> dict[str, set[str]]:
    """Patients of each split who are in a later one too, test being the last: {split: patients}.

    A reader leaves them out of the earlier one, so that no patient of a test set is ever trained on,
    whoever made the split.
    """
    later: set[str] = set()
    found = {}
    for split in reversed(SPLITS):
        here = set(patients.get(split, ()))
        found[split] = here & later
        later |= here
    return found


def _tally(skipped: Iterable[tuple[str, str]]) -> list[str]:
    """What was skipped, counted by kind: ["skipped 2 x no lesion delineation"]."""
    kinds = Counter(reason.partition(":")[0] for _, reason in skipped)
    return [f"skipped {count} x {kind}" for kind, count in kinds.items()]
