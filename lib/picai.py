"""PI-CAI prostate MRI as distributed (Saha et al., zenodo 6517398): .mha volumes, picai_labels beside them.

One slice of each study becomes one image, T2W, ADC and high-b-value DWI as red, green and blue, by the
steps of the paper (section "Data"; its authors' convert_to_2d.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from lib.archives import Archive, read_table
from lib.imagesets import Candidate, DatasetError, UnreadableError, assigned_split
from lib.pixels import square
from lib.volumes import Grid, field_of, inside, normalised, read_volume, resampled

MODALITIES = ("t2w", "adc", "hbv")
MARKSHEET = "clinical_information/marksheet.csv"
CLASSES = {"NO": "normal", "YES": "tumour"}  # by case_csPCa: cancer of ISUP grade 2 and above
#: Where delineations lie, the one to be preferred first. Resampled ones are on the T2W grid, originals on
#: that of whatever they were drawn on; both carry where they are, so either goes.
EXPERT = tuple(
    f"csPCa_lesion_delineations/human_expert/{who}" for who in ("resampled", "Pooch25", "original")
)
AI = ("csPCa_lesion_delineations/AI/Bosma22a",)
GLAND = ("anatomical_delineations/whole_gland/AI/Bosma22b",)
COVERED = 0.9  # least share of the T2W crop that ADC and DWI must cover; less shows as a black border


@dataclass(frozen=True)
class Study:
    """The files of one study."""

    volumes: tuple[Path, ...]  # as MODALITIES
    gland: Path | None
    lesion: Path | None
    tumour: bool


class PiCai(Archive):
    """`picai:IMAGES,LABELS`: the folder of the patients' folders (or of the folds that hold them), and a
    copy of the repository picai_labels.

    classes   normal, tumour: case_csPCa NO and YES of the marksheet
    lesions   expert: delineations by people only; combined: by AI (Bosma22a) where there is none. The paper
              took the AI's too; in a copy of the labels with Pooch25 in it people delineated them all

    Images: resampled to (3, 0.5, 0.5) mm on the grid of the T2W volume, each volume scaled from its own
    least to its own greatest value; of a normal study the middle slice of the gland, of one with tumour
    that with the largest lesion area, as in the paper, so that a classifier may tell one from the other by
    the level alone; the central 300 x 300 (150 mm), resized. ADC and DWI are laid onto
    T2W by their place in the scanner; the paper's script laid their centres onto each other.

    Truth: `lesion` and `gland`, bool [n, side, side]. The gland is False everywhere for a study with
    tumour whose gland nobody delineated. A study without a file that it needs is skipped by name.
    """

    PREFIX = "picai"
    CLASSES = tuple(CLASSES.values())
    OPTIONS = {"lesions": ("expert", "combined")}

    def __init__(self, rest: str, patient_pattern: str | None = None) -> None:
        super().__init__(rest, patient_pattern)
        self.table = read_table(self.folders[1] / MARKSHEET, ("patient_id", "study_id", "case_csPCa"))

    def _scan(self) -> Iterator[Candidate]:
        images, labels = self.folders
        file, table = labels / MARKSHEET, self.table
        roots = [images, *sorted(p for p in images.iterdir() if p.is_dir() and not p.name.isdigit())]
        for line, row in enumerate(zip(table.patient_id, table.study_id, table.case_csPCa, strict=True), 2):
            patient, study, answer = (str(value).strip() for value in row)
            if answer not in CLASSES or not (patient.isdigit() and study.isdigit()):
                raise DatasetError(
                    f"{file}: line {line}: patient {patient}, study {study}, case_csPCa {answer}: two "
                    "numbers and YES or NO are expected: take the file as distributed"
                )
            if CLASSES[answer] in self.wanted:
                yield from self._candidate(roots, patient, f"{patient}_{study}", CLASSES[answer])

    def _candidate(self, roots: list[Path], patient: str, name: str, label: str) -> Iterator[Candidate]:
        """The study, or nothing and an entry in `skipped`."""
        tumour, labels = label == "tumour", self.folders[1]
        volumes = [_first(roots, f"{patient}/{name}_{modality}.mha") for modality in MODALITIES]
        lesions = EXPERT + (AI if tumour and self.options["lesions"] == "combined" else ())
        gland, lesion = (
            _first([labels / sub for sub in subs], f"{name}.nii.gz") for subs in (GLAND, lesions)
        )
        missing = [modality for modality, volume in zip(MODALITIES, volumes, strict=True) if volume is None]
        if missing:
            files = ", ".join(f"{name}_{modality}.mha" for modality in missing)
            self.skipped.append((name, f"no volume: {files} under {roots[0]}: download its fold"))
        elif tumour and lesion is None:
            way = "" if self.options["lesions"] == "combined" else ", or take lesions=combined"
            reason = f"no lesion delineation: {name}.nii.gz in none of {', '.join(lesions)}"
            self.skipped.append((name, f"{reason}: update {labels}{way}"))
        elif not tumour and gland is None:
            reason = f"no gland delineation: {name}.nii.gz not in {GLAND[0]}"
            self.skipped.append((name, f"{reason}: update {labels}"))
        else:
            study = Study(tuple(volumes), gland, lesion, tumour)
            split = assigned_split(patient, self.split_seed)
            yield Candidate(name, patient, label, split, partial(read_study, study))


def read_study(study: Study, side: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The image float32 [3, side, side] in [0, 1] of one study, with its masks bool [side, side].

    Raises UnreadableError, "kind of fault: file and way out".
    """
    t2w, *others = (read_volume(file) for file in study.volumes)
    grid = field_of(t2w)
    gland, lesion = (
        np.zeros(grid.size[::-1], bool) if file is None else resampled(read_volume(file), grid, True) > 0.5
        for file in (study.gland, study.lesion)
    )
    chosen = _slice_of(study, gland, lesion)
    plane = grid.slice(chosen)
    _check_cover(study, plane, t2w, others)
    pixels = [
        square(resampled(normalised(volume, file.name), plane)[0].clip(0, 1), side)
        for volume, file in zip((t2w, *others), study.volumes, strict=True)
    ]
    masks = {"lesion": _resized(lesion[chosen], side), "gland": _resized(gland[chosen], side)}
    return np.stack(pixels), masks


def _slice_of(study: Study, gland: np.ndarray, lesion: np.ndarray) -> int:
    """The largest lesion area of a study with tumour; the gland's middle slice of one without."""
    if study.tumour:
        if not lesion.any():
            raise UnreadableError(
                f"empty lesion delineation: {_named(study.lesion)} has no voxel set in the central 150 mm, "
                "though case_csPCa is YES: download it again, or remove it for that of another folder"
            )
        return int(lesion.sum((1, 2)).argmax())
    if lesion.any():
        raise UnreadableError(
            f"lesion in a normal study: {_named(study.lesion)} has voxels set, though case_csPCa is NO: take "
            "marksheet and delineations of one release"
        )
    if not gland.any():
        raise UnreadableError(
            f"empty gland delineation: {_named(study.gland)} has no voxel set in the central 150 mm: "
            "download it again"
        )
    return int(np.median(np.flatnonzero(gland.any((1, 2)))))


def _check_cover(study: Study, plane: Grid, t2w, others) -> None:
    """Raise UnreadableError where ADC or DWI show too little of what T2W shows of the slice."""
    shown = inside(t2w, plane)
    for volume, file in zip(others, study.volumes[1:], strict=True):
        share = (inside(volume, plane) & shown).sum() / max(shown.sum(), 1)
        if share < COVERED:
            raise UnreadableError(
                f"volumes disagree: {file.name} ({_extent(volume)}) covers {share:.0%} of the slice of "
                f"{study.volumes[0].name} ({_extent(t2w)}): download the study again"
            )


def _named(file: Path) -> str:
    """With its folder: the same name is in several."""
    return f"{file.parent.name}/{file.name}"


def _extent(volume) -> str:
    """ "20 x 24 x 5 voxels, 40 x 48 x 15 mm"."""
    lengths = [n * step for n, step in zip(volume.GetSize(), volume.GetSpacing(), strict=True)]
    sizes = (" x ".join(f"{value:.0f}" for value in values) for values in (volume.GetSize(), lengths))
    return "{} voxels, {} mm".format(*sizes)


def _resized(mask: np.ndarray, side: int) -> np.ndarray:
    """bool [side, side]: pixels that the mask covers at least by half; of a speck, those it covers most."""
    cover = Image.fromarray(mask.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
    cover = np.asarray(cover)
    return (cover >= min(0.5, cover.max())) & (cover > 0)


def _first(folders: list[Path], name: str) -> Path | None:
    """The file of that name in the first of the folders that has it."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
