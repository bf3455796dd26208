"""Axial prostate MRI: T2W, ADC and high-b-value DWI of one slice as the R, G and B channels.

One image unit is 75 mm (a field of view of 150 mm, as the paper crops PI-CAI), the gland near the
middle, anterior up. Anatomy is painted front to back in warped coordinates as triples (T2W, ADC,
DWI); then each channel gets its own resolution, noise and window.
"""

import numpy as np

from lib import pelvis_anatomy as anatomy
from lib.phantom_canvas import Canvas, Streams, cover, ellipse, expose, grid, reduce_mask, texture

LABELS = ("normal", "tumour")

# --- Difficulty: what decides how well the two classes can be told apart. ---
CONSPICUITY = (0.58, 0.19)  # mean and deviation of a tumour's contrast; 1 is unmistakable
MIMIC = (0.27, 0.13)  # the same of one benign mimic (stromal nodule or prostatitis)
MIMICS = 1.3  # mean number of mimics, in both classes
CHANNEL_SPREAD = 0.15  # how far T2W, ADC and DWI disagree about one focus
RADIUS = (0.095, 0.25)  # tumour: median (image units) and log deviation
TRANSITION_SHARE = 0.27  # tumours in the transition zone
NOISE = (0.03, 0.04, 0.03)  # T2W, ADC, DWI; fraction of the full range
HETEROGENEITY = 0.11  # texture within the zones

#: What a caller may fix: (lowest, highest) or the words.
OVERRIDES = {
    "conspicuity": (0.0, 1.0),
    "radius": (0.03, 0.2),  # image units of 75 mm
    "zone": ("PZ", "TZ"),
    "mimics": (0, 4),
    "level": (0.0, 1.0),
    "gland_width": (0.4, 1.0),
}

MILLIMETRES = 75  # in one image unit
CANCER = (0.17, 0.17, 0.80)  # signal: T2W, ADC, DWI
SUSPICIOUS_REACH = 0.85  # opacity of a focus of conspicuity 1


def sample(streams: Streams, labels: tuple[str, ...]) -> dict:
    """The generating parameters of one image, by name; lengths in image units.

    The tumour's place and size are drawn for a normal image as well; its conspicuity is 0.
    """
    rng, focus = streams("anatomy"), streams("lesion")
    half = float(np.clip(rng.normal(0.37, 0.045), 0.28, 0.50))
    conspicuity = min(max(focus.normal(*CONSPICUITY), 0.08), 1)
    radius = RADIUS[0] * float(np.exp(focus.normal(0, RADIUS[1])))
    return {
        "level": rng.uniform(),  # 0 apex (symphysis in front) to 1 base (bladder in front)
        "gland_width": 2 * half,
        "mimics": min(int(rng.poisson(MIMICS)), 4),
        "conspicuity": conspicuity if "tumour" in labels else 0.0,
        "radius": min(max(radius, 0.05), 0.17),
        "zone": "TZ" if focus.random() < TRANSITION_SHARE else "PZ",
    }


def render(parameters: dict, streams: Streams, side: int) -> tuple[np.ndarray, dict]:
    """One image float32 [3, side, side] in [0, 1] and its ground truth."""
    p, (x, y) = parameters, grid(side)
    warp = streams("warp")
    bent = x + 0.016 * texture(warp, side, 4), y + 0.016 * texture(warp, side, 4)
    canvas = Canvas(np.empty((3, *x.shape), np.float32), *bent)
    canvas.pixels[:] = np.array(anatomy.FAT, np.float32)[:, None, None]
    strands = np.abs(texture(streams("fat"), side, 10, 3))
    canvas.pixels[0] += 0.10 * np.minimum(strands, 1) - 0.07
    gland = anatomy.Gland(p, streams("gland"))
    anatomy.paint_pelvis(canvas, p["level"], gland, streams("pelvis"))
    anatomy.paint_rectum(canvas, gland, streams("rectum"), side)
    part = canvas.crop(gland.cx, gland.cy, gland.a + 0.1, gland.b + 0.1)
    zones = gland.zones(part)
    grain = np.stack([texture(streams(f"zones {c}"), side, 14, 2) for c in range(3)])
    cut = Canvas(grain, x, y).crop(gland.cx, gland.cy, gland.a + 0.1, gland.b + 0.1)
    gland.paint(part, zones, HETEROGENEITY, cut.pixels, streams("zones"))
    masks = np.zeros((3, *x.shape), np.float32)  # gland, mimics, lesion
    cut = Canvas(masks, x, y).crop(gland.cx, gland.cy, gland.a + 0.1, gland.b + 0.1)
    cut.pixels[0] = zones[1]
    worst = _paint_foci(part, cut.pixels, gland, zones, p, streams)
    truth = {
        "lesion": reduce_mask(masks[2]),
        "conspicuity": np.float32(p["conspicuity"]),
        "radius": np.float32(p["radius"] * MILLIMETRES if p["conspicuity"] else 0),
        "zone": np.array(p["zone"] if p["conspicuity"] else "", "<U2"),
        "mimic": np.float32(worst),
        "mimic_mask": reduce_mask(masks[1]),
        "gland": reduce_mask(masks[0]),
    }
    return _scan(canvas.pixels, x, y, streams, side), truth


def _paint_foci(part, masks, gland, zones, p, streams):
    """Benign mimics, then the tumour; fills masks 1 and 2, returns the worst mimic's strength."""
    _, whole, inner = zones
    rng, worst = streams("mimics"), 0.0
    for _ in range(int(p["mimics"])):
        central = rng.random() < 0.5
        strength = min(max(rng.normal(*MIMIC), 0.05), 0.8)
        radius = min(max(RADIUS[0] * float(np.exp(rng.normal(-0.05, RADIUS[1]))), 0.05), 0.16)
        wedge = not central and rng.random() < 0.6
        shape = _focus(part.x, part.y, gland, "TZ" if central else "PZ", radius, rng, wedge)
        opacity = cover(shape, 0.04) * (inner if central else whole)
        _darken(part, opacity, strength, rng)
        worst = max(worst, strength)
        masks[1] = np.maximum(masks[1], opacity)
    if p["conspicuity"]:
        rng = streams("tumour")
        shape = _focus(part.x, part.y, gland, p["zone"], p["radius"], rng, False)
        masks[2] = cover(shape, 0.04) * whole
        _darken(part, masks[2], p["conspicuity"], rng)
    return worst


def _focus(x, y, gland, zone, radius, rng, wedge):
    """Signed distance to a focus in a zone: along the capsule behind, or lens-shaped in front."""
    side = rng.choice([-1.0, 1.0])
    if zone == "PZ":
        # The angle is measured from straight behind; the crescent is thickest at 30 to 70 degrees.
        turn, out = side * rng.uniform(0.2, 1.25), rng.uniform(0.76, 0.84)
        cx = gland.cx + gland.a * out * np.sin(turn)
        cy = gland.cy + gland.b * out * np.cos(turn)
        long, short = radius * rng.uniform(1.05, 1.45), radius * rng.uniform(0.65, 0.95)
        angle = -turn
    else:
        cx = gland.tx + side * gland.ta * rng.uniform(0.05, 0.55)
        cy = gland.ty - gland.tb * rng.uniform(-0.35, 0.5)
        long, short = radius * rng.uniform(1.0, 1.5), radius * rng.uniform(0.7, 1.0)
        angle = rng.normal(0, 0.4)
    if wedge:  # prostatitis: a triangle with its base on the capsule
        cos, sin = np.cos(angle), np.sin(angle)
        u = cos * (x - cx) + sin * (y - cy)
        v = cos * (y - cy) - sin * (x - cx)
        return np.maximum(np.abs(u) - 0.55 * (v + radius) - 0.02, np.abs(v) - radius)
    shape = ellipse(x, y, cx, cy, long, short, angle)
    a = np.arctan2(y - cy, x - cx)
    for k in (2, 3, 5):
        shape = shape + radius * rng.normal(0, 0.2 / k) * np.cos(k * a + rng.uniform(0, 6.3))
    return shape


def _darken(part, opacity, strength, rng):
    """Blends towards cancer: dark on T2W and ADC, bright on DWI; each channel its own mind."""
    amounts = strength * SUSPICIOUS_REACH * np.exp(rng.normal(0, CHANNEL_SPREAD, 3))
    part.over(opacity * np.minimum(amounts, 0.95).astype(np.float32)[:, None, None], CANCER)


def _scan(canvas, x, y, streams, side):
    """Resolution, coil, noise and per-volume window of each sequence."""
    rng = streams("scanner")
    coil = 1 + 0.07 * texture(rng, side, 2) + rng.normal(0, 0.06) * x + rng.normal(0.02, 0.08) * y
    canvas[0] *= coil * (1 + 0.05 * texture(streams("strands"), side, 24, 2))
    canvas[1] *= 1 + 0.08 * texture(streams("adc"), side, 14, 2)
    canvas[2] *= 1 + 0.10 * texture(streams("dwi"), side, 14, 2)
    shift = rng.normal(0, 0.008, 2)  # eddy currents: the diffusion images do not quite register
    image = np.stack(
        [
            expose(canvas[0], rng.uniform(0.004, 0.012)),
            expose(canvas[1], rng.uniform(0.016, 0.026), shift),
            expose(canvas[2], rng.uniform(0.016, 0.026), shift),
        ]
    )
    gains = np.array([rng.uniform(0.62, 1.05), rng.uniform(0.85, 1.15), rng.uniform(0.75, 1.15)])
    level = np.array(NOISE) * rng.uniform(0.6, 1.4, 3)
    grain = streams("noise").standard_normal((2, 3, side, side), dtype=np.float32)
    image, level = image * gains[:, None, None], level[:, None, None]
    magnitude = np.hypot(image + level * grain[0], level * grain[1])  # Rician
    return np.clip(magnitude, 0, 1).astype(np.float32)
