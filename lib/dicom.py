"""DICOM files of one image, as a viewer first shows them, and whose they are; decoded by pydicom."""

from __future__ import annotations

import hashlib
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing, get_decoder, pixel_array

from lib.imagesets import UnreadableError, naming_damage

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")  # decoded as RGB
BEYOND = 1e12  # past the ends of any window
# What pydicom raises for a damaged file, besides what any decoder does.
OWN = (InvalidDicomError, BytesLengthException, AttributeError, RuntimeError, OverflowError, zlib.error)
# Of which an empty one says as much as none.
OPTIONAL = (
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
)


class Header(NamedTuple):
    """Hashes for the patient and the study that a file names, "" for none; whether it has an image."""

    patient: str
    study: str
    image: bool


def header_of(file: Path) -> Header:
    """What a DICOM file's header says; of one that cannot be read, that it names nobody."""
    try:
        with naming_damage(*OWN), warnings.catch_warnings(action="ignore"):
            wanted = ["PatientID", "StudyInstanceUID", "Rows"]
            header = dcmread(file, stop_before_pixels=True, specific_tags=wanted)
            return Header(
                _hash("patient", header.get("PatientID")),
                _hash("study", header.get("StudyInstanceUID")),
                "Rows" in header,
            )
    except UnreadableError:  # said once, where the image is read
        return Header("", "", True)


def _hash(kind: str, name) -> str:
    named = str(name or "").strip()
    return f"{kind}-{hashlib.sha256(named.encode()).hexdigest()[:12]}" if named else ""


def read_dicom(file: Path) -> list[np.ndarray]:
    """One grey or three colour channels, float32 [H, W] in [0, 1].

    Grey goes through what the file itself asks for: stored values become the modality's (Hounsfield units,
    say), then its first window, or the table in a window's place, whose highest entry is 1; with neither,
    the least value that is not padding becomes 0 and the greatest 1. MONOCHROME1, whose least value is
    white, is turned; padding is black. Colour is of eight bits a channel. Raises UnreadableError with the
    reason, for files of several frames too.
    """
    with naming_damage(*OWN), warnings.catch_warnings(action="ignore"):  # of values against the standard
        try:
            header = dcmread(file)
        except InvalidDicomError as error:  # its own text tells programmers what to do
            raise UnreadableError("not a DICOM file, or one without its preamble") from error
        if "PixelData" not in header:
            raise UnreadableError("DICOM without an image in it")
        if (frames := int(header.get("NumberOfFrames") or 1)) > 1:
            raise UnreadableError(f"{frames} frames: save one image a file")
        if "SharedFunctionalGroupsSequence" in header:  # which keeps window and units elsewhere
            raise UnreadableError("an enhanced object: save it as a classic one, one image a file")
        syntax = header.file_meta.TransferSyntaxUID
        if not get_decoder(syntax).is_available:
            raise UnreadableError(f"compressed by {syntax.name}: save it uncompressed")
        stored, kind = pixel_array(header), header.PhotometricInterpretation
        if kind in GREY:
            return [_grey(stored, header).astype(np.float32)]
        if kind not in COLOUR or stored.ndim != 3 or stored.dtype != np.uint8:
            raise UnreadableError(f"{kind} of {header.BitsStored} bits: save it as grey, or RGB of 8")
        return list(np.moveaxis(stored / np.float32(255), 2, 0))


def _grey(stored: np.ndarray, header) -> np.ndarray:
    """Grey values [H, W] in [0, 1] of stored ones."""
    for name in OPTIONAL:
        if name in header and header[name].is_empty:
            del header[name]
    padding = _padding(stored, header)
    values = apply_modality_lut(stored, header)
    if _has_window(header):
        with np.errstate(over="ignore"):
            ends = apply_windowing(np.array([-BEYOND, BEYOND]), header)
            values = apply_windowing(values, header)
    elif header.get("VOILUTSequence"):
        first, table = _table(header)
        values = table[np.clip(np.rint(values) - first, 0, len(table) - 1).astype(int)]
        ends = (0, table.max())
    else:
        image = values[~padding]
        ends = (image.min(), image.max()) if image.size else (0, 1)
    shown = ((values - float(ends[0])) / (float(ends[1]) - float(ends[0]) or 1)).clip(0, 1)
    if not np.isfinite(shown).all():
        raise UnreadableError("holds values that are not finite")
    if header.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    return np.where(padding, 0, shown)


def _has_window(header) -> bool:
    """Whether there is a window, and of a width that its function is defined for."""
    if "WindowCenter" not in header or "WindowWidth" not in header:
        return False
    width = np.atleast_1d(header.WindowWidth)[0]
    return width >= 1 if header.get("VOILUTFunction", "LINEAR") == "LINEAR" else width > 0


def _table(header) -> tuple[int, np.ndarray]:
    """The first value of the first VOI table, and what it makes of that and of each next one."""
    entries, first, bits = header.VOILUTSequence[0].LUTDescriptor
    if bits == 8:  # pydicom counts the entries in as many bits as each has
        header.VOILUTSequence[0].LUTDescriptor = [entries, first, 16]
    return first, apply_voi(np.arange(first, first + (entries or 2**16)), header)


def _padding(stored: np.ndarray, header) -> np.ndarray:
    """bool [H, W]: what lies outside the scanner's field, by the file's own word."""
    first = header.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    # Some write it without its sign.
    limits = np.array([first, header.get("PixelPaddingRangeLimit", first)]).astype(stored.dtype)
    return (stored >= limits.min()) & (stored <= limits.max())
