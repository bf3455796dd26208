"""Reads one object out of a picture with geometry alone, to see whether a base obeys its captions.

The judge never asks the base or its text encoder: it separates the object from its plain background by
colour and fits the shapes of lib.raster to it. How often it is right on true renderings is reported
beside every score, since that is the ceiling.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lib import raster
from lib.world import COLOURS, SIZES, Scene, Thing, held_out

JUDGED_SIZES = ("small", "medium", "large")
#: Shapes that differ in outline at 64 pixels whatever their tilt.
JUDGED_SHAPES = ("circle", "square", "bar", "triangle", "ring", "cross", "star", "crescent")
INNER = (1, 2, 3, 4, 5)  # rows and columns at which a large object is still mostly inside


@dataclass(frozen=True)
class Reading:
    """What the judge saw; row and column count from 0 as in lib.world.ROWS and COLUMNS."""

    shape: str
    colour: str
    row: int
    column: int
    size: str


def held_out_scenes(n, seed=0):
    """n scenes of one object on a plain background, in combinations that no training caption holds."""
    rng = np.random.default_rng([seed, 77])
    scenes = []
    while len(scenes) < n:
        shape, size = str(rng.choice(JUDGED_SHAPES)), str(rng.choice(JUDGED_SIZES))
        colour, ground = (str(c) for c in rng.choice(tuple(COLOURS), 2, replace=False))
        row, column = (int(i) for i in rng.choice(INNER, 2))
        apart = np.abs(np.subtract(COLOURS[colour], COLOURS[ground])).max()
        if held_out(shape, colour, row, column) and apart > 0.3:
            thing = Thing(shape, size, row, column, (colour,))
            scenes.append(Scene("plain", (ground,), things=(thing,), seed=int(rng.integers(2**31))))
    return scenes


def read(image):
    """The object in an image [3, H, W] in [0, 1] with a plain background, or None if there is none."""
    image = np.asarray(image, np.float32)
    rim = np.concatenate([image[:, [0, -1], :].reshape(3, -1), image[:, :, [0, -1]].reshape(3, -1)], 1)
    distance = np.abs(image - np.median(rim, 1)[:, None, None]).max(0)
    mask = distance > max(0.12, 0.5 * np.quantile(distance, 0.99))
    parts, n = ndimage.label(mask)
    if n == 0:
        return None
    mask = parts == 1 + np.argmax(ndimage.sum(mask, parts, range(1, n + 1)))
    core = ndimage.binary_erosion(mask)
    tint = np.median(image[:, core if core.any() else mask], 1)
    colour = min(COLOURS, key=lambda c: np.abs(np.subtract(COLOURS[c], tint)).sum())
    shape, radius, centre = _fit(mask)
    size = min(SIZES, key=lambda s: abs(np.log(SIZES[s] / radius)))
    row, column = (int(np.clip(np.rint(c * 3.5 + 3), 0, 6)) for c in (centre[1], centre[0]))
    return Reading(shape, colour, row, column, size)


def _fit(mask):
    """The shape, radius and centre whose drawing overlaps the mask best (intersection over union)."""
    side = mask.shape[-1]
    x, y = raster.grid(side)
    middle = np.array([x[mask].mean(), y[mask].mean()])
    best = (-1.0, "circle", 0.1, middle)
    for shape in JUDGED_SHAPES:
        for radius in np.geomspace(0.08, 0.8, 16):
            centre = middle
            for _ in range(2):  # a shape's centroid is not its centre: draw, compare, shift
                drawn = raster.coverage(shape, x, y, centre, radius, 0.0, 2 / side, np.zeros(3)) > 0.5
                if drawn.any():
                    centre = centre + middle - np.array([x[drawn].mean(), y[drawn].mean()])
            drawn = raster.coverage(shape, x, y, centre, radius, 0.0, 2 / side, np.zeros(3)) > 0.5
            overlap = (drawn & mask).sum() / max((drawn | mask).sum(), 1)
            if overlap > best[0]:
                best = (overlap, shape, radius, centre)
    return best[1:]


def agreement(scenes, images):
    """Per attribute, one bool a picture: does the reading agree with the scene's caption?"""
    hits = {name: [] for name in ("object", "colour", "row", "column", "size")}
    for scene, image in zip(scenes, images, strict=True):
        thing, seen = scene.things[0], read(image)
        hits["object"].append(seen is not None and seen.shape == thing.shape)
        hits["colour"].append(seen is not None and seen.colour == thing.colours[0])
        hits["row"].append(seen is not None and seen.row == thing.row)
        hits["column"].append(seen is not None and seen.column == thing.column)
        hits["size"].append(seen is not None and seen.size == thing.size)
    return {name: np.array(values) for name, values in hits.items()}


def chance():
    """The share of hits of a guess among the values that the captions use."""
    return {
        "object": 1 / len(JUDGED_SHAPES),
        "colour": 1 / len(COLOURS),
        "row": 1 / len(INNER),
        "column": 1 / len(INNER),
        "size": 1 / len(JUDGED_SIZES),
    }
