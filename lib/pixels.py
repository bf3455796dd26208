"""One file becomes pixels: PNG, JPEG, TIFF and their like by Pillow, DICOM by lib.dicom."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lib.imagesets import UnreadableError, naming_damage

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
DICOM = ".dcm"
INDEX = "DICOMDIR"  # the table of contents of a disc: DICOM, and no image
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a TIFF tag, and its value in what film scanners write
TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def read_image(file: Path, side: int) -> np.ndarray:
    """One file as float32 [3, side, side] RGB in [0, 1]: centre square, Lanczos, never flipped.

    The EXIF orientation is applied, transparency lies on black, grey is repeated. 8-bit values
    are divided by 255. Grey values of 16 bits and more are scaled from their own least to their own
    greatest: scanners put 10 to 14 bits in 16, so the type's range says nothing about the data. DICOM has
    a window of its own, see `lib.dicom`. Raises UnreadableError with the reason.
    """
    if is_dicom(file):
        from lib.dicom import read_dicom  # few need it, and it is slow to import

        channels = read_dicom(file)
    else:
        channels = _opened(file)
    pixels = np.stack([square(channel, side) for channel in channels])
    return np.broadcast_to(pixels, (3, side, side)).copy()


def _opened(file: Path) -> list[np.ndarray]:
    """The channels of a file that Pillow reads."""
    with naming_damage(*TOO_LARGE), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file) as image:
            if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
                raise UnreadableError(f"{image.n_frames} pages: save one image a file")
            if image.mode[0] not in "IF" and any(";16" in str(part) for part in image.tile):
                raise UnreadableError("colour of 16 bits a channel: save it with 8")  # Pillow drops half
            image.load()
            white = image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
            return _channels(ImageOps.exif_transpose(image), white)


def _channels(image: Image.Image, white_is_zero: bool) -> list[np.ndarray]:
    """One grey or three colour channels, float32 [H, W] in [0, 1]."""
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        if not np.isfinite(values).all():
            raise UnreadableError("holds values that are not finite")
        values = -values if white_is_zero else values  # Pillow turns those of up to 8 bits itself
        values -= values.min()
        return [(values / (values.max() or 1)).astype(np.float32)]
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    values = np.asarray(image, dtype=np.float32) / 255
    return [values] if values.ndim == 2 else list(np.moveaxis(values, 2, 0))


def is_image(file: Path) -> bool:
    """Whether a file is read as an image: by its suffix, DICOM by its first bytes too."""
    return file.suffix.lower() in SUFFIXES or is_dicom(file)


def is_dicom(file: Path) -> bool:
    """Whether a file is DICOM by its suffix or its first bytes: many are named by a number alone."""
    if file.name.upper() == INDEX or not file.is_file():
        return False
    if file.suffix.lower() == DICOM:
        return True
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def square(channel: np.ndarray, side: int) -> np.ndarray:
    """The central square of a channel [H, W] in [0, 1], resized by Lanczos to [side, side]."""
    height, width = channel.shape
    least = min(height, width)
    top, left = (height - least) // 2, (width - least) // 2
    image = Image.fromarray(np.ascontiguousarray(channel[top : top + least, left : left + least]))
    # Lanczos overshoots at edges, and Pillow widens it when it shrinks, so nothing aliases.
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS)).clip(0, 1)
