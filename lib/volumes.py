"""MRI volumes on one grid: read, normalised, resampled. Axes in SimpleITK are x, y, z; in arrays z, y, x."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lib.imagesets import UnreadableError

SPACING = np.array([0.5, 0.5, 3.0])  # mm; the paper's (3, 0.5, 0.5), which is z, y, x
FIELD = 300  # voxels across the central crop, 150 mm
MARGIN = 8  # voxels: a cubic spline's weight falls to a quarter with each, to 3e-5 with eight
LEAST = 4  # voxels along each axis that a cubic spline needs


@dataclass(frozen=True)
class Grid:
    """Points in the scanner's space: `size` voxels of SPACING along the columns of `direction`."""

    size: tuple[int, int, int]
    origin: np.ndarray  # [mm], the centre of the first voxel
    direction: np.ndarray  # [3, 3]

    def slice(self, index: int) -> Grid:
        """Slice `index` alone."""
        step = self.direction @ (SPACING * (0, 0, index))
        return replace(self, size=(*self.size[:2], 1), origin=self.origin + step)


def read_volume(file: Path) -> sitk.Image:
    """An .mha or .nii.gz file with one number a voxel, as float32. Raises UnreadableError."""
    try:
        if file.suffix == ".gz":  # SimpleITK takes one that is cut short for a volume that ends in zeros
            with gzip.open(file) as stream:
                while stream.read(2**20):
                    pass
        image = sitk.ReadImage(str(file))
    except (RuntimeError, OSError, EOFError, zlib.error) as error:  # SimpleITK's is many lines of C++
        raise UnreadableError(f"not readable: {file.name}: download it again") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        shape = " x ".join(map(str, image.GetSize()))
        raise UnreadableError(f"not a volume: {file.name} is {shape}: take the file as distributed")
    return sitk.Cast(image, sitk.sitkFloat32)


def normalised(image: sitk.Image, name: str) -> sitk.Image:
    """The volume's least value at 0, its greatest at 1. Raises UnreadableError where all are equal."""
    values = sitk.GetArrayViewFromImage(image)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UnreadableError(f"not finite: {name} holds values that are no numbers: download it again")
    if low == high:
        raise UnreadableError(f"nothing in it: every voxel of {name} is {low:g}: download it again")
    return sitk.ShiftScale(image, -low, 1 / (high - low))


def field_of(image: sitk.Image) -> Grid:
    """The central FIELD x FIELD of every slice of an image at SPACING; beyond it, where it is smaller."""
    old_size, old_spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    direction = np.array(image.GetDirection()).reshape(3, 3)
    whole = np.maximum(np.round(old_size * old_spacing / SPACING), 1)
    # Both grids share their centre. The crop starts on a whole voxel, so that an image that already has
    # this spacing is cropped and not interpolated.
    corner = ((old_size - 1) * old_spacing - (whole - 1) * SPACING) / 2
    corner[:2] += np.floor((whole[:2] - FIELD) / 2) * SPACING[:2]
    return Grid((FIELD, FIELD, int(whole[2])), np.array(image.GetOrigin()) + direction @ corner, direction)


def resampled(image: sitk.Image, grid: Grid, labels: bool = False) -> np.ndarray:
    """float32 [z, y, x] on the grid: cubic B-splines for intensities, the nearest voxel for labels.

    As the owners' own picai_prep resamples. Zero outside the image. Splines overshoot: what was in
    [0, 1] may leave it by a little.
    """
    image = _around(image, grid)
    splines = not labels and min(image.GetSize()) >= LEAST
    filter = sitk.ResampleImageFilter()
    filter.SetSize([int(n) for n in grid.size])
    filter.SetOutputSpacing(SPACING.tolist())
    filter.SetOutputOrigin(grid.origin.tolist())
    filter.SetOutputDirection(grid.direction.ravel().tolist())
    filter.SetInterpolator(
        sitk.sitkNearestNeighbor if labels else sitk.sitkBSpline if splines else sitk.sitkLinear
    )
    return sitk.GetArrayFromImage(filter.Execute(image))


def inside(image: sitk.Image, grid: Grid) -> np.ndarray:
    """bool [z, y, x]: which points of the grid lie in the image."""
    steps = [np.arange(n) * spacing for n, spacing in zip(grid.size, SPACING, strict=True)]
    points = grid.origin + np.stack(np.meshgrid(*steps, indexing="ij"), -1) @ grid.direction.T
    direction = np.array(image.GetDirection()).reshape(3, 3)  # orthonormal: its transpose turns back
    indices = (points - image.GetOrigin()) @ direction / image.GetSpacing()
    within = (indices >= -0.5) & (indices <= np.array(image.GetSize()) - 0.5)
    return within.all(-1).transpose(2, 1, 0)


def _around(image: sitk.Image, grid: Grid) -> sitk.Image:
    """The part of the image that matters to the grid: fitting splines to a whole volume takes seconds."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in grid.size]), -1).reshape(-1, 3) * SPACING
    points = grid.origin + corners @ grid.direction.T
    indices = np.array([image.TransformPhysicalPointToContinuousIndex(point.tolist()) for point in points])
    low = np.maximum(np.floor(indices.min(0)) - MARGIN, 0).astype(int)
    high = np.minimum(np.ceil(indices.max(0)) + MARGIN + 1, image.GetSize()).astype(int)
    if (high - low < LEAST).any():
        return image
    return image[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
