"""Brushes of the phantoms: shapes, textures and optics in coordinates that know no pixels.

Everything lives in image coordinates, x to the right and y downwards, both from -1 to 1, and is
drawn at twice the final side, then averaged over 2 x 2 pixels; textures are splines on a lattice
of fixed size. So an image looks the same at 64 and at 128 pixels, only sharper.
"""

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SUPERSAMPLING = 2
_SPLINE_DEVIATION = 0.479  # of a cubic B-spline surface over unit normal weights


class Streams:
    """Independent random generators by purpose: `Streams(3, "chest")("ribs")`.

    Texture of one organ never shifts the draws of another, so overriding one parameter leaves the
    rest of an image as it was.
    """

    def __init__(self, *key: int | str):
        self._key = [_number(part) for part in key]

    def __call__(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([*self._key, _number(purpose)])


def _number(part: int | str) -> int:
    return zlib.crc32(part.encode()) if isinstance(part, str) else int(part)


@lru_cache(maxsize=4)
def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Supersampled pixel centres (x, y), float32 [2 side, 2 side] each, read-only."""
    size = SUPERSAMPLING * side
    line = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = np.meshgrid(line, line)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def cover(distance: np.ndarray, width: float) -> np.ndarray:
    """Opacity in [0, 1] of a shape with this signed distance (negative inside) and rim width."""
    return np.clip(0.5 - distance / width, 0, 1)


def ellipse(x, y, cx, cy, rx, ry, angle=0.0) -> np.ndarray:
    """Approximate signed distance to an ellipse, its axes turned clockwise by `angle` radians."""
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    rx, ry = float(rx), float(ry)
    dx, dy = x - float(cx), y - float(cy)
    u, v = dx * (cos / rx) + dy * (sin / rx), dy * (cos / ry) - dx * (sin / ry)
    return (np.sqrt(u * u + v * v) - 1) * min(rx, ry)


@dataclass(frozen=True)
class Canvas:
    """Pixels [C, H, W] with their coordinates x, y [H, W]; a crop is a view onto the same pixels.

    The coordinates may be warped by a little: then straight strokes come out organic.
    """

    pixels: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def crop(self, cx: float, cy: float, rx: float, ry: float) -> "Canvas":
        """The part within rx, ry (image units) of a point, for strokes that end there."""
        rows, columns = (
            slice(*(int(min(max(c, 0), 2) * size / 2) for c in (1 + m - r, 1 + m + r)))
            for m, r, size in zip((cy, cx), (ry, rx), self.x.shape, strict=True)
        )
        return Canvas(self.pixels[:, rows, columns], self.x[rows, columns], self.y[rows, columns])

    def over(self, opacity: np.ndarray, colour) -> None:
        """Blends a colour ([C] or [C, H, W]) over the pixels."""
        colour = np.asarray(colour, np.float32)
        colour = colour[:, None, None] if colour.ndim == 1 else colour
        self.pixels[...] += opacity * (colour - self.pixels)

    def ellipse(self, cx, cy, rx, ry, colour, angle=0.0, rim=0.03, opacity=1.0, hollow=0.0):
        """Paints an ellipse; `hollow` > 0 leaves only an outline of that half width."""
        reach = 0.06 + rim + hollow + max(rx, ry) if angle else None
        part = self.crop(cx, cy, reach or rx + rim + 0.06 + hollow, reach or ry + rim + 0.06 + hollow)
        distance = ellipse(part.x, part.y, cx, cy, rx, ry, angle)
        distance = np.abs(distance) - float(hollow) if hollow else distance
        part.over(cover(distance, rim) * float(opacity), colour)


@lru_cache(maxsize=64)
def _spline(cells: int, size: int) -> np.ndarray:
    """Cubic B-spline weights [size, cells + 3] of `size` pixel centres on `cells` lattice cells."""
    at = (np.arange(size) + 0.5) / size * cells
    knot = np.floor(at).astype(int)
    t = at - knot
    weights = np.zeros((size, cells + 3), np.float32)
    pieces = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for offset, piece in enumerate(pieces):
        weights[np.arange(size), knot + offset] = piece / 6
    return weights


def texture(rng, side: int, cells: int, octaves: int = 1, gain: float = 0.6) -> np.ndarray:
    """Smooth Gaussian field [2 side, 2 side], about zero mean and unit deviation.

    `cells` lattice cells span the image; each further octave doubles them at `gain` amplitude.
    """
    size = SUPERSAMPLING * side
    field, power = np.zeros((size, size), np.float32), 0.0
    for octave in range(octaves):
        weights = _spline(cells * 2**octave, size)
        lattice = rng.standard_normal((weights.shape[1], weights.shape[1]), dtype=np.float32)
        field += gain**octave * (weights @ lattice @ weights.T)
        power += gain ** (2 * octave)
    return field / np.float32(_SPLINE_DEVIATION * np.sqrt(power))


def expose(canvas: np.ndarray, blur: float, shift=(0.0, 0.0)) -> np.ndarray:
    """Optics: Gaussian blur (deviation in image units), shift and reduction to the final side.

    canvas [..., 2 side, 2 side] -> [..., side, side].
    """
    size = canvas.shape[-1]
    rows, columns = (_aperture(size, round(float(blur), 4), round(float(s), 4)) for s in shift[::-1])
    return rows @ canvas @ columns.T


@lru_cache(maxsize=256)
def _aperture(size: int, blur: float, shift: float) -> np.ndarray:
    fine = (np.arange(size) + 0.5) * (2 / size) - 1
    coarse = fine.reshape(-1, SUPERSAMPLING).mean(1) - shift
    # A Gaussian of half a final pixel at least stands for the area average of one pixel.
    deviation = np.hypot(blur, SUPERSAMPLING / size * 0.6)
    weights = np.exp(-0.5 * ((coarse[:, None] - fine) / deviation) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def reduce_mask(opacity: np.ndarray) -> np.ndarray:
    """Opacity [2 side, 2 side] -> bool [side, side]: pixels that are covered at least by half."""
    side = opacity.shape[-1] // SUPERSAMPLING
    return opacity.reshape(side, SUPERSAMPLING, side, SUPERSAMPLING).mean((1, 3)) >= 0.5


def stroke(field: np.ndarray, x, y, start, end, width, end_width) -> None:
    """Draws a tapering line of half widths `width` to `end_width` onto the field [H, W] in place.

    Only the rectangle around it is touched: x and y may differ from the plain grid by no more
    than a small turn, shift or zoom (0.3 in all).
    """
    size = field.shape[0]
    margin = 0.3 + max(width, end_width)
    (x0, y0), (x1, y1) = (tuple(map(float, p)) for p in (start, end))
    rows, columns = (
        slice(*(int(min(max(c, 0), 2) * size / 2) for c in (1 + min(a, b) - margin, 1 + max(a, b) + margin)))
        for a, b in ((y0, y1), (x0, x1))
    )
    dx, dy = x[rows, columns] - x0, y[rows, columns] - y0
    ax, ay = x1 - x0, y1 - y0
    t = np.clip((dx * ax + dy * ay) / (ax * ax + ay * ay + 1e-9), 0, 1)
    far = np.sqrt((dx - t * ax) ** 2 + (dy - t * ay) ** 2) - (width + (end_width - width) * t)
    field[rows, columns] = np.maximum(field[rows, columns], cover(far, 0.02))
