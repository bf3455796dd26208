"""Pictures told tile by tile: scenes richer than a caption of objects can hold.

What is in such a picture (regions with curved borders, a dozen things, nested and paired) is not named.
Its caption says which colour each of 7 x 7 tiles has on average, what is scattered over it, and its finish.
So a base learns to draw outlines, symmetry and texture where words can only say a layout.
"""

from dataclasses import replace

import numpy as np

from lib import world
from lib.painting import render
from lib.world import COLOURS, COLUMNS, COUNTS, DIRECTIONS, GREYS, ROWS, SPACINGS, Scene

SIDE = 56  # pixels at which a picture is painted to be told: eight a tile


def sample(rng) -> Scene:
    """Draws one of all scenes: half of them pictures, a tenth single objects on a plain ground."""
    drawn = rng.random()
    if drawn < 0.5:
        return sample_picture(rng)
    return sample_single(rng) if drawn < 0.6 else world.sample_scene(rng)


def sample_single(rng) -> Scene:
    """One object on a plain background; nothing else."""
    palette = GREYS if rng.random() < 0.3 else tuple(COLOURS)
    thing = world.sample_thing(rng, palette, count="")
    ground = str(rng.choice([c for c in palette if c != thing.colours[0]]))
    return Scene("plain", (ground,), things=(thing,), seed=int(rng.integers(2**31)))


def sample_picture(rng, longest=75) -> Scene:
    """A picture with its table of tiles; at most `longest` words and commas."""
    palette = GREYS if rng.random() < 0.5 else tuple(COLOURS)
    if rng.random() < 0.6:
        palette = tuple(str(c) for c in rng.choice(palette, int(rng.integers(3, 7)), replace=False))
    hidden = _sample_hidden(rng, palette)
    scattered = world.sample_thing(rng, palette, count=str(rng.choice(tuple(COUNTS))))
    things = (scattered,) if rng.random() < 0.3 else ()
    finish = tuple(f for f in world.sample_finish(rng, palette) if f[0] not in ("mirrored", "warped", "lit"))
    table = tiles_of(render(hidden, SIDE), GREYS if set(palette) <= {*GREYS} else tuple(COLOURS))
    scene = Scene("a picture", (), (), table, things, finish, hidden.seed, hidden)
    while scene.length() > longest:
        scene = replace(scene, finish=scene.finish[:-1]) if scene.finish else replace(scene, things=())
    return scene


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
    pick = lambda n: tuple(str(c) for c in rng.choice(palette, n, replace=n > len(palette)))  # noqa: E731
    direction = (str(rng.choice(tuple(DIRECTIONS))),)
    ground = str(
        rng.choice(
            ("regions", "plain", "gradient", "spotlit", "banded", "misty", "cellular", "veined"),
            p=(0.45, 0.15, 0.1, 0.08, 0.08, 0.06, 0.05, 0.03),
        )
    )
    n = {"plain": 1, "regions": int(rng.integers(2, 6)), "banded": int(rng.integers(2, 5))}.get(ground, 2)
    detail = direction if ground in ("gradient", "banded") else ()
    if ground in ("cellular", "veined"):
        detail = (str(rng.choice(tuple(SPACINGS))),)
    things = tuple(_sample_hidden_thing(rng, palette) for _ in range(min(12, rng.poisson(4.5))))
    finish = [
        found
        for found, chance in ((("warped",), 0.3), (("mirrored",), 0.25), (("lit", *direction), 0.15))
        if rng.random() < chance
    ]
    return Scene(ground, pick(n), detail, (), things, tuple(finish), int(rng.integers(2**31)))


def _sample_hidden_thing(rng, palette):
    """As those that captions name, but oftener round, paired, nested and outlined."""
    while True:
        thing = world.sample_thing(rng, palette, count="pair" if rng.random() < 0.3 else "")
        if rng.random() < 0.4:
            thing = replace(thing, shape=str(rng.choice(("oval", "blob", "circle", "line", "ring"))))
        if rng.random() < 0.25:
            thing = replace(thing, outline=str(rng.choice(palette)))
        if not world.held_out(thing.shape, thing.colours[0], thing.row, thing.column):
            return thing
