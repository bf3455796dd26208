"""Draws the scenes of lib.world at random: told by what is in them, or tile by tile.

What is in a picture (regions with curved borders, a dozen things, nested and paired) is more than a caption
can name: it says which colour each of 7 x 7 tiles has on average, what is scattered over them, and the
finish. So a base learns to draw outlines, symmetry and texture where words can only say a layout.
"""

from dataclasses import replace

import numpy as np

from lib import raster
from lib.painting import render
from lib.raster import SHAPES
from lib.world import (
    COLOURS,
    COLUMNS,
    COUNTS,
    DIRECTIONS,
    EDGES,
    FILLS,
    FINISHES,
    GREYS,
    MELDS,
    ROWS,
    SIZES,
    SPACINGS,
    STRENGTHS,
    TILTS,
    Scene,
    Thing,
    held_out,
)

#: How often a background is drawn: of scenes that are told by what is in them, and of what pictures hide.
NAMED = {
    "plain": 0.16,
    "gradient": 0.08,
    "cloudy": 0.07,
    "misty": 0.04,
    "rough": 0.04,
    "striped": 0.04,
    "checked": 0.03,
    "rippled": 0.03,
    "cellular": 0.04,
    "veined": 0.03,
    "banded": 0.05,
    "mosaic": 0.32,
    "piled": 0.035,
    "spotlit": 0.035,
}
HIDDEN = {
    "regions": 0.45,
    "plain": 0.15,
    "gradient": 0.1,
    "spotlit": 0.08,
    "banded": 0.08,
    "misty": 0.06,
    "cellular": 0.05,
    "veined": 0.03,
}
#: How often each finish is put on; what bends or lights a picture is told by its tiles.
FINISHED = {
    "mirrored": 0.12,
    "warped": 0.15,
    "lit": 0.1,
    "blurry": 0.1,
    "grainy": 0.14,
    "noisy": 0.06,
    "dim": 0.06,
    "pale": 0.06,
    "framed": 0.07,
    "windowed": 0.07,
}
HIDDEN_FINISHED = {"mirrored": 0.25, "warped": 0.3, "lit": 0.15}
SIDE = 56  # pixels at which a picture is painted to be told: eight a tile


def sample_scene(rng) -> Scene:
    """Draws one of all scenes: half of them pictures, a tenth single objects on a plain ground."""
    drawn = rng.random()
    if drawn < 0.5:
        return sample_picture(rng)
    return sample_single(rng) if drawn < 0.6 else sample_named(rng)


def sample_named(rng, longest=75):
    """Draws a scene that is told by what is in it, in at most `longest` words; nearly half are grey."""
    palette = GREYS if rng.random() < 0.45 else tuple(COLOURS)
    if rng.random() < 0.35:
        palette = tuple(rng.choice(palette, int(rng.integers(2, 6)), replace=False))
    background, colours, detail, table = _sample_background(rng, palette)
    finish = _sample_finish(rng, palette)
    n = int(rng.choice(7, p=(0.08, 0.32, 0.22, 0.15, 0.11, 0.07, 0.05)))
    things = tuple(_sample_thing(rng, palette) for _ in range(n))
    scene = Scene(background, colours, detail, table, things, finish, int(rng.integers(2**31)))
    return _shortened(scene, longest)


def _shortened(scene, longest):
    """The scene without its last things, and then its last finishes, that its caption has no room for."""
    while scene.length() > longest:
        part = "things" if scene.things else "finish"
        scene = replace(scene, **{part: getattr(scene, part)[:-1]})
    return scene


def _some(rng, options, plain=0.6):
    """The first option with probability `plain`, otherwise any of the others."""
    options = tuple(options)
    return options[0] if rng.random() < plain else options[int(rng.integers(1, len(options)))]


def _sample_thing(rng, palette, count=None):
    """One thing in colours of the palette, in no combination that is held out.

    count: as in Thing; None draws it.
    """
    while True:
        shape, colour = str(rng.choice(tuple(SHAPES))), str(rng.choice(palette))
        row, column = (int(i) for i in rng.integers(7, size=2))
        if not held_out(shape, colour, row, column):
            break
    size = str(rng.choice(tuple(SIZES), p=(0.12, 0.2, 0.26, 0.26, 0.16)))
    drawn = str(rng.choice(("", "pair", *COUNTS), p=(0.62, 0.14, 0.06, 0.07, 0.07, 0.04)))
    count = drawn if count is None else count
    if count in COUNTS:
        size = str(rng.choice(("tiny", "small"), p=(0.7, 0.3)))
    layers = 1 + int(rng.choice(4, p=(0.72, 0.16, 0.08, 0.04))) if size in ("large", "huge", "medium") else 1
    colours = (colour, *(str(c) for c in rng.choice(tuple(palette), layers - 1)))
    return Thing(
        shape,
        size,
        row,
        column,
        colours,
        _some(rng, EDGES),
        _some(rng, FILLS, 0.65),
        _some(rng, TILTS, 0.5),
        _some(rng, STRENGTHS, 0.75),
        _some(rng, ("", *palette), 0.85),
        count,
    )


def _sample_background(rng, palette, shares=NAMED):
    """(background, colours, detail, table) of a Scene; shares: background -> probability."""
    kind = str(rng.choice(tuple(shares), p=tuple(shares.values())))
    pick = lambda n: tuple(str(c) for c in rng.choice(palette, n, replace=n > len(palette)))  # noqa: E731
    direction, spacing = str(rng.choice(tuple(DIRECTIONS))), str(rng.choice(tuple(SPACINGS)))
    if kind == "plain":
        return kind, pick(1), (), ()
    if kind == "gradient":
        return kind, pick(2), (direction,), ()
    if kind in ("striped", "rippled"):
        return kind, pick(2), (spacing, direction), ()
    if kind in ("checked", "cellular", "veined", "piled"):
        return kind, pick(3 if kind == "piled" else 2), (spacing,), ()
    if kind == "regions":
        return kind, pick(int(rng.integers(2, 6))), (), ()
    if kind == "banded":
        return kind, pick(int(rng.integers(2, 6))), (direction,), ()
    if kind == "mosaic":
        return kind, (), (str(rng.choice(tuple(MELDS))),), _sample_table(rng, palette)
    return kind, pick(2), (), ()


def _sample_table(rng, palette):
    """Colours in reading order: unrelated, or ordered by a smooth field, so that neighbours agree.

    Always 7 x 7: under a causal text encoder a tile's place must follow from the words before it.
    """
    rows, columns = len(ROWS), len(COLUMNS)
    palette = sorted(palette, key=lambda c: sum(COLOURS[c]))
    if rng.random() < 0.2:
        index = rng.integers(len(palette), size=(rows, columns))
    else:
        smooth = raster.clouds(rng, 8, 1.5)[:rows, :columns]
        spread = np.clip(0.5 + 0.35 * smooth * rng.uniform(0.5, 1.5) + rng.normal(0, 0.2), 0, 0.999)
        index = (spread * len(palette)).astype(int)
    if rng.random() < 0.3:
        index[:, columns - columns // 2 :] = index[:, : columns // 2][:, ::-1]
    return tuple(tuple(palette[i] for i in row) for row in index)


def _sample_finish(rng, palette, chances=FINISHED):
    """Finishes by chance, each with the colour or direction that it needs, in the order of FINISHES."""
    chosen = []
    for name in filter(chances.__contains__, FINISHES):
        if rng.random() < chances[name]:
            extra = {"lit": tuple(DIRECTIONS), "framed": palette, "windowed": palette}.get(name)
            chosen.append((name, str(rng.choice(extra))) if extra else (name,))
    return tuple(chosen)


def sample_single(rng) -> Scene:
    """One object on a plain background; nothing else."""
    palette = GREYS if rng.random() < 0.3 else tuple(COLOURS)
    thing = _sample_thing(rng, palette, count="")
    ground = str(rng.choice([c for c in palette if c != thing.colours[0]]))
    return Scene("plain", (ground,), things=(thing,), seed=int(rng.integers(2**31)))


def sample_object(rng) -> Scene:
    """A single object of which seven in ten are bare: nothing but its shape, colour, size and place."""
    scene = sample_single(rng)
    if rng.random() < 0.7:
        thing = replace(scene.things[0], edge="", fill="", strength="", outline="")
        thing = replace(thing, colours=thing.colours[:1], tilt="" if rng.random() < 0.7 else thing.tilt)
        scene = replace(scene, things=(thing,))
    return scene


def sample_picture(rng, longest=75) -> Scene:
    """A picture with its table of tiles; at most `longest` words and commas."""
    palette = GREYS if rng.random() < 0.5 else tuple(COLOURS)
    if rng.random() < 0.6:
        palette = tuple(str(c) for c in rng.choice(palette, int(rng.integers(3, 7)), replace=False))
    hidden = _sample_hidden(rng, palette)
    scattered = _sample_thing(rng, palette, count=str(rng.choice(tuple(COUNTS))))
    things = (scattered,) if rng.random() < 0.3 else ()
    finish = _sample_finish(rng, palette, {f: c for f, c in FINISHED.items() if f not in HIDDEN_FINISHED})
    table = tiles_of(render(hidden, SIDE), GREYS if set(palette) <= {*GREYS} else tuple(COLOURS))
    return _shortened(Scene("a picture", (), (), table, things, finish, hidden.seed, hidden), longest)


def tiles_of(image, names) -> tuple[tuple[str, ...], ...]:
    """The colour of `names` nearest to the mean of each of 7 x 7 tiles of an image [3, H, W] in [0, 1]."""
    rows, columns = (
        np.array_split(np.arange(side), len(words))
        for side, words in zip(image.shape[1:], (ROWS, COLUMNS), strict=True)
    )
    palette = np.array([COLOURS[name] for name in names])

    def nearest(row, column):
        tile = image[:, row][:, :, column].mean((1, 2))
        return names[int(np.abs(palette - tile).sum(1).argmin())]

    return tuple(tuple(nearest(row, column) for column in columns) for row in rows)


def _sample_hidden(rng, palette):
    background, colours, detail, table = _sample_background(rng, palette, HIDDEN)
    things = tuple(_sample_hidden_thing(rng, palette) for _ in range(min(12, rng.poisson(4.5))))
    finish = _sample_finish(rng, palette, HIDDEN_FINISHED)
    return Scene(background, colours, detail, table, things, finish, int(rng.integers(2**31)))


def _sample_hidden_thing(rng, palette):
    """As those that captions name, but oftener round, paired, nested and outlined."""
    while True:
        thing = _sample_thing(rng, palette, count="pair" if rng.random() < 0.3 else "")
        if rng.random() < 0.4:
            thing = replace(thing, shape=str(rng.choice(("oval", "blob", "circle", "line", "ring"))))
        if rng.random() < 0.25:
            thing = replace(thing, outline=str(rng.choice(palette)))
        if not held_out(thing.shape, thing.colours[0], thing.row, thing.column):
            return thing
