"""Paints the scenes of lib.world: the only code that turns their words into pixels."""

from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter

from lib import raster
from lib.world import (
    ACROSS,
    COLOURS,
    COUNTS,
    DIRECTIONS,
    EDGES,
    GREYS,
    MELDS,
    SIZES,
    SPACINGS,
    STRENGTHS,
    TILTS,
)


def render(scene, side=64):
    """Paints a scene: float32 [3, side, side], RGB in [0, 1]."""
    rng = np.random.default_rng(scene.seed)
    canvas = _paint_background(scene, rng, side)
    for thing in scene.things:
        _paint_thing(canvas, thing, rng, side)
    for finish in scene.finish:
        canvas = _apply_finish(canvas, finish, rng, side)
    return np.clip(canvas, 0, 1).astype(np.float32)


def _colour(rng, name):
    return np.clip(
        np.array(COLOURS[name]) + rng.normal(0, 0.025, 3) * (name not in GREYS) + rng.normal(0, 0.02),
        0,
        1,
    ).astype(np.float32)


def _along(direction, x, y):
    angle = DIRECTIONS[direction]
    return np.cos(angle) * x + np.sin(angle) * y


def _paint_background(scene, rng, side):
    x, y = raster.grid(side)
    if scene.hidden is not None:
        return render(scene.hidden, side)
    canvas = np.empty((3, side, side), np.float32)
    colours = [_colour(rng, c) for c in scene.colours]
    kind, detail = scene.background, scene.detail
    if kind == "mosaic":
        table = np.array([[_colour(rng, c) for c in row] for row in scene.table], np.float32)
        return raster.enlarge(table.transpose(2, 0, 1), side, MELDS[detail[0]])
    canvas[:] = colours[0][:, None, None]
    if kind == "plain":
        return canvas
    if kind == "regions":
        return _regions(rng, x, y, colours)
    if kind == "banded":
        wave = np.sin(rng.uniform(1, 5) * _along(ACROSS[detail[0]], x, y) + rng.uniform(0, 6))
        position = (_along(detail[0], x, y) + 0.06 * wave + 1) / 2 * len(colours)
        for i, colour in enumerate(colours[1:], 1):
            raster.paint(
                canvas,
                np.clip((position - i + rng.normal(0, 0.1)) * side / 4 / len(colours), 0, 1),
                colour,
            )
        return canvas
    if kind == "piled":
        radius = 0.6 / SPACINGS[detail[0]] * 2
        for _ in range(int(min(260, 10 / radius**2))):
            shape = ("circle", "square", "oval", "blob")[int(rng.integers(4))]
            colour = colours[int(rng.integers(3))] * rng.uniform(0.8, 1.15)
            raster.stamp(
                canvas,
                shape,
                rng.uniform(-1.1, 1.1, 2),
                radius * rng.pareto(3) + radius * 0.5,
                rng.uniform(0, 6.3),
                2 / side,
                colour,
                rng.uniform(0, 6.3, 3),
            )
        return canvas
    raster.paint(canvas, np.clip(_mixture(kind, detail, rng, x, y, side), 0, 1), colours[1])
    return canvas


def _regions(rng, x, y, colours):
    """A map of areas with curved borders, sharp or soft, each of one colour; sometimes with outlines."""
    side, finest = len(x), rng.uniform(0.8, 3.5)
    fields = np.stack([raster.waves(rng, x, y, finest) + rng.normal(0, 0.3) for _ in colours])
    # The width of a border, in units of a field: a pixel, or a blend.
    width = finest * (2.0 if rng.random() < 0.75 else rng.uniform(6, 16)) / side
    share = np.exp((fields - fields.max(0)) / width)
    canvas = np.einsum("chw,ck->khw", share / share.sum(0), np.array(colours)).astype(np.float32)
    if rng.random() < 0.4:
        tone = np.einsum("chw,c->hw", share / share.sum(0), rng.uniform(0, 0.12, len(colours)))
        canvas += np.float32(tone * raster.clouds(rng, side, rng.uniform(0.3, 1.5)))
    if rng.random() < 0.3:
        first, second = np.sort(fields, 0)[-2:][::-1]
        line = np.clip(1.5 - (first - second) / (finest * rng.uniform(2, 5) / side), 0, 1)
        raster.paint(canvas, line, colours[int(rng.integers(len(colours)))] * rng.uniform(0.4, 1.2))
    return canvas


def _mixture(kind, detail, rng, x, y, side):
    """Share of the second colour in each pixel, for the two-colour backgrounds."""
    phase = rng.uniform(0, 2 * np.pi)
    if kind == "gradient":
        return (_along(detail[0], x, y) + 1) / 2
    if kind == "striped":
        wave = np.sin(np.pi * SPACINGS[detail[0]] * _along(detail[1], x, y) + phase)
        return 0.5 + wave * rng.choice([0.5, 3.0])
    if kind == "rippled":
        across = _along(ACROSS[detail[1]], x, y)
        bend = rng.uniform(0.3, 0.9) * np.cos(rng.uniform(1.5, 4) * across + phase * (rng.random() < 0.5))
        return 0.5 + 0.8 * np.sin(np.pi * SPACINGS[detail[0]] * (_along(detail[1], x, y) + bend) + phase)
    if kind == "checked":
        waves = [np.sin(np.pi * SPACINGS[detail[0]] * axis + phase) for axis in (x, y)]
        return 0.5 + 4 * waves[0] * waves[1]
    if kind == "cellular":
        index, border = raster.cells(rng, side, int(SPACINGS[detail[0]] ** 2 * 1.1), rng.choice([0.5, 1.0]))
        tone = rng.normal(0, 0.12, index.max() + 1)[index]
        return 1 - np.clip(border * side / 5, 0, 1) * (0.9 + tone)
    if kind == "veined":
        ridge = np.abs(raster.clouds(rng, side, 2.0, SPACINGS[detail[0]] * 0.5))
        return np.clip(1 - ridge * 2.2, 0, 1)
    if kind == "spotlit":
        return 1.1 - np.hypot(x - rng.normal(0, 0.15), y - rng.normal(0, 0.15)) * 0.9
    exponent = {"cloudy": 1.6, "misty": 2.4, "rough": 0.7}[kind]
    return 0.5 + 0.33 * raster.clouds(rng, side, exponent)


def _fill(thing, colour, rng, side, centre, radius):
    """The object's colour as an image [3, H, W], with its texture."""
    if not thing.fill:
        return colour
    x, y = raster.grid(side)
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    if thing.fill == "striped":
        texture = 0.3 * np.sin(rng.uniform(18, 32) * along)
    elif thing.fill == "spotted":
        texture = -0.45 * (raster.cells(rng, side, 90, 0.6)[1] > 0.13)
    elif thing.fill == "cloudy":
        texture = 0.18 * raster.clouds(rng, side, 1.4, 2.0)
    elif thing.fill == "shaded":
        texture = 0.3 * ((x - centre[0]) * np.cos(angle * 2) + (y - centre[1]) * np.sin(angle * 2)) / radius
    else:
        texture = 0.16 * raster.clouds(rng, side, 0.3)
    return colour[:, None, None] + np.float32(texture)


def _cover(shape, x, y, centre, radius, angle, softness, harmonics, scale):
    return raster.coverage(shape, x, y, centre, radius * scale, angle, softness, harmonics)


def _paint_thing(canvas, thing, rng, side):
    x, y = raster.grid(side)
    centre = np.array([thing.column - 3, thing.row - 3]) / 3.5 + rng.uniform(-0.12, 0.12, 2)
    radius = SIZES[thing.size] * np.exp(rng.uniform(-0.18, 0.18))
    angle = TILTS[thing.tilt] + rng.normal(0, 0.08)
    softness = 2 / side + (EDGES[thing.edge] - 1) / 32
    harmonics = rng.uniform(0, 2 * np.pi, 3)
    colour = _colour(rng, thing.colours[0])
    if thing.count in COUNTS:
        spread = rng.uniform(0.35, 0.7)
        soft = 2 / side + (softness - 2 / side) * 0.2
        for _ in range(int(rng.integers(*COUNTS[thing.count]))):
            at = centre * (1 - spread) + rng.uniform(-1, 1, 2) * min(1.0, spread + 0.25)
            tone = (
                colour * rng.normal(1, 0.08) * STRENGTHS[thing.strength]
                + (1 - STRENGTHS[thing.strength]) * 0.5
            )
            raster.stamp(
                canvas,
                thing.shape,
                at,
                radius * np.exp(rng.normal(-0.35, 0.22)),
                angle + rng.normal(0, 0.7),
                soft,
                tone,
                rng.uniform(0, 6.3, 3),
            )
        return
    sides = ((centre, angle, x),) if thing.count != "pair" else ((centre, angle, x), (centre, angle, -x))
    for at, turn, across in sides:
        cover = partial(_cover, thing.shape, across, y, at, radius, turn, softness, harmonics)
        strength = STRENGTHS[thing.strength]
        if thing.outline:
            raster.paint(canvas, cover(1 + 0.08 / radius) * strength, _colour(rng, thing.outline))
        for depth, name in enumerate(thing.colours):
            tint = colour if depth == 0 else _colour(rng, name)
            scale = 1 - depth * 0.85 / len(thing.colours)
            raster.paint(canvas, cover(scale) * strength, _fill(thing, tint, rng, side, at, radius))


def _apply_finish(canvas, finish, rng, side):
    x, y = raster.grid(side)
    name = finish[0]
    if name == "mirrored":
        half = canvas[..., : side // 2]
        return (
            np.concatenate([half, half[..., ::-1]], -1)
            if side % 2 == 0
            else np.maximum(canvas, canvas[..., ::-1])
        )
    if name == "warped":
        bend = rng.uniform(0.02, 0.06) * side
        return raster.displace(canvas, *(bend * raster.clouds(rng, side, 2.6) for _ in range(2)))
    if name == "lit":
        return canvas * (1 + 0.45 * _along(finish[1], x, y)).astype(np.float32)
    if name == "blurry":
        return gaussian_filter(canvas, (0, *([rng.uniform(0.02, 0.045) * side] * 2)))
    if name in ("grainy", "noisy"):
        scale = rng.uniform(0.03, 0.06) if name == "grainy" else rng.uniform(0.08, 0.15)
        shape = canvas.shape if rng.random() < 0.4 else (1, side, side)
        return canvas + rng.normal(0, scale, shape).astype(np.float32)
    if name == "dim":
        return canvas * np.float32(rng.uniform(0.35, 0.6))
    if name == "pale":
        return 1 - (1 - canvas) * np.float32(rng.uniform(0.35, 0.6))
    colour = _colour(rng, finish[1])
    if name == "framed":
        width = rng.uniform(0.06, 0.2)
        edge = np.maximum(np.abs(x), np.abs(y)) - (1 - width)
    else:
        edge = (np.hypot(x / rng.uniform(0.7, 1.05), y / rng.uniform(0.7, 1.05)) - 1) * 0.8
    raster.paint(canvas, np.clip(0.5 + edge * side / 2, 0, 1), colour)
    return canvas
