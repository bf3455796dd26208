"""What a male pelvis consists of at the prostate's level: painted by lib.phantom_prostate, lesions apart.

Lengths are in image units of 75 mm; a tissue is its signal in T2W, ADC and DWI.
"""

import numpy as np

from lib.phantom_canvas import Canvas, cover, ellipse, grid, texture

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


class Gland:
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

    def paint(self, part, zones, heterogeneity, grain, rng):
        """Capsule, zones, nodules of hyperplasia, fibrous stroma in front, urethra."""
        shell, whole, inner = zones
        health = rng.normal(0, 1)
        outer_zone = np.array([0.70 + 0.06 * health, 0.60 + 0.05 * health, 0.20], np.float32)
        inner_zone = (np.array([0.33, 0.42, 0.25]) + rng.normal(0, (0.04, 0.035, 0.02))).astype("f4")
        part.over(shell * 0.9, CAPSULE)
        amount = np.array([1.0, 0.7, 0.4], np.float32)[:, None, None] * heterogeneity * grain
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


def paint_pelvis(canvas, level, gland, rng):
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


def paint_rectum(canvas, gland, rng, side):
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
