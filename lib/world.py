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
        """Its caption as lists of words, a list a clause."""
        ground = [*self.background.split(), *self.detail, *self.colours]
        rows = [list(row) for row in self.table]
        return [ground, *rows, *(t.words() for t in self.things), *(list(f) for f in self.finish)]

    def caption(self):
        """The scene in words: clauses joined by commas, at most 75 words and commas together."""
        return " , ".join(" ".join(clause) for clause in self.clauses())

    def length(self):
        """Words of its caption, commas included."""
        return sum(len(clause) + 1 for clause in self.clauses()) - 1


def held_out(shape, colour, row, column):
    """Whether this combination is kept for tests: one in ten, never drawn for training."""
    return zlib.crc32(f"{shape} {colour} {row} {column}".encode()) % 10 == 0


def kind(caption):
    """ "mosaic", "picture", "single" (a plain background with one or two clauses, none of them of many:
    one object and a finish at most, in all but a few scenes) or "other".
    """
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
