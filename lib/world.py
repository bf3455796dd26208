"""Captioned procedural scenes: everything that models/mini has ever seen.

A scene is a background, up to six things on it and a finish (mirroring, blur, grain, ...); its caption
names what is there, how large, where, in which colour, how sharp, with which texture, on which
background. Nothing here draws anatomy, tissue or a medical device. Why procedural images can stand
in for photographs: Baradad et al. 2021 (arXiv 2106.05963); what helps is diversity and natural
spectra.
"""

import zlib
from dataclasses import dataclass, field

import numpy as np

from lib import raster
from lib.raster import SHAPES

COLOURS = {
    "black": (0.02, 0.02, 0.02),
    "coal": (0.17, 0.17, 0.17),
    "charcoal": (0.33, 0.33, 0.33),
    "grey": (0.5, 0.5, 0.5),
    "ash": (0.67, 0.67, 0.67),
    "silver": (0.83, 0.83, 0.83),
    "white": (0.98, 0.98, 0.98),
    "red": (0.86, 0.12, 0.12),
    "maroon": (0.45, 0.05, 0.1),
    "salmon": (0.95, 0.6, 0.52),
    "pink": (0.95, 0.7, 0.8),
    "magenta": (0.85, 0.15, 0.65),
    "purple": (0.48, 0.2, 0.6),
    "violet": (0.6, 0.45, 0.85),
    "lavender": (0.82, 0.75, 0.93),
    "navy": (0.08, 0.1, 0.4),
    "blue": (0.15, 0.3, 0.87),
    "sky": (0.55, 0.77, 0.95),
    "cyan": (0.2, 0.82, 0.86),
    "teal": (0.05, 0.45, 0.45),
    "green": (0.15, 0.62, 0.22),
    "lime": (0.6, 0.87, 0.2),
    "olive": (0.45, 0.45, 0.1),
    "forest": (0.05, 0.28, 0.1),
    "yellow": (0.96, 0.87, 0.15),
    "cream": (0.97, 0.93, 0.78),
    "orange": (0.95, 0.55, 0.1),
    "brown": (0.45, 0.27, 0.12),
    "tan": (0.8, 0.65, 0.45),
}
GREYS = tuple(COLOURS)[:7]
SIZES = {"tiny": 0.1, "small": 0.17, "medium": 0.28, "large": 0.45, "huge": 0.75}
ROWS = ("top", "high", "upper", "middle", "lower", "low", "bottom")
COLUMNS = ("leftmost", "left", "midleft", "centre", "midright", "right", "rightmost")
EDGES = {"": 1.0, "soft": 5.0, "hazy": 14.0}  # width of the rim in 64ths of the image
FILLS = ("", "striped", "spotted", "cloudy", "shaded", "rough")
TILTS = {"": 0.0, "rising": -0.6, "upright": np.pi / 2, "falling": 0.6, "upturned": np.pi}
STRENGTHS = {"": 1.0, "faint": 0.45, "ghostly": 0.2}
COUNTS = {"few": (4, 8), "several": (12, 24), "many": (35, 70), "countless": (100, 160)}
BACKGROUNDS = (
    "plain",
    "gradient",
    "cloudy",
    "misty",
    "rough",
    "striped",
    "checked",
    "rippled",
    "cellular",
    "veined",
    "banded",
    "mosaic",
    "piled",
    "spotlit",
)
DIRECTIONS = {"rightwards": 0.0, "downwards": np.pi / 2, "leftwards": np.pi, "upwards": -np.pi / 2}
ACROSS = {
    "rightwards": "downwards",
    "leftwards": "downwards",
    "downwards": "rightwards",
    "upwards": "rightwards",
}
MELDS = {"tiled": 0, "blended": 1, "smooth": 3}
SPACINGS = {"fine": 11.0, "spaced": 5.5, "broad": 2.5}  # periods across the image
FINISHES = (
    "mirrored",
    "warped",
    "lit",
    "blurry",
    "grainy",
    "noisy",
    "dim",
    "pale",
    "framed",
    "windowed",
)


@dataclass(frozen=True)
class Thing:
    """One captioned object, or a pair, or a scattering of it."""

    shape: str
    size: str
    row: int
    column: int
    colours: tuple[str, ...]  # from the rim inwards; one for a plain object
    edge: str = ""
    fill: str = ""
    tilt: str = ""
    strength: str = ""
    outline: str = ""
    count: str = ""  # "", "pair" (mirrored left to right), or a key of COUNTS

    def words(self):
        """Where first: the text encoder is causal, and so every later word of the clause knows the place."""
        inner = [w for colour in self.colours[1:] for w in ("inside", colour)]
        outline = ("outlined", self.outline) if self.outline else ()
        words = (
            ROWS[self.row],
            COLUMNS[self.column],
            self.count,
            self.strength,
            self.size,
            self.edge,
            self.fill,
            self.tilt,
            self.colours[0],
            self.shape,
            *inner,
            *outline,
        )
        return [word for word in words if word]


@dataclass(frozen=True)
class Scene:
    """What is in one picture; `seed` fixes what the caption leaves open (jitter, noise, texture)."""

    background: str
    colours: tuple[str, ...]
    detail: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    things: tuple[Thing, ...] = ()
    finish: tuple[tuple[str, ...], ...] = field(default=())
    seed: int = 0
    hidden: "Scene | None" = None  # what lies under the things, if it is told by its tiles alone

    def clauses(self):
        ground = [*self.background.split(), *self.detail, *self.colours]
        rows = [list(row) for row in self.table]
        return [ground, *rows, *(t.words() for t in self.things), *(list(f) for f in self.finish)]

    def caption(self):
        """The scene in words: clauses joined by commas, at most 75 words and commas together."""
        return " , ".join(" ".join(clause) for clause in self.clauses())

    def length(self):
        return sum(len(clause) + 1 for clause in self.clauses()) - 1


def held_out(shape, colour, row, column):
    """Whether this combination is kept for tests: one in ten, never drawn for training."""
    return zlib.crc32(f"{shape} {colour} {row} {column}".encode()) % 10 == 0


def kind(caption):
    """ "mosaic", "picture", "single" (one object on a plain background, one finish at most) or "other"."""
    ground, *clauses = caption.split(" , ")
    if ground.startswith("mosaic"):
        return "mosaic"
    if ground == "a picture":
        return "picture"
    counted = {"pair", *COUNTS} & set(caption.split())
    return "single" if ground.startswith("plain") and 1 <= len(clauses) <= 2 and not counted else "other"


def vocabulary():
    """Every word that a caption can hold, sorted; the tokenizer keeps each whole."""
    words = {
        *SHAPES,
        *SIZES,
        *ROWS,
        *COLUMNS,
        *EDGES,
        *FILLS,
        *TILTS,
        *STRENGTHS,
        *COUNTS,
        *COLOURS,
        *BACKGROUNDS,
        *DIRECTIONS,
        *MELDS,
        *SPACINGS,
        *FINISHES,
        "inside",
        "outlined",
        "pair",
        ",",
        "a",
        "of",
        "picture",
        "image",
        "photo",
    }
    return sorted(words - {""})


def sample_scene(rng, longest=75):
    """Draws one scene; nearly half are grey. `longest` bounds the caption's words and commas."""
    palette = GREYS if rng.random() < 0.45 else tuple(COLOURS)
    if rng.random() < 0.35:
        palette = tuple(rng.choice(palette, int(rng.integers(2, 6)), replace=False))
    background, colours, detail, table = _sample_background(rng, palette)
    finish = sample_finish(rng, palette)
    n = int(rng.choice(7, p=(0.08, 0.32, 0.22, 0.15, 0.11, 0.07, 0.05)))
    things = tuple(sample_thing(rng, palette) for _ in range(n))
    scene = Scene(background, colours, detail, table, things, finish, int(rng.integers(2**31)))
    while scene.length() > longest:
        things, finish = (things[:-1], finish) if things else (things, finish[:-1])
        scene = Scene(background, colours, detail, table, things, finish, scene.seed)
    return scene


def _some(rng, options, plain=0.6):
    """The first option with probability `plain`, otherwise any of the others."""
    options = tuple(options)
    return options[0] if rng.random() < plain else options[int(rng.integers(1, len(options)))]


def sample_thing(rng, palette, count=None):
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


def _sample_background(rng, palette):
    kind = str(
        rng.choice(
            BACKGROUNDS,
            p=(0.16, 0.08, 0.07, 0.04, 0.04, 0.04, 0.03, 0.03, 0.04, 0.03, 0.05, 0.32, 0.035, 0.035),
        )
    )
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


def sample_finish(rng, palette):
    """Finishes by chance, each with the colour or direction that it needs, in the order of FINISHES."""
    chances = {
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
    chosen = []
    for name in FINISHES:
        if rng.random() < chances[name]:
            extra = {"lit": tuple(DIRECTIONS), "framed": palette, "windowed": palette}.get(name)
            chosen.append((name, str(rng.choice(extra))) if extra else (name,))
    return tuple(chosen)
