"""DICOM files of one image, as a viewer first shows them, and whose they are; decoded by pydicom."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing, get_decoder, pixel_array

from lib.imagesets import UnreadableError, naming_damage

GREY = ("MONOCHROME1", "MONOCHROME2")
BEYOND = 1e12  # past the ends of any window
# What pydicom raises for a damaged file, besides what any decoder does.
OWN = (InvalidDicomError, BytesLengthException, AttributeError, RuntimeError, OverflowError)


def patient_of(file: Path) -> str:
    """A hash that stands for the patient whom a DICOM file names; "" where it names none."""
    try:
        with naming_damage(*OWN), warnings.catch_warnings(action="ignore"):
            header = dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"])
            named = str(header.get("PatientID") or "").strip()
    except UnreadableError:  # said once, where the image is read
        return ""
    return f"patient-{hashlib.sha256(named.encode()).hexdigest()[:12]}" if named else ""


def read_dicom(file: Path) -> list[np.ndarray]:
    """One grey or three colour channels, float32 [H, W] in [0, 1].

    Grey goes through what the file itself asks for: stored values become the modality's (Hounsfield units,
    say), then its first window, or the table in a window's place; with neither, the least value that is not
    padding becomes 0 and the greatest 1. MONOCHROME1, whose least value is white, is turned. Colour is of
    eight bits a channel. Raises UnreadableError with the reason, for files of several frames too.
    """
    with naming_damage(*OWN), warnings.catch_warnings(action="ignore"):  # of values against the standard
        try:
            header = dcmread(file)
        except InvalidDicomError as error:  # its own text tells programmers what to do
            raise UnreadableError("not a DICOM file") from error
        if "PixelData" not in header:
            raise UnreadableError("DICOM without an image in it")
        if (frames := int(header.get("NumberOfFrames") or 1)) > 1:
            raise UnreadableError(f"{frames} frames: save one image a file")
        syntax = header.file_meta.TransferSyntaxUID
        if not get_decoder(syntax).is_available:
            raise UnreadableError(f"compressed by {syntax.name}: save it uncompressed")
        stored, kind = pixel_array(header), header.PhotometricInterpretation
        if kind in GREY:
            shown = _shown(stored, header)
            return [(1 - shown if kind == "MONOCHROME1" else shown).astype(np.float32)]
        if stored.ndim != 3 or stored.dtype != np.uint8:
            raise UnreadableError(f"{kind} of {header.BitsStored} bits: save it as grey, or RGB of 8")
        return list(np.moveaxis(stored / np.float32(255), 2, 0))


def _shown(stored: np.ndarray, header) -> np.ndarray:
    """Grey values [H, W] in [0, 1] of stored ones, before MONOCHROME1 is turned."""
    values = apply_modality_lut(stored, header)
    if all(header.get(name) not in (None, "") for name in ("WindowCenter", "WindowWidth")):
        with np.errstate(over="ignore"):
            ends = apply_windowing(np.array([-BEYOND, BEYOND]), header)
            values = apply_windowing(values, header)
    else:
        values = apply_voi(values, header).astype(np.float64)
        image = values[~_padding(stored, header)]
        ends = (image.min(), image.max()) if image.size else (0, 1)
    return ((values - ends[0]) / ((ends[1] - ends[0]) or 1)).clip(0, 1)


def _padding(stored: np.ndarray, header) -> np.ndarray:
    """bool [H, W]: what lies outside the scanner's field, by the file's own word."""
    first = header.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    last = header.get("PixelPaddingRangeLimit", first)
    return (stored >= min(first, last)) & (stored <= max(first, last))
