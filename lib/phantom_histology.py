"""Lymph-node histology, haematoxylin and eosin, one image about 93 micrometres wide.

Nuclei are packed by repulsion and drawn into maps of optical density of the two stains, which
Beer and Lambert's law turns into colour. As in PatchCamelyon the label speaks of the centre: a
tumour image has tumour in its middle half, a normal one has none anywhere. Lengths are in image
units (46 micrometres).
"""

import numpy as np

from lib.phantom_canvas import SUPERSAMPLING, Streams, cover, expose, grid, reduce_mask, texture

LABELS = ("normal", "tumour")

# --- Difficulty: what decides how well the two classes can be told apart. ---
LYMPHOCYTE = (0.078, 0.08)  # radius: mean and relative deviation within an image
TUMOUR_RADIUS = (0.122, 0.020)  # mean radius of an image's tumour nuclei: mean and deviation
PLEOMORPHISM = (0.20, 0.06)  # relative deviation of their radii within an image
LARGE_NORMAL = (0.102, 0.012)  # histiocytes, centroblasts, endothelium: radius of an image's
MIMIC_SHARE = 0.45  # normal images in whose middle such larger cells gather
ADMIXED = (0.05, 0.45)  # share of lymphocytes among tumour cells, from and to
TUMOUR_REACH = (0.45, 1.3)  # radius of the tumour's nest, from and to
STAIN_SPREAD = 0.16  # log deviation of each stain's amount
NOISE = 0.02  # fraction of the full range

#: What a caller may fix: (lowest, highest) or the words.
OVERRIDES = {
    "tumour_radius": (0.06, 0.25),
    "pleomorphism": (0.0, 0.5),
    "density": (0.3, 1.2),
    "reach": (0.0, 2.0),
    "admixed": (0.0, 1.0),
    "tissue": ("sheet", "sinus", "stroma", "fat"),
}

TISSUES = {"sheet": 0.46, "sinus": 0.26, "stroma": 0.2, "fat": 0.08}
# Optical density of red, green and blue per unit of stain (after Ruifrok and Johnston 2001).
HAEMATOXYLIN = np.array([0.62, 0.72, 0.33])
EOSIN = np.array([0.10, 0.60, 0.30])


def sample(streams: Streams, labels: tuple[str, ...]) -> dict:
    """The generating parameters of one image, by name; lengths in image units.

    The tumour's cells are drawn for a normal image as well; their nest has no reach there.
    """
    rng, cancer = streams("tissue"), streams("tumour")
    tissue = str(rng.choice(list(TISSUES), p=list(TISSUES.values())))
    reach = cancer.uniform(*TUMOUR_REACH)
    if "tumour" in labels and tissue == "fat":
        tissue = "stroma"
    return {
        "tissue": tissue,
        "density": rng.uniform(0.75, 1.05) if tissue == "sheet" else rng.uniform(0.45, 0.85),
        "reach": reach if "tumour" in labels else 0.0,
        "tumour_radius": min(max(cancer.normal(*TUMOUR_RADIUS), 0.085), 0.19),
        "pleomorphism": min(max(cancer.normal(*PLEOMORPHISM), 0.05), 0.4),
        "admixed": cancer.uniform(*ADMIXED),
    }


def render(parameters: dict, streams: Streams, side: int) -> tuple[np.ndarray, dict]:
    """One image float32 [3, side, side] in [0, 1] and its ground truth."""
    p, (x, y) = parameters, grid(side)
    nest = _nest(p, streams, x, y, side)
    fibre, gap = (field * (1 - 0.75 * nest) for field in _matrix(p, streams, x, y, side))
    cells = _place(p, streams, side, nest, np.maximum(gap, 0.8 * fibre))
    index, depth = _draw(cells, side)
    cytoplasm = 0.50 + 0.16 * texture(streams("cytoplasm"), side, 10, 3)
    # Tumour cells have more cytoplasm; gaps have none, and each nucleus keeps a little around it.
    eosin = np.clip(cytoplasm, 0.08, 1.2) * (1 - 0.92 * gap)
    eosin = np.maximum(eosin, 0.75 * fibre * np.clip(0.8 + 0.35 * cytoplasm, 0, 2))
    haze = np.clip(0.13 + 0.10 * nest + 0.08 * (cytoplasm - 0.5), 0, 1) * (1 - 0.9 * gap)
    inside = index >= 0
    membrane = cover(np.abs(depth - 0.012) - 0.008, 0.02) * inside
    clumps, tone, rim = (_each(cells[name], index) for name in ("clumps", "tone", "rim"))
    chromatin = 1 + clumps * texture(streams("chromatin"), side, 40, 2)
    nuclear = tone * chromatin + rim * membrane
    nuclear = nuclear + 0.6 * _nucleoli(cells, index, x, y)
    haematoxylin = np.where(inside, np.clip(nuclear, 0.15, 2.2), haze)
    eosin = np.where(inside, 0.35 * eosin + 0.1, eosin)
    image = _stain(haematoxylin, eosin, streams, side)
    return image, _truth(cells, index, side, p, nest)


def _each(values, index):
    """The value of each pixel's nucleus; 0 where the index is -1: no nucleus, of which fat may have none."""
    return np.concatenate([values, np.zeros((1, *values.shape[1:]), values.dtype)])[index]


def _nest(p, streams, x, y, side):
    """Opacity of the tumour's region around the middle."""
    if not p["reach"]:
        return np.zeros_like(x)
    rng = streams("nest")
    cx, cy = rng.normal(0, 0.12, 2)
    wave = 0.18 * texture(rng, side, 4, 2)
    return cover(np.hypot(x - cx, y - cy) - p["reach"] + wave, 0.1)


def _matrix(p, streams, x, y, side):
    """Collagen fibres and empty space, opacities in [0, 1]."""
    rng = streams("matrix")
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    wave = texture(rng, side, 3, 2)
    gaps = texture(rng, side, 9, 2, 0.8)
    band = np.abs(across + 0.25 * wave - rng.uniform(-0.7, 0.7))
    strands = 0.5 + 0.5 * np.sin(26 * (across + 0.22 * wave) + 2.0 * np.sin(3 * along) + gaps)
    if p["tissue"] == "stroma":
        width = rng.uniform(0.35, 1.0)
        fibre = cover(band - width, 0.2) * (0.45 + 0.55 * strands)
        gap = cover(0.75 - strands * 0.3 - 0.35 * gaps, 0.3) * cover(band - width, 0.2) * 0.8
    elif p["tissue"] == "fat":
        return _fat(rng, x, y)
    else:
        fibre = cover(band - rng.uniform(-0.1, 0.12), 0.1) * (0.4 + 0.6 * strands)
        threshold = rng.uniform(0.2, 0.8) if p["tissue"] == "sinus" else rng.uniform(1.0, 2.0)
        gap = cover((threshold - gaps) * 0.2, 0.12)
    return fibre.astype(np.float32), gap.astype(np.float32)


def _fat(rng, x, y):
    """Fat cells: large empty cells with thin walls."""
    centres = rng.uniform(-1.3, 1.3, (2, 9)).astype(np.float32)
    far = np.sort(np.hypot(x[..., None] - centres[0], y[..., None] - centres[1]), -1)
    wall = cover(far[..., 1] - far[..., 0] - 0.05, 0.06)
    return 0.8 * wall, 1 - wall


def _place(p, streams, side, nest, barred):
    """Nuclei as arrays: position, radius, elongation, tones. Packed by a few steps of repulsion."""
    rng = streams("nuclei")
    kinds = _kinds(p, rng)
    at, radius, large = _pack(p, rng, kinds, side, nest)
    column, row = (np.clip((c + 1) * side, 0, 2 * side - 1).astype(int) for c in at.T)
    keep = rng.random(len(at)) > np.where(large == 2, 0.5, 1.0) * barred[row, column]
    at, radius, large = at[keep], radius[keep], large[keep]
    n, tumour, mimic, spindle = len(at), large == 2, large == 1, large == 3
    stretch = np.where(tumour, rng.uniform(1.05, 1.5, n), rng.uniform(1.0, 1.25, n))
    stretch = np.where(spindle, rng.uniform(2.2, 3.4, n), stretch)
    pale = tumour * rng.uniform(0.3, 0.75) + mimic * rng.uniform(0.3, 0.7)
    lobes = np.where(tumour, 0.5 + p["pleomorphism"], 0.35)[:, None] * rng.normal(0, 0.12, (n, 3))
    return {
        "at": at,
        "radius": radius,
        "large": large,
        "stretch": stretch,
        "turn": np.where(spindle, kinds["angle"] + rng.normal(0, 0.2, n), rng.uniform(0, np.pi, n)),
        "lobes": lobes,
        "phase": rng.uniform(0, 2 * np.pi, (n, 3)),
        "tone": np.clip(1.35 - 0.95 * pale + rng.normal(0, 0.14, n), 0.45, 1.7).astype(np.float32),
        "clumps": np.where(tumour | mimic, 0.22, 0.16).astype(np.float32),
        "rim": (0.15 + 0.55 * pale).astype(np.float32),
        "nucleolus": (tumour * (rng.random(n) < 0.6) + mimic * (rng.random(n) < 0.3)) > 0,
        "spot": rng.normal(0, 0.25, (n, 2)),
    }


def _kinds(p, rng):
    """What a normal image gathers in its middle, and where spindle cells point."""
    return {
        "angle": rng.uniform(0, np.pi),
        "mimic": rng.random() < MIMIC_SHARE,
        "mimic_radius": max(rng.normal(*LARGE_NORMAL), 0.085),
        "mimic_reach": rng.uniform(0.3, 0.9),
        "mimic_share": rng.uniform(0.25, 0.85),
        "mimic_at": rng.normal(0, 0.2, 2),
    }


def _pack(p, rng, kinds, side, nest):
    """Positions [n, 2], radii and kinds (0 lymphocyte, 1 large normal, 2 tumour, 3 spindle)."""
    lines = int(2.3 / LYMPHOCYTE[0] * np.sqrt(0.78 / np.pi))
    n = lines * lines
    at = np.stack(np.meshgrid(*[np.arange(lines) + 0.5] * 2), -1).reshape(-1, 2)
    at = (at + rng.uniform(-0.8, 0.8, (n, 2))) * (2.3 / lines) - 1.15
    column, row = (np.clip((c + 1) * side, 0, 2 * side - 1).astype(int) for c in at.T)
    radius = LYMPHOCYTE[0] * (1 + LYMPHOCYTE[1] * rng.standard_normal(n))
    large = np.where(rng.random(n) < (0.5 if p["tissue"] in ("stroma", "fat") else 0.04), 3, 0)
    near = np.hypot(*(at - kinds["mimic_at"]).T) < kinds["mimic_reach"]
    mimic = kinds["mimic"] * near * (rng.random(n) < kinds["mimic_share"]) * (not p["reach"])
    spread = np.clip(1 + 0.12 * rng.standard_normal(n), 0.7, 1.4)
    radius = np.where(mimic, kinds["mimic_radius"] * spread, radius)
    spread = np.exp(p["pleomorphism"] * rng.standard_normal(n) - p["pleomorphism"] ** 2 / 2)
    tumour = (nest[row, column] > 0.5) & (rng.random(n) >= p["admixed"])
    radius = np.where(tumour, np.clip(p["tumour_radius"] * spread, 0.06, 0.27), radius)
    large = np.where(tumour, 2, np.where(mimic, 1, large))
    # Large cells need more room than the lattice of lymphocytes gives them: thin them out.
    room = np.maximum((radius * np.where(tumour, 1.1, 1.05) / LYMPHOCYTE[0]) ** 2, 1)
    density = np.where(nest[row, column] > 0.5, max(p["density"], 0.9), p["density"])
    keep = rng.random(n) < density / room
    at, radius, large = at[keep].astype(np.float32), radius[keep].astype(np.float32), large[keep]
    reach = radius * np.where(large == 2, 1.18, 1.0).astype(np.float32)
    for _ in range(7):
        apart = at[:, None] - at[None]
        far = np.sqrt((apart**2).sum(-1)) + np.eye(len(at), dtype=np.float32) * 9 + 1e-4
        push = np.clip(reach[:, None] + reach[None] - far, 0, None) / far
        at = at + 0.32 * (push[..., None] * apart).sum(1)
    return at, radius, large


def _draw(cells, side):
    """Which nucleus owns each supersampled pixel (-1: none), and how deep in it the pixel lies."""
    size = SUPERSAMPLING * side
    index = np.full((size + 1) ** 2, -1)
    depth = np.zeros((size + 1) ** 2, np.float32)
    order = np.argsort(cells["radius"] * cells["stretch"])[::-1]
    # Nuclei of like size share one stack of patches.
    for part in np.array_split(order, min(4, len(order)) or 1):
        if not len(part):
            continue
        reach = float((cells["radius"][part] * np.sqrt(cells["stretch"][part])).max()) * 1.25
        half = int(np.ceil(reach * side)) + 1
        offset = np.arange(-half, half + 1)
        column, row = (np.floor((c + 1) * side).astype(int) for c in cells["at"][part].T)
        columns = column[:, None, None] + offset[None, None, :]
        rows = row[:, None, None] + offset[None, :, None]
        dx = (columns + 0.5) / side - 1 - cells["at"][part, 0][:, None, None]
        dy = (rows + 0.5) / side - 1 - cells["at"][part, 1][:, None, None]
        inner = _depth(cells, part, dx.astype(np.float32), dy.astype(np.float32))
        here = (inner > 0) & (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
        flat = (rows * size + columns)[here]
        index[flat] = np.broadcast_to(part[:, None, None], here.shape)[here]
        depth[flat] = inner[here]
    return tuple(field[: size * size].reshape(size, size) for field in (index, depth))


def _depth(cells, part, dx, dy):
    """Depth inside each nucleus: an ellipse with three harmonics."""
    one = np.float32
    pick = lambda name: cells[name][part].astype(one)[:, None, None]  # noqa: E731
    cos, sin, long = np.cos(pick("turn")), np.sin(pick("turn")), np.sqrt(pick("stretch"))
    u, v = (cos * dx + sin * dy) / long, (cos * dy - sin * dx) * long
    angle = np.arctan2(v, u)
    edge = np.ones_like(u)
    for k, harmonic in enumerate((2, 3, 4)):
        lobe = cells["lobes"][part, k].astype(one)[:, None, None]
        phase = cells["phase"][part, k].astype(one)[:, None, None]
        edge += lobe * np.cos(harmonic * angle + phase)
    return pick("radius") * edge - np.sqrt(u * u + v * v)


def _nucleoli(cells, index, x, y):
    """A dark dot in vesicular nuclei."""
    at = _each((cells["at"] + cells["spot"] * cells["radius"][:, None]).astype(np.float32), index)
    dot = cover(np.hypot(x - at[..., 0], y - at[..., 1]) - 0.2 * _each(cells["radius"], index), 0.02)
    return dot * _each(cells["nucleolus"], index) * (index >= 0)


def _stain(haematoxylin, eosin, streams, side):
    """Beer-Lambert with this slide's stains, then focus, white balance and noise."""
    rng = streams("stain")
    amounts = np.exp(rng.normal(0, STAIN_SPREAD, 2))
    vectors = np.stack([HAEMATOXYLIN, EOSIN]) * np.exp(rng.normal(0, 0.09, (2, 3)))
    h, e = amounts[0] * expose(haematoxylin, 0.012), amounts[1] * expose(eosin, 0.012)
    density = vectors[0][:, None, None] * h + vectors[1][:, None, None] * e
    image = np.exp(-1.15 * density) * rng.uniform(0.93, 1.0) * (1 - rng.uniform(0, 0.04, 3))[:, None, None]
    image = image + NOISE * streams("noise").standard_normal(image.shape)
    return np.clip(image, 0, 1).astype(np.float32)


def _truth(cells, index, side, p, nest):
    """Counts and sizes of the nuclei whose centre is in the image; areas as share of the image."""
    within = (np.abs(cells["at"]) < 1).all(1)
    area = (np.pi * cells["radius"] ** 2 / 4)[within]
    some = len(area) > 1
    return {
        "count": np.int64(within.sum()),
        "area": np.float32(area.mean() if len(area) else 0),
        "pleomorphism": np.float32(area.std() / area.mean() if some else 0),
        "tumour_share": np.float32((cells["large"][within] == 2).mean() if len(area) else 0),
        "nuclei": reduce_mask((index >= 0).astype(np.float32)),
        "tumour_nuclei": reduce_mask((_each(cells["large"], index) == 2).astype(np.float32)),
    }
