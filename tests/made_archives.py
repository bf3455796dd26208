"""Small data sets exactly as CheXpert, PI-CAI and PatchCamelyon are distributed, and DICOM files."""

import csv
import re
from pathlib import Path

import h5py
import numpy as np
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from lib.chexpert import FINDINGS

CHEXPERT_HEADER = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]
PICAI_HEADER = [
    *("patient_id", "study_id", "mri_date", "patient_age", "psa", "psad", "prostate_volume"),
    *("histopath_type", "lesion_GS", "lesion_ISUP", "case_ISUP", "case_csPCa", "center"),
]
RESAMPLED, POOCH, ORIGINAL = (
    f"csPCa_lesion_delineations/human_expert/{who}" for who in ("resampled", "Pooch25", "original")
)
BOSMA = "csPCa_lesion_delineations/AI/Bosma22a"
MARKSHEET = "clinical_information/marksheet.csv"
GLAND = "anatomical_delineations/whole_gland/AI/Bosma22b"


def write_csv(file: Path, header, rows) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


def xray(patient: int, view="frontal", side="AP", split="train", study=1, **labels):
    """One row of the CSV: labels by column, underscores for blanks; everything else is unmentioned."""
    path = f"CheXpert-v1.0-small/{split}/patient{patient:05d}/study{study}/view1_{view}.jpg"
    named = {name.replace("_", " "): value for name, value in labels.items()}
    assert set(named) <= set(FINDINGS)
    findings = [named.get(name, "") for name in FINDINGS]
    return [path, "Female", 61, view.title(), side if view == "frontal" else "", *findings]


def write_chexpert(root: Path, train, valid=(), header=CHEXPERT_HEADER) -> Path:
    """CSV files and one JPEG a row, wider than high, its grey level the patient's number."""
    write_csv(root / "train.csv", header, train)
    write_csv(root / "valid.csv", header, valid)
    for row in (*train, *valid):
        file = root.joinpath(*row[0].split("/")[1:])
        file.parent.mkdir(parents=True, exist_ok=True)
        number = re.search(r"patient(\d+)", row[0])
        Image.new("L", (39, 32), int(number[1]) % 256 if number else 0).save(file, quality=95)
    return root


def write_volume(file: Path, values, spacing, centre=(0.0, 0.0, 0.0), direction=None) -> Path:
    """values [z, y, x], spacing [mm] x, y, z; the volume's middle lies at `centre` [mm]."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(values))
    image.SetSpacing(spacing)
    if direction is not None:
        image.SetDirection(np.ravel(direction).tolist())
    axes = np.array(image.GetDirection()).reshape(3, 3)
    image.SetOrigin((centre - axes @ ((np.array(image.GetSize()) - 1) / 2 * spacing)).tolist())
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(file), useCompression=True)
    return file


def ball(shape, spacing, place, radius, value=1, dtype=np.uint8):
    """[z, y, x] with `value` within `radius` [mm] of `place` (x, y, z) [mm] from the middle."""
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape[::-1], spacing, strict=True)]
    x, y, z = (axis - at for axis, at in zip(axes, place, strict=True))
    inside = x[None, None] ** 2 + y[None, :, None] ** 2 + z[:, None, None] ** 2 <= radius**2
    return (inside * value).astype(dtype)


class MadePiCai:
    """IMAGES and LABELS on disk; `study` adds a patient, `close` writes the marksheet."""

    T2W = ((9, 80, 80), (2.0, 2.0, 3.6))  # shape z, y, x; spacing x, y, z [mm]: 160 x 160 x 32.4 mm
    DIFFUSION = ((9, 56, 60), (3.0, 3.0, 3.6))  # 180 x 168 mm

    def __init__(self, root: Path):
        self.images, self.labels = root / "images", root / "picai_labels"
        self.rows, self.names = [], []
        self.images.mkdir(parents=True)

    @property
    def spec(self) -> str:
        return f"picai:{self.images},{self.labels}"

    def study(
        self,
        patient,
        tumour=False,
        lesion=None,
        folder=RESAMPLED,
        gland=True,
        study=None,
        place=(6, -4, 3.6),
        volumes=True,
    ):
        """`lesion`: whether there is a delineation (default: of a tumour); ball of 6 mm at `place`.

        Without `volumes`, files that hold nothing stand for them.
        """
        study = study or 10**6 + patient
        name = f"{patient}_{study}"
        self.rows.append(
            [patient, study, "2019-07-02", 74, 7.7, "", 55, "MRBx", "0+0,3+4", "0,2", 2 * tumour]
            + ["YES" if tumour else "NO", "RUMC"]
        )
        self.names.append(name)
        if not volumes:
            files = [self.volume(name, modality) for modality in ("t2w", "adc", "hbv")]
            for file in (*files, self.labels / GLAND / f"{name}.nii.gz"):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
            return name
        rng = np.random.default_rng(patient)
        shape, spacing = self.T2W
        t2w = ball(shape, spacing, (0, 0, 0), 22, 300, np.int16) + rng.integers(40, 60, shape, np.int16)
        for modality in ("adc", "hbv"):
            self.diffusion(name, modality, place if tumour else None)
        write_volume(self.volume(name, "t2w"), t2w, self.T2W[1])
        shape, spacing = self.T2W
        if gland:
            self.mask(GLAND, name, ball(shape, spacing, (0, 0, -1.8), 20))
        if lesion or (tumour and lesion is None):
            value = 1 if "Pooch" in folder or "AI" in folder else 3
            self.mask(folder, name, ball(shape, spacing, place, 6, value))
        return name

    def diffusion(self, name, modality, place=None, centre=(0, 0, 0)):
        """ADC or DWI with a lesion at `place`, the field's middle at `centre` [mm]."""
        shape, spacing = self.DIFFUSION
        lesion = np.zeros(shape, np.int16)
        if place is not None:
            lesion = ball(shape, spacing, np.subtract(place, centre), 6, 1, np.int16)
        values = 1200 - 700 * lesion if modality == "adc" else 20 + 80 * lesion
        values[0, 0, 0] += 1  # of no volume are all voxels equal
        write_volume(self.volume(name, modality), values, spacing, centre)

    def mask(self, folder, name, values, spacing=None):
        return write_volume(self.labels / folder / f"{name}.nii.gz", values, spacing or self.T2W[1])

    def volume(self, name, modality):
        return self.images / name.split("_")[0] / f"{name}_{modality}.mha"

    def close(self, header=PICAI_HEADER):
        write_csv(self.labels / MARKSHEET, header, self.rows)
        return self


def write_pcam(root: Path, counts=None, slides=None, side=96, **storage) -> Path:
    """x and y of each split. Patch i is grey at i and, of a tumour (odd i), its middle 32 pixels are red.

    counts: {"train": 24, ...}; slides: {"train": [wsi of each patch], ...} for the tables beside them;
    storage: h5py's, such as chunks and compression.
    """
    root.mkdir(parents=True, exist_ok=True)
    for split, count in (counts or {"train": 24, "valid": 8, "test": 8}).items():
        labels = np.arange(count) % 2
        x = np.empty((count, side, side, 3), np.uint8)
        x[:] = np.arange(count)[:, None, None, None]
        x[labels == 1, 32:64, 32:64, 0] = 250
        stem = f"camelyonpatch_level_2_split_{split}"
        for key, values in {"x": x, "y": labels.astype(np.uint8).reshape(-1, 1, 1, 1)}.items():
            with h5py.File(root / f"{stem}_{key}.h5", "w") as file:
                file.create_dataset(key, data=values, **(storage if key == "x" else {}))
        if slides and split in slides:
            rows = [[i, 10, 20, bool(i % 2), bool(i % 2), slide] for i, slide in enumerate(slides[split])]
            header = ["", "coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi"]
            write_csv(root / f"{stem}_meta.csv", header, rows)
    return root


def write_dicom(file, pixels, syntax=ExplicitVRLittleEndian, encoded=None, **tags):
    """Writes `pixels` [H, W] or [H, W, 3] as DICOM; `tags` add to or replace what is written of them."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    header.PatientName, header.Rows, header.Columns = "Doe^Jane", *pixels.shape[:2]
    header.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    header.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    header.BitsAllocated = header.BitsStored = 8 * pixels.itemsize
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        header.PlanarConfiguration = 0
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.PixelData = encapsulate([encoded]) if encoded else pixels.tobytes()
    for name, value in tags.items():
        setattr(header, name, value)
    if "PixelData" in header:
        header["PixelData"].VR = "OB" if encoded or pixels.itemsize == 1 else "OW"
    file.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(file, enforce_file_format=True)
    return file
