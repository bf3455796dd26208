"""Shapes and textures on a pixel grid: the brushes with which lib.world paints.

Everything is numpy float32 in image coordinates: x to the right and y downwards, both running from
-1 to 1 whatever the side, so that a scene looks the same at any resolution.
"""

from functools import lru_cache

import numpy as np
from scipy.ndimage import map_coordinates

#: name -> signed distance in the shape's own frame (u right, v down, half size about 1, r and a
#: its polar coordinates): negative inside. Blob-like shapes take random harmonics h.
SHAPES = {
    "circle": lambda u, v, r, a, h: r - 1,
    "oval": lambda u, v, r, a, h: (np.hypot(u / 1.15, v / 0.65) - 1) * 0.65,
    "square": lambda u, v, r, a, h: np.maximum(np.abs(u), np.abs(v)) - 0.85,
    "bar": lambda u, v, r, a, h: np.maximum(np.abs(u) - 1.2, np.abs(v) - 0.32),
    "line": lambda u, v, r, a, h: np.maximum(np.abs(u) - 1.5, np.abs(v) - 0.09),
    "triangle": lambda u, v, r, a, h: np.maximum(v - 0.7, np.abs(u) * 0.87 - v * 0.5 - 0.5),
    "ring": lambda u, v, r, a, h: np.abs(r - 0.8) - 0.2,
    "arc": lambda u, v, r, a, h: np.maximum(np.abs(r - 0.85) - 0.15, v - 0.1),
    "dome": lambda u, v, r, a, h: np.maximum(r - 1, v - 0.2),
    "cross": lambda u, v, r, a, h: np.minimum(
        np.maximum(np.abs(u) - 1, np.abs(v) - 0.3), np.maximum(np.abs(v) - 1, np.abs(u) - 0.3)
    ),
    "crescent": lambda u, v, r, a, h: np.maximum(r - 1, 0.85 - np.hypot(u, v + 0.5)),
    "star": lambda u, v, r, a, h: (r - 0.75 - 0.3 * np.cos(5 * a + 1.57)) * 0.7,
    "flower": lambda u, v, r, a, h: (r - 0.8 - 0.2 * np.cos(6 * a)) * 0.8,
    "drop": lambda u, v, r, a, h: np.hypot(u * (1.25 + 0.6 * np.clip(-v, -0.6, 1.2)), v * 0.9) - 0.9,
    "blob": lambda u, v, r, a, h: (
        r - 0.85 - 0.16 * np.cos(2 * a + h[0]) - 0.13 * np.cos(3 * a + h[1]) - 0.08 * np.cos(5 * a + h[2])
    ),
}


@lru_cache(maxsize=8)
def grid(side):
    """Pixel centres (x, y), each float32 [side, side] in (-1, 1)."""
    line = (np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1
    return np.meshgrid(line, line)


def coverage(shape, x, y, centre, radius, angle, softness, harmonics):
    """How much of each pixel (of size `softness` at least) the shape covers, in [0, 1]."""
    cos, sin = np.cos(angle), np.sin(angle)
    dx, dy = (x - centre[0]) / radius, (y - centre[1]) / radius
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    distance = SHAPES[shape](u, v, np.hypot(u, v), np.arctan2(v, u), harmonics)
    return np.clip(0.5 - distance * radius / softness, 0, 1)


def paint(canvas, cover, colour):
    """Blends `colour` (a triple, or an image [3, H, W]) over the canvas [3, H, W] in place."""
    colour = np.asarray(colour, np.float32)
    colour = colour[:, None, None] if colour.ndim == 1 else colour
    canvas += cover * (colour - canvas)


def stamp(canvas, shape, centre, radius, angle, softness, colour, harmonics):
    """Paints one small shape, touching only the pixels around it."""
    side = canvas.shape[-1]
    reach = 1.6 * radius + softness
    left, right = (int(np.clip((c + 1) * side / 2, 0, side)) for c in (centre[0] - reach, centre[0] + reach))
    top, bottom = (int(np.clip((c + 1) * side / 2, 0, side)) for c in (centre[1] - reach, centre[1] + reach))
    if left >= right or top >= bottom:
        return
    window = np.s_[top : bottom + 1, left : right + 1]
    x, y = grid(side)
    cover = coverage(shape, x[window], y[window], centre, radius, angle, softness, harmonics)
    paint(canvas[(slice(None), *window)], cover, colour)


@lru_cache(maxsize=8)
def _frequency(side):
    f = np.fft.fftfreq(side, 1 / side).astype(np.float32)
    radius = np.hypot(f[:, None], f[None, : side // 2 + 1])
    radius[0, 0] = 1
    return radius


def clouds(rng, side, exponent, lowest=0.0):
    """Gaussian field with a 1/f^exponent amplitude spectrum, zero mean, unit deviation.

    `lowest` (cycles an image) removes everything slower. Spectra of 1/f stand in for photographs
    (Baradad et al. 2021, arXiv 2106.05963).
    """
    f = _frequency(side)
    gain = f**-exponent
    gain[0, 0] = 0
    if lowest:
        gain = gain * (1 - np.exp(-((f / lowest) ** 2)))
    noise = rng.standard_normal((2, *f.shape), dtype=np.float32)
    field = np.fft.irfft2(gain * (noise[0] + 1j * noise[1]), s=(side, side)).astype(np.float32)
    return field / (field.std() + 1e-6)


def waves(rng, x, y, finest, n=16):
    """A smooth field of unit deviation: n plane waves of 0.3 to `finest` cycles across the image.

    Unlike `clouds` the same at any resolution.
    """
    frequency = 0.3 * (finest / 0.3) ** rng.random(n)
    angle, phase = rng.uniform(0, 2 * np.pi, (2, n))
    weight = rng.normal(0, 1, n) / frequency**0.7
    field = sum(
        w * np.cos(np.pi * f * (np.cos(a) * x + np.sin(a) * y) + p)
        for w, f, a, p in zip(weight, frequency, angle, phase, strict=True)
    )
    return field / np.sqrt(np.square(weight).sum() / 2)


def cells(rng, side, count, jitter):
    """Voronoi mosaic: (index of the nearest point, distance to the border in image units)."""
    points = rng.uniform(-1.1, 1.1, (count, 2)).astype(np.float32)
    if jitter < 1:
        n = int(np.ceil(np.sqrt(count)))
        lattice = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * 2.2 / n - 1.1] * 2), -1).reshape(-1, 2)
        points = (lattice + rng.uniform(-jitter, jitter, lattice.shape) / n).astype(np.float32)
    x, y = grid(side)
    distance = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    nearest = np.argpartition(distance, 1, axis=-1)[..., :2]
    two = np.sort(np.take_along_axis(distance, nearest, -1), -1)
    return distance.argmin(-1), two[..., 1] - two[..., 0]


def enlarge(table, side, order):
    """A small table [3, rows, columns] stretched to [3, side, side]: order 0 tiles, 1 blends, 3 smooth."""
    rows, columns = table.shape[1:]
    x = (np.arange(side) + 0.5) / side
    return np.einsum(
        "ir,crk,jk->cij",
        _stretch(x * rows - 0.5, rows, order),
        table,
        _stretch(x * columns - 0.5, columns, order),
    ).astype(np.float32)


def _stretch(position, n, order):
    """Weights [len(position), n] of nearest, linear or smoothstep interpolation, clamped at the ends."""
    low = np.clip(np.floor(position), 0, n - 1).astype(int)
    t = np.clip(position - low, 0, 1)
    if order == 0:
        t = (t >= 0.5).astype(float)
    elif order == 3:
        t = t * t * (3 - 2 * t)
    weights = np.zeros((len(position), n))
    rows = np.arange(len(position))
    np.add.at(weights, (rows, low), 1 - t)
    np.add.at(weights, (rows, np.minimum(low + 1, n - 1)), t)
    return weights


def displace(image, shift_x, shift_y):
    """Image [3, H, W] looked up at pixels displaced by the two fields (in pixels), bilinear."""
    side = image.shape[-1]
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    at = np.stack([rows + shift_y, columns + shift_x])
    return np.stack([map_coordinates(c, at, order=1, mode="nearest") for c in image]).astype(np.float32)
