"""Axial prostate MRI: T2W, ADC and high-b-value DWI of one slice as the R, G and B channels.

One image unit is 75 mm (a field of view of 150 mm, as the paper crops PI-CAI), the gland near the
middle, anterior up. Anatomy is painted front to back in warped coordinates as triples (T2W, ADC,
DWI); then each channel gets its own resolution, noise and window.
"""

import numpy as np

from lib.phantom_canvas import (
    Canvas,
    Streams,
    cover,
    ellipse,
    expose,
    grid,
    reduce_mask,
    texture,
)

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
# Signal of tissue: T2W, ADC, DWI.
FAT = (0.55, 0.07, 0.05)
MUSCLE = (0.13, 0.30, 0.10)
MARROW = (0.46, 0.07, 0.04)
CORTEX = (0.04, 0.04, 0.02)
URINE = (0.93, 0.88, 0.07)
WALL = (0.22, 0.36, 0.20)
GAS = (0.02, 0.03, 0.02)
STOOL = (0.30, 0.26, 0.10)
VESSEL = (0.05, 0.12, 0.04)
CAPSULE = (0.15, 0.38, 0.16)
FIBROUS = (0.14, 0.30, 0.16)
CANCER = (0.17, 0.17, 0.80)
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
    canvas.pixels[:] = np.array(FAT, np.float32)[:, None, None]
    strands = np.abs(texture(streams("fat"), side, 10, 3))
    canvas.pixels[0] += 0.10 * np.minimum(strands, 1) - 0.07
    gland = _Gland(p, streams("gland"))
    _paint_pelvis(canvas, p["level"], gland, streams("pelvis"))
    _paint_rectum(canvas, gland, streams("rectum"), side)
    part = canvas.crop(gland.cx, gland.cy, gland.a + 0.1, gland.b + 0.1)
    zones = gland.zones(part)
    grain = np.stack([texture(streams(f"zones {c}"), side, 14, 2) for c in range(3)])
    cut = Canvas(grain, x, y).crop(gland.cx, gland.cy, gland.a + 0.1, gland.b + 0.1)
    gland.paint(part, zones, cut.pixels, streams("zones"))
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


class _Gland:
    """Where the gland and its zones lie; `a` and `b` are its half width and half height."""

    def __init__(self, p, rng):
        self.a = p["gland_width"] / 2
        self.b = self.a * rng.uniform(0.74, 0.9)
        self.cx, self.cy = rng.normal(0, 0.03), rng.normal(-0.08, 0.035)
        swell = min(max((self.a - 0.30) / 0.18, 0), 1)  # large glands are large in the middle
        self.ta = self.a * (0.60 + 0.16 * swell + rng.uniform(-0.04, 0.04))
        self.tb = self.b * (0.60 + 0.12 * swell + rng.uniform(-0.04, 0.04))
        self.tx, self.ty = self.cx, self.cy - (self.b - self.tb) * 0.72

    def zones(self, part):
        """Opacity of the gland with its capsule, of the gland and of its transition zone."""
        # Wider behind than in front, flattened where it rests on the rectum.
        u, v = (part.x - self.cx) / self.a, (part.y - self.cy) / self.b
        u = u * (1 - 0.14 * v)
        v = v + 0.10 * np.clip(v, 0, None) * (1 - u * u)
        whole = (np.sqrt(u * u + v * v) - 1) * self.b
        inner = ellipse(part.x, part.y, self.tx, self.ty, self.ta, self.tb)
        return cover(whole - 0.035, 0.03), cover(whole, 0.03), cover(np.maximum(inner, whole), 0.03)

    def paint(self, part, zones, grain, rng):
        """Capsule, zones, nodules of hyperplasia, fibrous stroma in front, urethra."""
        shell, whole, inner = zones
        health = rng.normal(0, 1)
        outer_zone = np.array([0.70 + 0.06 * health, 0.60 + 0.05 * health, 0.20], np.float32)
        inner_zone = (np.array([0.33, 0.42, 0.25]) + rng.normal(0, (0.04, 0.035, 0.02))).astype("f4")
        part.over(shell * 0.9, CAPSULE)
        amount = np.array([1.0, 0.7, 0.4], np.float32)[:, None, None] * HETEROGENEITY * grain
        part.over(whole, outer_zone[:, None, None] * (1 + amount))
        part.over(np.clip(1.6 - np.abs(inner - 0.5) * 4, 0, 0.6) * whole, CAPSULE)
        part.over(inner, inner_zone[:, None, None] * (1 + 1.6 * amount))
        # Nodules never leave the transition zone: they are laid over what is then put back.
        outside = part.pixels.copy()
        for _ in range(int(rng.integers(5, 11) * (0.5 + self.a * 2))):
            turn, out = rng.uniform(0, 2 * np.pi), float(np.sqrt(rng.uniform(0, 0.75)))
            at = self.tx + self.ta * out * np.cos(turn), self.ty + self.tb * out * np.sin(turn)
            radius, flat = rng.uniform(0.04, 0.11) * (0.6 + self.a), rng.uniform(0.7, 1)
            tone = inner_zone + np.array([0.16, 0.09, 0.0]) * rng.normal(0.25, 1)
            angle = rng.uniform(0, 3)
            part.ellipse(*at, radius, radius * flat, (0.2, 0.38, 0.2), angle, 0.03, 0.5, 0.014)
            part.ellipse(*at, radius, radius * flat, np.clip(tone, 0.18, 0.8), angle, 0.03, 0.85)
        part.pixels[...] = outside + inner * (part.pixels - outside)
        front = ellipse(part.x, part.y, self.cx, self.cy - 0.92 * self.b, 0.42 * self.a, 0.26 * self.b)
        part.over(cover(front, 0.08) * whole * 0.85, FIBROUS)
        shine = rng.uniform(0, 0.8)
        part.ellipse(self.cx, self.cy + 0.12 * self.b, 0.022, 0.05, (0.8, 0.62, 0.2), 0, 0.04, shine)


def _paint_pelvis(canvas, level, gland, rng):
    """Bone, muscle, bladder or symphysis, and vessels around the gland."""
    base = min(max((level - 0.35) * 4, 0), 1)  # 0: symphysis, 1: bladder
    middle = gland.cx + rng.normal(0, 0.015)
    front = gland.cy - gland.b

    def pair(cx, cy, rx, ry, tissue, angle=0.0, rim=0.03, opacity=1.0, unlike=0.015):
        """The same ellipse on both sides of the midline, not quite alike."""
        for mirror in (-1, 1):
            dx, dy = rng.normal(0, unlike, 2).tolist()
            at = middle + mirror * (cx + dx), cy + dy
            canvas.ellipse(*at, rx, ry, tissue, mirror * angle, rim, opacity)

    # Bone: femoral heads and acetabulum near the base, ischium near the apex.
    hip, socket = 1.17 - 0.06 * base, rng.normal(-0.16, 0.03)
    pair(hip, socket, 0.40, 0.42, CORTEX, unlike=0)
    pair(hip, socket, 0.36, 0.38, np.multiply(MARROW, 0.85 + 0.25 * base), rim=0.04, unlike=0.008)
    pair(0.94, 0.42, 0.20, 0.25, CORTEX, 0.3, unlike=0)
    pair(0.94, 0.42, 0.165, 0.21, MARROW, 0.3, 0.04, unlike=0.008)
    # Muscle: obturator internus on the side wall with its hook behind, gluteus at the corners.
    wall = max(0.60 + rng.normal(0, 0.025), gland.a + 0.21)
    lean = 0.17 * (1 - base) + rng.normal(0, 0.03)
    pair(wall, 0.02, 0.115, 0.47, MUSCLE, -lean)
    pair(wall + 0.14, 0.46, 0.19, 0.08, MUSCLE, 0.75)
    pair(0.72, 0.95, 0.52, 0.21, MUSCLE, 0.16, 0.05)
    _paint_sling(canvas, middle, gland, base)
    if base < 1:  # pubic bones, symphysis and the muscles that fan out from them
        weight = 1 - base
        for k in range(3):
            at = 0.64 + 0.05 * k, -0.47 - 0.19 * k
            pair(*at, 0.46, 0.085, MUSCLE, -0.42 + 0.12 * k, opacity=0.9 * weight)
        pair(0.17, front - 0.32, 0.225, 0.17, CORTEX, 0.35, 0.03, weight, 0)
        pair(0.17, front - 0.32, 0.20, 0.145, np.multiply(MARROW, 0.75), 0.35, 0.03, weight, 0.006)
        canvas.ellipse(middle, front - 0.33, 0.022, 0.17, CORTEX, 0, 0.03, weight)
        vein = 0.6 * weight
        canvas.ellipse(middle, front - 0.06, 0.20, 0.045, (0.82, 0.6, 0.1), 0, 0.05, vein)
    if base > 0:  # bladder, and the abdominal wall in front of it
        half, height = rng.uniform(0.28, 0.42), rng.uniform(0.13, 0.24)
        part = canvas.crop(middle, front - height - 0.055, half + 0.2, height + 0.2)
        sac = ellipse(part.x, part.y, middle, front - height - 0.055, half, height)
        sac = sac + rng.uniform(0, 0.1) * (part.y - front + height)  # flat or peaked on top
        part.over(cover(sac - 0.06, 0.03) * base, WALL)
        part.over(cover(sac, 0.03) * base, np.multiply(URINE, (rng.uniform(0.85, 1.05), 1, 1)))
        pair(0.27, -0.98, 0.27, 0.075, MUSCLE, 0.05, 0.04, base)
    for cx, cy, r in ((0.64, -0.70, 0.055), (0.77, -0.66, 0.062)):  # femoral artery and vein
        pair(cx, cy - 0.06 * base, r, r, VESSEL)
    for _ in range(8):  # neurovascular bundles and vessels in the fat beside the gland
        turn, out, mirror = rng.uniform(0.1, 1.0), rng.uniform(1.1, 1.3), rng.choice([-1, 1])
        at = (
            gland.cx + mirror * gland.a * out * float(np.cos(turn)),
            gland.cy + gland.b * out * float(np.sin(turn)),
        )
        tissue = VESSEL if rng.random() < 0.6 else (0.85, 0.5, 0.2)
        canvas.ellipse(*at, 0.018, 0.018, tissue, 0, 0.02, 0.7)
    canvas.ellipse(middle, 1.02, rng.uniform(0.02, 0.035), 0.17, CORTEX, 0, 0.03, 0.8)  # cleft


def _paint_sling(canvas, middle, gland, base):
    """Levator ani: beside gland and rectum, narrowing behind; a V near the apex."""
    bottom = gland.cy + gland.b + 0.42 + 0.14 * base
    part = canvas.crop(middle, (gland.cy + bottom) / 2, gland.a + 0.3, bottom - gland.cy)
    depth = np.clip((part.y - gland.cy + 0.1) / (bottom - gland.cy + 0.1), 0, 1)
    width = (gland.a + 0.075) * (1 - depth ** (2.2 + 1.2 * base)) ** 0.8
    line = np.abs(np.abs(part.x - middle) - width) - (0.022 + 0.014 * (1 - base))
    fade = np.clip((part.y - gland.cy + 0.2) * 6, 0, 1) * (depth < 1)
    part.over(cover(line, 0.03) * fade * 0.85, MUSCLE)


def _paint_rectum(canvas, gland, rng, side):
    """Full of gas, full of stool, or collapsed on itself."""
    filling = rng.choice(3, p=(0.35, 0.3, 0.35))
    rx = rng.uniform(0.17, 0.28) if filling < 2 else rng.uniform(0.11, 0.16)
    ry = rx * rng.uniform(0.72, 1.0)
    cx, cy = gland.cx + rng.normal(0, 0.03), gland.cy + gland.b * 0.93 + ry + 0.05
    canvas.ellipse(cx, cy, rx + 0.045, ry + 0.045, WALL)
    if filling == 0:
        canvas.ellipse(cx, cy, rx, ry, GAS)
    elif filling == 1:
        part = canvas.crop(cx, cy, rx + 0.1, ry + 0.1)
        tone = Canvas(texture(rng, side, 12, 2)[None], *grid(side)).crop(cx, cy, rx + 0.1, ry + 0.1)
        stool = np.array(STOOL, np.float32)[:, None, None] * (1 + 0.25 * tone.pixels)
        part.over(cover(ellipse(part.x, part.y, cx, cy, rx, ry), 0.03), stool)
    else:  # a slit in bright mucosa
        canvas.ellipse(cx, cy, rx - 0.02, ry - 0.02, (0.5, 0.45, 0.28), 0, 0.04, 0.7)
        canvas.ellipse(cx, cy, rx * 0.6, 0.02, GAS)


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
