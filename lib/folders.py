"""Folders of images as a data set: which files are of which class, split and patient."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from lib.config import located
from lib.imagesets import (
    SPLITS,
    Candidate,
    DatasetError,
    ImageSet,
    Request,
    assigned_split,
    collect,
)
from lib.pixels import DICOM, SUFFIXES, is_dicom, is_image, read_image

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

#: What healthy classes are called, in lower case with "_" for what stands between words.
HEALTHY = frozenset(
    ("healthy", "normal", "no_finding", "no_findings", "negative", "benign", "control", "controls")
)

#: Endings of images and volumes that are told of and not read.
UNREAD = (".gif", ".jp2", ".j2k", ".pgm", ".ppm", ".npy", ".nii", ".nii.gz", ".mha", ".nrrd", ".heic")

#: Folders that an error line names at most; of more, those that may have been meant.
LISTED = 12


class FolderSource:
    """A folder in one of three shapes: plain, a subfolder a class, or splits above those.

    `path` may also name a class in it (`folder/tumour`, with or without splits between) or one
    of its splits (`folder/test`). Images right in a folder that has class folders are skipped by
    name, as are those beside the splits. Names that start with a dot are not looked at.
    A class named as one of HEALTHY is the first, the others follow by name.

    A DICOM file is of the patient whom it names itself. Any other file below a subfolder of its class
    (`tumour/P01/slice01.png`) is of the patient whom the DICOM there names, if it is one, or else the first
    such subfolder. Where the DICOM of a folder all names the same patient, or none, as anonymised files do,
    and lies below no such subfolder, its study stands for the patient. Any other file is a patient of its
    own, by its name without the suffix. DICOM without an image in it is skipped.

    patient_pattern: a regular expression searched in that name, then in the path below the class folder; its
    first group (or the whole match) is the patient. NIH ChestX-ray14: r"^(\\d+)_".

    Raises DatasetError for a folder that is missing, no folder, or without images, for one whose DICOM shows
    its classes to be patients, and for a pattern that matches none of them.
    """

    def __init__(self, path: str, patient_pattern: str | None = None) -> None:
        self.given = located(path)
        try:
            self.pattern = re.compile(patient_pattern) if patient_pattern else None
        except re.error as error:
            raise DatasetError(
                f"{path}: patient_pattern {patient_pattern!r} is no regular expression: {error}"
            ) from error
        self.skipped: list[tuple[str, str]] = []
        self.matched = self.pattern is None
        try:
            self.root, self.split, self.label = _locate(self.given)
            self.parts = _parts(self.root)
            self.named, self.studies, self.imageless = _told_by_headers(self.root)
            self.known: set[str] = set()  # patients of a header, a subfolder or a pattern
            self.headers: dict[str, set[str | None]] = {}  # class -> whom its files name
            for file in sorted(_files(self.root, self.root)):
                if os.path.realpath(file) in self.imageless:
                    self._skip(file, "DICOM without an image in it")
                if file.name.lower().endswith(UNREAD):
                    self._skip(file, "of a format that is not read: save it as PNG")
            self.candidates = list(self._candidates())
        except OSError as error:
            raise DatasetError(
                f"{error.filename}: cannot be read ({error.strerror}): check its permissions"
            ) from error
        if not self.candidates:
            kinds = ", ".join(sorted(suffix[1:] for suffix in (*SUFFIXES, DICOM)))
            raise DatasetError(
                f"{self.given}: no images in this folder: put files of type {kinds} in it, or in a "
                "subfolder a class, or in train, val and test above those"
            )
        if not self.matched:
            file = self.candidates[0].id
            raise DatasetError(f"{path}: patient_pattern {patient_pattern!r} matches no file, such as {file}")
        self._refuse_patients_as_classes()
        self.classes = tuple(sorted({candidate.label for candidate in self.candidates}, key=_healthy_first))
        found = {candidate.split for candidate in self.candidates}
        self.splits = tuple(split for split in SPLITS if split in found)

    def load(self, request: Request) -> ImageSet:
        """The images asked for, centre-cropped to a square and resized to `request.side`.

        Raises DatasetError for a split, a class or a number of images that is not there.
        """
        if self.label and request.label not in (None, self.label):
            raise DatasetError(
                f"{request.spec}: names class {self.label!r}, label={request.label!r} asked for: "
                "drop one of the two"
            )
        if self.split and request.split not in (self.split, "all"):
            raise DatasetError(
                f"{request.spec}: is the split {self.split!r}, {request.split!r} asked for: name "
                f"{self.root}, or give split={self.split!r}"
            )
        if request.split not in (*self.splits, "all"):
            raise DatasetError(
                f"{request.spec}: no split {request.split!r}: there are {', '.join(self.splits)}; "
                "hold some of 'train' out, or add a folder of that name"
            )
        wanted = replace(request, label=request.label or self.label)
        found = collect(self.candidates, wanted, self.classes)
        return replace(found, skipped=self.skipped + found.skipped, note=self.rule)

    @property
    def rule(self) -> str:
        """How the split was made."""
        if self.parts:
            return "split as the folders are" + self._shared_patients()
        patients = len({candidate.patient for candidate in self.candidates})
        return f"split by a hash of the patient, 80/10/10 % of {patients} patients; no seed"

    def _candidates(self) -> Iterator[Candidate]:
        if not self.parts:
            yield from self._of_folder(self.root, None)
            return
        folders = [folder for folder, _ in self.parts]
        for file in self._images(self.root):
            if not any(file.is_relative_to(folder) for folder in folders):
                self._skip(file, "beside the split folders")
        for folder, split in self.parts:
            if self.split in (None, split):
                yield from self._of_folder(folder, split)

    def _of_folder(self, folder: Path, split: str | None) -> Iterator[Candidate]:
        """Classes of one folder, or its own images where it has no class folders."""
        for sub in _subfolders(folder):
            if len(_parts(sub)) > 1:  # read as one class, its test images would be trained on
                raise DatasetError(
                    f"{sub}: has folders for the splits in it: name it alone, or put train, val "
                    "and test above the classes"
                )
        classes = [(sub, self._images(sub)) for sub in _subfolders(folder)]
        loose = self._images(folder, deep=False)
        if any(files for _, files in classes):
            for file in loose:
                self._skip(file, "beside the class folders")
        else:
            classes = [(folder, loose)]
        for sub, files in classes:
            # Under "folder" and under "folder/tumour" an image has the same id, so that both
            # ways choose the same images.
            label = sub.name if sub != folder or split is None else self.root.name
            mates: dict[str, set[str]] = {}  # subfolder -> whom the DICOM in it names
            for file in files:
                if (told := self.named.get(os.path.realpath(file))) is not None:
                    mates.setdefault(file.relative_to(sub).parts[0], set()).add(told)
            for file in files:
                name = f"{label}/{file.relative_to(sub).as_posix()}"
                patient = self._patient(file, sub, mates)
                self.headers.setdefault(label, set()).add(self.named.get(os.path.realpath(file)))
                yield Candidate(
                    id=f"{split}/{name}" if split else name,
                    patient=patient,
                    label=label,
                    split=split or assigned_split(patient),
                    read=partial(read_image, file),
                )

    def _images(self, folder: Path, deep: bool = True) -> list[Path]:
        files = sorted(filter(is_image, _files(folder, self.root, deep)))
        return [file for file in files if os.path.realpath(file) not in self.imageless]

    def _refuse_patients_as_classes(self) -> None:
        """Of an export by patient, a folder each, every patient would be a class, and be named by it."""
        named = [names - {None} for names in self.headers.values()]
        alone = all(len(names) == 1 for names in named)
        if alone and not self.pattern and len(named) == len(set().union(*named)) > 2:
            raise DatasetError(
                f"{self.given}: each of its {len(named)} subfolders is of one patient, by what its DICOM "
                "says: put them into a folder that is named by their class"
            )

    def _shared_patients(self) -> str:
        """What is known of patients who are in several of the given splits, for `rule`."""
        of: dict[str, set[str]] = {name: set() for name in self.known}
        for candidate in self.candidates:
            if candidate.patient in of:
                of[candidate.patient].add(candidate.split)
        shared = sum(len(splits) > 1 for splits in of.values())
        return f"; patients in more than one: {shared}" if shared else ""

    def _skip(self, file: Path, reason: str) -> None:
        self.skipped.append((file.relative_to(self.root).as_posix(), reason))

    def _patient(self, file: Path, folder: Path, mates: dict[str, set[str]]) -> str:
        """Of a file of the class whose folder this is; mates: subfolder -> whom the DICOM in it names."""
        path = file.relative_to(folder)
        # Numbered files have no suffix, though a dot may stand in their names.
        name = path.stem if path.suffix.lower() in (*SUFFIXES, DICOM) else path.name
        told = self.named.get(os.path.realpath(file))
        if len(path.parts) > 1 and (self.studies or told is None):  # a subfolder may hold several studies
            around = set() if self.studies else mates.get(path.parts[0], set())
            told = next(iter(around)) if len(around) == 1 else path.parts[0]
        if self.pattern:
            match = self.pattern.search(name) or self.pattern.search(path.as_posix())
            self.matched |= match is not None
            told = (match and (match[1] if match.re.groups else match[0])) or told
        if told is None:
            return name
        self.known.add(told)
        return told


def _locate(given: Path) -> tuple[Path, str | None, str | None]:
    """The root of the data set that a path points into, and the split and the class it names."""
    if given.is_dir():
        here = Path(os.path.abspath(given))  # so that "." has a name; links keep theirs
        for folder in (here, here.parent):
            split = SPLIT_NAMES.get(folder.name.lower())
            # A lone folder called "test" may be anyone's; one of several is a split.
            if split and len(_parts(folder.parent)) > 1:
                return folder.parent, split, here.name if folder != here else None
        return here, None, None
    if given.exists():
        raise DatasetError(f"{given}: a file, not a folder: name the folder that holds the images")
    if given.parent.is_dir():
        parts = _parts(given.parent)
        classes = sorted({sub.name for folder, _ in parts for sub in _subfolders(folder)})
        if given.name in classes:
            return Path(os.path.abspath(given.parent)), None, given.name
        there = classes or [sub.name for sub in _subfolders(given.parent)]
        if len(there) > LISTED:
            there = difflib.get_close_matches(given.name, there)
        if there:
            raise DatasetError(f"{given}: no such folder or class: there are {', '.join(there)}")
    raise DatasetError(
        f"{given}: no such folder: name a folder of images, or a phantom such as phantom:prostate"
    )


def _parts(root: Path) -> list[tuple[Path, str]]:
    """The split folders right under a folder."""
    named = [(sub, SPLIT_NAMES.get(sub.name.lower())) for sub in _subfolders(root)]
    return [(sub, split) for sub, split in named if split]


def _healthy_first(name: str) -> tuple[bool, str]:
    return re.sub(r"[\W_]+", "_", name.lower()) not in HEALTHY, name


def _subfolders(folder: Path) -> list[Path]:
    return sorted(sub for sub in folder.iterdir() if sub.is_dir() and not _hidden(sub.name))


def _files(folder: Path, root: Path, deep: bool = True) -> list[Path]:
    """The files of a folder of the data set `root` and, if `deep`, of its subfolders.

    Links to folders are followed, but not those to what is above them or in the data set already.
    """
    found, seen, whole = [], {os.path.realpath(folder)}, os.path.realpath(root)
    for top, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        here, inner = Path(os.path.realpath(top)), {}
        for name in sorted(folders):
            place = Path(os.path.realpath(here / name))
            known = place.is_relative_to(whole) and (here / name).is_symlink()
            if not (_hidden(name) or known or here.is_relative_to(place) or str(place) in seen):
                inner.setdefault(str(place), name)
        folders[:] = inner.values() if deep else ()
        seen.update(inner)
        found += [Path(top, name) for name in files if not _hidden(name)]
    return found


def _told_by_headers(root: Path) -> tuple[dict[str, str], bool, set[str]]:
    """DICOM file -> whose it is, of those that tell patients apart; whether by their studies; and which have
    no image in them. Files by their true paths, whatever links lead to them.
    """
    files = list(filter(is_dicom, _files(root, root)))
    if not files:
        return {}, False, set()
    from lib.dicom import header_of  # few need it, and it is slow to import

    found = {os.path.realpath(file): header_of(file) for file in files}
    imageless = {file for file, header in found.items() if not header.image}
    for kind in ("patient", "study"):  # the study, where anonymised files tell no patients apart
        named = {
            file: name for file, header in found.items() if header.image and (name := getattr(header, kind))
        }
        if len(set(named.values())) > 1:
            return named, kind == "study", imageless
    return {}, False, imageless


def _raise(error: OSError) -> None:
    raise error  # os.walk would leave the folder out in silence


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
