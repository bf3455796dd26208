"""CheXpert chest X-rays as distributed (Irvin et al. 2019, arXiv 1901.07031): two CSV files and JPEGs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from lib.archives import Archive, in_later_split, read_table
from lib.imagesets import SPLITS, Candidate, DatasetError, assigned_split
from lib.pixels import read_image

#: The 14 columns of findings, as the CSV files have them.
FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
#: The column of each class: "healthy" is No Finding, "pleural_effusion" is Pleural Effusion.
COLUMNS = {name.lower().replace(" ", "_"): name for name in FINDINGS[1:]}
COLUMNS = {"healthy": "No Finding"} | COLUMNS
FILES = {"train": "train.csv", "test": "valid.csv"}
TRIED = 20  # images of each file, evenly spread, of which one at least must be there
LABELS = {text: float(text) for text in ("1", "1.0", "0", "0.0", "-1", "-1.0")}
UNCERTAIN = -1.0


class CheXpert(Archive):
    """`chexpert:DIR`, DIR being the folder with train.csv and valid.csv, or the one above it.

    classes    healthy (No Finding), cardiomegaly, pneumonia and pleural_effusion, those of the paper;
               or any of the 14 findings, in lower case with underscores; always in the columns' order
    view       frontal | lateral | ap | pa | all. Most frontal images of the sick are taken AP, in bed,
               and most of the healthy PA: `pa` keeps a classifier from learning the bed.
    uncertain  ignore: an image with an uncertain label (-1) in one of the classes asked for is left
               out; positive: the label counts as present; negative: as absent (U-Ignore, U-Ones and
               U-Zeros of the CheXpert paper). Blank, which is unmentioned, counts as absent.
    splits     patients: the patients of both files, split by a hash; files: valid.csv, read by radiologists,
               is test (234 images), and of the patients of train.csv a tenth is val, by the hash

    An image belongs to one class: what shows several of those asked for is left out and counted.
    """

    PREFIX = "chexpert"
    CLASSES = tuple(COLUMNS)
    DEFAULT = ("healthy", "cardiomegaly", "pneumonia", "pleural_effusion")
    OPTIONS = {
        "view": ("frontal", "lateral", "ap", "pa", "all"),
        "uncertain": ("ignore", "positive", "negative"),
        "splits": ("patients", "files"),
    }

    def __init__(self, rest: str, patient_pattern: str | None = None) -> None:
        super().__init__(rest, patient_pattern)
        self.root = _root(self.folders[0])

    @property
    def rule(self) -> str:
        """How the split is made: by patient, or as the files are; with its seed."""
        if self.options["splits"] == "files":
            return (
                "split as the files are: valid.csv is test; of the patients of train.csv about a tenth is "
                f"val, by a hash, split_seed {self.split_seed}"
            )
        return super().rule

    def class_named(self, name: str) -> str:
        """Takes "Pleural Effusion", "No Finding" and "no_finding" too."""
        plain = re.sub(r"\W+", "_", name.strip().lower())
        return super().class_named("healthy" if plain == "no_finding" else plain)

    def _scan(self) -> Iterator[Candidate]:
        root = self.root
        there = {path.name for path in root.iterdir() if path.is_dir()}
        found, several, uncertain = [], 0, 0
        for split, name in FILES.items():
            if not (root / name).is_file():
                continue
            table = _rows(root / name)
            table = table[_in_view(table, self.options["view"])]
            values = table[[COLUMNS[label] for label in self.wanted]]
            if self.options["uncertain"] == "ignore":
                unclear = (values == UNCERTAIN).any(axis=1)
                uncertain += int(unclear.sum())
                table, values = table[~unclear], values[~unclear]
            present = (values == 1).to_numpy()
            if self.options["uncertain"] == "positive":
                present |= (values == UNCERTAIN).to_numpy()
            several += int((present.sum(1) > 1).sum())
            single = present.sum(1) == 1
            labels = np.array(self.wanted)[present[single].argmax(1)]
            paths = [_inner(path, there) for path in table.Path[single]]
            _check_unpacked(root, name, paths)
            rows = zip(paths, table.patient[single], labels, strict=True)
            found += [self._candidate(root, split, *row) for row in rows]
        if uncertain:
            self.remarks.append(f"left out {uncertain} images with an uncertain label (uncertain=ignore)")
        if several:
            self.remarks.append(f"left out {several} images of more than one of these classes")
        if self.options["splits"] == "files":
            parts = {split: {c.patient for c in found if c.split == split} for split in SPLITS}
            twice = set().union(*in_later_split(parts).values())
            self.skipped += [
                (name, "patient of valid.csv too: left out of train.csv") for name in sorted(twice)
            ]
            found = [c for c in found if c.split == "test" or c.patient not in twice]
        yield from found

    def _candidate(self, root: Path, split: str, path: str, patient: str, label: str) -> Candidate:
        drawn = assigned_split(patient, self.split_seed)
        if self.options["splits"] == "patients":
            split = drawn
        elif split == "train" and drawn == "val":
            split = "val"
        return Candidate(path, patient, str(label), split, partial(read_image, root / path))


def _root(folder: Path) -> Path:
    """The folder with the CSV files: this one, or the only one in it that has them. Raises DatasetError."""
    roots = [
        root
        for root in (folder, *sorted(folder.glob("CheXpert*")))
        if any((root / name).is_file() for name in FILES.values())
    ]
    if not roots:
        raise DatasetError(
            f"{folder}: neither train.csv nor valid.csv in it: name the folder that CheXpert was unpacked "
            "to, such as CheXpert-v1.0-small"
        )
    if roots[0] != folder and len(roots) > 1:
        names = ", ".join(root.name for root in roots)
        raise DatasetError(
            f"{folder}: {len(roots)} folders in it have train.csv or valid.csv: name one of {names}"
        )
    return roots[0]


def _check_unpacked(root: Path, name: str, paths: list[str]) -> None:
    """Raises DatasetError where none of a file's images is there, as in the batches of the full release."""
    tried = paths[:: max(1, len(paths) // TRIED)]
    if tried and not any((root / path).is_file() for path in tried):
        raise DatasetError(
            f"{root / name}: names {tried[0]}, which is not in {root}, nor are {len(tried) - 1} others: "
            f"put the patients of all batches into {root / PurePosixPath(tried[0]).parts[0]}"
        )


def _rows(file: Path) -> pd.DataFrame:
    """The rows of one file: Path, patient, view, and the 14 findings as 1, 0, -1 and NaN.

    Raises DatasetError for a missing column, a label that is none of these and a path without patient.
    """
    table = read_table(file, ("Path", "Frontal/Lateral", "AP/PA", *FINDINGS))
    table["patient"] = table.Path.str.extract(r"\b(patient\d+)\b", expand=False)
    nobody = np.flatnonzero(table.patient.isna())
    if len(nobody):
        value = table.Path.iloc[nobody[0]]
        raise DatasetError(
            f"{file}: line {nobody[0] + 2}: Path {value!r} names no patient, as patient00001 does: "
            "take the file as distributed"
        )
    for name in FINDINGS:
        texts = table[name].str.strip()
        table[name] = texts.map(LABELS)
        wrong = np.flatnonzero(texts.notna() & (texts != "") & table[name].isna())
        if len(wrong):
            raise DatasetError(
                f"{file}: line {wrong[0] + 2}: {name} is {texts.iloc[wrong[0]]!r}, none of 1, 0, -1 and "
                "blank: take the file as distributed"
            )
    return table


def _in_view(table: pd.DataFrame, view: str) -> pd.Series:
    """Which rows are of that view."""
    if view == "all":
        return pd.Series(True, index=table.index)
    column = "Frontal/Lateral" if view in ("frontal", "lateral") else "AP/PA"
    return table[column].str.strip().str.lower() == view


def _inner(path: str, there: set[str]) -> str:
    """ "CheXpert-v1.0-small/train/patient00001/..." -> "train/patient00001/...", as seen from the root.

    The file's own first folder is dropped, whatever the user called his, unless it is `there` in it.
    """
    parts = PurePosixPath(path.strip()).parts
    if len(parts) > 1 and parts[0].startswith("CheXpert") and parts[0] not in there:
        parts = parts[1:]
    return "/".join(parts)
