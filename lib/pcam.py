"""PatchCamelyon as distributed (Veeling et al. 2018, arXiv 1806.03962): 96 x 96 patches in HDF5 files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path

import h5py
import numpy as np

from lib.archives import Archive, in_later_split, read_table
from lib.imagesets import SPLITS, Candidate, DatasetError, ImageSet, Request, UnreadableError
from lib.pixels import square

NAMES = {"train": "train", "val": "valid", "test": "test"}
STEM = "camelyonpatch_level_2_split_{}_{}"
DAMAGED = (OSError, RuntimeError, KeyError, TypeError, MemoryError)  # what h5py makes of broken files
AGAIN = "download it again and compare its checksum"


class PCam(Archive):
    """`pcam:DIR`, DIR being the folder with camelyonpatch_level_2_split_train_x.h5 and its fellows.

    classes   normal, tumour: the label of the central 32 x 32 pixels

    The splits are the data set's own. Patients are the slides that the `*_meta.csv` files name (column
    wsi; CAMELYON16 has one slide of nearly every patient); without these files each patch stands for
    itself, and the note says so. Indices are chosen from y; of x only the chosen rows are read.
    """

    PREFIX = "pcam"
    CLASSES = ("normal", "tumour")

    def __init__(self, rest: str, patient_pattern: str | None = None) -> None:
        super().__init__(rest, patient_pattern)
        self._opened: dict[str, h5py.Dataset] = {}
        if not self.splits:
            raise DatasetError(
                f"{self.folders[0]}: no {STEM.format('train', 'x')}.h5 in it: name the folder of the "
                "files, gunzipped"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes asked for, the healthy one first."""
        return self.wanted

    @property
    def splits(self) -> tuple[str, ...]:
        """Those whose .h5 files are there, one of the two at least."""
        return tuple(s for s in SPLITS if any(self._file(s, part).is_file() for part in "xy"))

    @property
    def rule(self) -> str:
        """The owners' split is kept."""
        return "split as the files are; no seed"

    def load(self, request: Request) -> ImageSet:
        """As of every archive, with the files of patches open meanwhile."""
        with ExitStack() as stack:
            try:
                for split in self.splits:
                    if request.split in (split, "all"):
                        file = stack.enter_context(_opened(self._file(split, "x")))
                        self._opened[split] = self._patches(split, file)
                return super().load(request)
            finally:
                self._opened = {}

    def _scan(self) -> Iterator[Candidate]:
        for split in self.splits:
            yield from self._of_split(split)

    def _pool(self, split: str) -> Iterable[Candidate]:
        """Of one split alone: a damaged file costs its own split."""
        return self.candidates if split == "all" else self._of_split(split)

    def _of_split(self, split: str) -> Iterator[Candidate]:
        """One candidate a patch. Reads y and the tables of slides, of x nothing."""
        labels = self._labels(split)
        slides = self._slides
        twice = in_later_split(slides)[split]
        self.skipped += [
            (slide, f"slide of a later split too: left out of {split}") for slide in sorted(twice)
        ]
        if split not in slides:
            self.remarks.append(f"no {self._table(split).name}: each patch of {split} counts as a patient")
        elif len(slides[split]) != len(labels):
            raise DatasetError(
                f"{self._table(split)}: {len(slides[split])} rows for {len(labels)} patches: take the file "
                "of the same release, or take it away"
            )
        for i, label in enumerate(np.array(self.CLASSES)[labels].tolist()):
            name = f"{split}/{i:06d}"
            slide = slides[split][i] if split in slides else name
            if label in self.wanted and slide not in twice:
                yield Candidate(name, slide, label, split, partial(self._read, split, i))

    def _labels(self, split: str) -> np.ndarray:
        """y of a split: integers [N], 0 or 1."""
        file = self._file(split, "y")
        with _opened(file) as opened:
            labels = _values(opened, "y").reshape(-1)
        wrong = np.flatnonzero((labels != 0) & (labels != 1))
        if len(wrong):
            raise DatasetError(
                f"{file}: label {labels[wrong[0]]} in row {wrong[0]}, neither 0 nor 1: {AGAIN}"
            )
        return labels.astype(int)

    @cached_property
    def _slides(self) -> dict[str, list[str]]:
        """The slide of each patch, of the splits that came with a table of them."""
        files = {split: self._table(split) for split in self.splits}
        tables = {split: read_table(file, ["wsi"]) for split, file in files.items() if file.is_file()}
        for split, table in tables.items():
            if table.wsi.isna().any():
                line = int(table.wsi.isna().to_numpy().argmax()) + 2
                raise DatasetError(f"{files[split]}: line {line}: no wsi: {AGAIN}")
        return {split: table.wsi.tolist() for split, table in tables.items()}

    def _patches(self, split: str, file: h5py.File) -> h5py.Dataset:
        """x of a split, checked against y."""
        patches, count = _dataset(file, "x"), len(self._labels(split))
        if patches.ndim != 4 or patches.shape[3] != 3 or patches.dtype != np.uint8 or len(patches) != count:
            raise DatasetError(
                f"{file.filename}: x is {patches.dtype} {patches.shape}, not uint8 ({count}, 96, 96, 3) as "
                f"its y has it: {AGAIN}"
            )
        return patches

    def _read(self, split: str, row: int, side: int) -> np.ndarray:
        """One patch, float32 [3, side, side] in [0, 1]. Raises UnreadableError."""
        try:
            patch = self._opened[split][row]
        except DAMAGED as error:  # a damaged chunk costs the patches in it
            raise UnreadableError(f"damaged: row {row} of {self._file(split, 'x').name}: {AGAIN}") from error
        return np.stack([square(patch[:, :, channel] / np.float32(255), side) for channel in range(3)])

    def _file(self, split: str, part: str) -> Path:
        return self.folders[0] / f"{STEM.format(NAMES[split], part)}.h5"

    def _table(self, split: str) -> Path:
        return self.folders[0] / f"{STEM.format(NAMES[split], 'meta')}.csv"


def _opened(file: Path) -> h5py.File:
    """Raises DatasetError for a file that is missing, packed or cut short."""
    if not file.is_file():
        packed = file.with_name(f"{file.name}.gz")
        way = f"gunzip {packed.name}" if packed.is_file() else "download it"
        raise DatasetError(f"{file}: no such file: {way}")
    try:
        return h5py.File(file, "r")
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{file}: damaged or cut short ({reason}): {AGAIN}") from error


def _dataset(file: h5py.File, key: str) -> h5py.Dataset:
    """Raises DatasetError where the file has none of that name."""
    try:
        found, there = file.get(key), ", ".join(file) or "nothing"
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{file.filename}: damaged ({reason}): {AGAIN}") from error
    if not isinstance(found, h5py.Dataset):
        raise DatasetError(f"{file.filename}: no data set {key!r}, only {there}: {AGAIN}")
    return found


def _values(file: h5py.File, key: str) -> np.ndarray:
    """All of a data set. Raises DatasetError where it is damaged."""
    try:
        return _dataset(file, key)[()]
    except DAMAGED as error:
        raise DatasetError(f"{file.filename}: {key!r} is damaged: {AGAIN}") from error
