"""What a chest consists of, healthy or not: distances and shadows that lib.phantom_chest exposes to a film.

Lengths are in image units, in the patient's frame (u to the image's right, v downwards), [H, W] each. `b`
is a patient's thorax as `body` returns it.
"""

from types import SimpleNamespace

import numpy as np

from lib.phantom_canvas import cover, ellipse, stroke, texture

SPINE, RIB, CLAVICLE = 0.08, 0.095, 0.13
USUAL_CTR = 0.46  # cardiothoracic ratio above which a heart lies flatter
BREASTS = 0.45  # share of images with their shadow


def body(p, rng):
    """Lengths of this patient's thorax; heart axes such that its width is exactly ctr of it."""
    b = SimpleNamespace()
    b.wall = rng.normal(0.75, 0.035)  # half of the inner thoracic width
    b.width = b.wall  # full width in image sides
    b.top = rng.normal(-0.75, 0.04) + 0.06 * p["portable"]
    b.dome = 0.36 + 0.07 * p["inspiration"], 0.40 + 0.07 * p["inspiration"] + rng.normal(0, 0.025)
    b.base = max(b.dome) + 0.20
    b.height = b.base - b.top
    b.shift = rng.normal(0, 0.02)  # rotation of the patient moves the mediastinum
    large = p["ctr"] - USUAL_CTR  # a large heart lies flatter
    half, slim = p["ctr"] * b.wall, rng.uniform(0.66, 0.76) - 0.6 * large
    b.heart_turn = rng.uniform(0.45, 0.75) - 1.2 * large
    cos, sin = np.cos(b.heart_turn), np.sin(b.heart_turn)
    b.heart_a = float(half / np.hypot(cos, slim * sin))
    b.heart_b = slim * b.heart_a
    b.heart_x = b.shift + half * rng.uniform(0.26, 0.40)
    reach = float(np.hypot(b.heart_a * sin, b.heart_b * cos))
    b.heart_y = b.dome[1] + rng.uniform(0.08, 0.16) - reach
    b.hilum = -0.06 + 0.04 * p["inspiration"]
    b.waist = rng.uniform(0.095, 0.13)
    b.slope = rng.uniform(0.9, 1.1)
    return b


def union(one, other, smooth):
    """Signed distance to two shapes melted into each other over the length `smooth`."""
    blend = np.clip(smooth - np.abs(one - other), 0, None)
    return np.minimum(one, other) - blend * blend * (0.25 / smooth)


def _wall(v, b):
    """Inner half width of the rib cage at each height."""
    t = np.clip((v - b.top + 0.03) / (b.height + 0.03), 0, 1)
    return b.wall * np.sqrt(1 - (1 - t) ** 2.5)


def cavity(u, v, b):
    """Signed distance to both pleural cavities, the mediastinum included."""
    far = np.abs(u)
    apex = b.top + 1.1 * (far - 0.31) ** 2 - v
    return np.maximum(np.maximum((far - _wall(v, b)) * 0.8, apex), v - diaphragm(u, b))


def diaphragm(u, b):
    """Height of the diaphragm: two domes, the right one (left in the image) usually higher."""
    dome = b.dome[0] + (b.dome[1] - b.dome[0]) * np.clip(u * 4 + 0.5, 0, 1)
    out = np.abs(u) - 0.32
    bend = np.where(out > 0, np.float32(0.20 / (b.wall - 0.32) ** 2), np.float32(0.5))
    return np.minimum(dome + bend * out**2, b.base + 0.02)


def mediastinum(u, v, b, rng):
    """Signed distance to vessels and spine between the lungs, hila and aortic arch included."""
    across = u - b.shift
    pedicle = b.waist + 0.05 * np.clip(-(v + 0.45) * 3, 0, 1) + 0.02 * np.clip(v * 2, 0, 1)
    distance = np.abs(across) - pedicle
    knob = ellipse(across, v, b.waist + 0.01, b.hilum - 0.24, rng.uniform(0.06, 0.09), 0.085)
    distance = np.minimum(distance, knob)
    for sign, drop in ((-1, 0.05), (1, 0.0)):
        size = rng.uniform(0.045, 0.075)
        hilum = ellipse(across, v, sign * (b.waist + 0.045), b.hilum + drop, size, 0.11, sign * 0.35)
        distance = np.minimum(distance, hilum + 0.012)
    return distance


def soft_tissue(u, v, b, rng):
    """Body wall: neck, sloping shoulders, trunk with the axillae open; air outside is 0."""
    far = np.abs(u)
    slope, neck = rng.uniform(0.12, 0.3), rng.uniform(0.17, 0.23)
    shoulder = -0.86 + slope * (far - neck) - 0.35 * np.exp((neck - far) / 0.10) - v
    flank = b.wall + rng.uniform(0.15, 0.24)
    arm = 1 / (1 + np.exp((v + rng.uniform(-0.05, 0.25)) * 9))
    trunk = far - flank - 0.5 * arm
    inside = cover(np.maximum(shoulder, trunk), 0.05)
    thick = np.sqrt(np.clip(1 - (far / (flank + 0.5 * arm + 0.02)) ** 4, 0, 1))
    rise = 0.06 * np.clip(v, -1, 1)
    return inside * (0.26 + 0.46 * thick + rise)


def stomach(u, v, b, rng, side):
    """Gas under the left dome, of any size or none; loops of bowel below."""
    gas = rng.random() < 0.6
    size, depth, dim = rng.uniform(0.07, 0.15), rng.uniform(0.06, 0.12), rng.uniform(0.5, 1.6)
    bubble = ellipse(u, v, 0.38, b.dome[1] + depth + size * 0.6, size * 1.5, size * 0.8)
    return gas * dim * cover(bubble, 0.06) + 0.12 * texture(rng, side, 6, 2)


def bones(u, v, b, rng, seen):
    """Ribs behind (nearly level, then bending down) and in front (rising outwards), spine, clavicles."""
    far = np.abs(u)
    out = np.clip(far / (b.wall + 0.05), 0, 1)
    spacing = b.height * rng.uniform(0.098, 0.112)
    behind = v - b.slope * (0.10 * out + 0.36 * (1 - np.sqrt(1 - out * out * 0.98)))
    front = v - 0.62 * b.slope * (b.wall - far) - 0.3 * (b.wall - far) ** 2
    cage = (v > b.top - 0.06) * cover(far - _wall(v + 0.05, b) - 0.03, 0.06)
    cage = cage * cover(v - b.base - 0.1, 0.3)
    ribs = _bands(behind, spacing, rng.uniform(), 0.27) * np.clip((far - 0.08) * 12, 0, 1)
    ribs = ribs + 0.55 * _bands(front, spacing * 1.12, rng.uniform(), 0.24) * np.clip((far - 0.24) * 6, 0, 1)
    bones = RIB * rng.uniform(0.7, 1.25) * ribs * cage * seen
    across = np.abs(u - 0.4 * b.shift)
    discs = 0.75 + 0.25 * np.cos(2 * np.pi * v / (0.16 + 0.03 * v))
    bones = bones + SPINE * cover(across - 0.075, 0.05) * discs * seen.clip(0.6)
    airway = across + 0.02 * np.cos(v * 4) - 0.03
    bones = bones - 0.09 * cover(airway, 0.03) * cover(v - b.hilum + 0.1, 0.15)
    lift = rng.uniform(0.08, 0.3)
    collar = b.top + 0.19 - lift * (far - 0.07) + 0.025 * np.sin(far * 9) - v
    ends = cover(0.07 - far, 0.04) * cover(far - 0.78, 0.06)
    bones = bones + CLAVICLE * _tube(collar, 0.032) * ends
    head = ellipse(far, v, b.wall + 0.24, b.top + 0.20, 0.12, 0.13)
    blade = np.abs(far - b.wall + 0.02 + 0.25 * (v - b.top - 0.2)) - 0.012
    blade = cover(blade, 0.03) * cover(np.abs(v - b.top - 0.38) - 0.22, 0.06)
    return bones + 0.09 * cover(head, 0.05) + 0.05 * blade


def _bands(level, spacing, phase, half):
    """Ribs as tubes along the iso-lines of a field, `half` their half width in periods."""
    place = level / spacing + phase
    return _tube((place - np.floor(place) - 0.5) * spacing, half * spacing)


def _tube(distance, half):
    """Projection of a tube: filled, with a denser cortex at its edges."""
    far = np.abs(distance)
    return 0.65 * cover(far - half, 0.02) + 0.5 * cover(np.abs(far - half * 0.85) - 0.004, 0.018)


def vessels(u, v, b, rng):
    """Tapering branches from both hila."""
    tree = np.zeros_like(u)
    for sign in (-1, 1):
        for k in range(11):
            start = b.shift + sign * (b.waist + 0.03), b.hilum + rng.uniform(-0.06, 0.10)
            turn = -1.25 + 2.6 * (k + rng.uniform(0, 0.8)) / 11
            length, width = rng.uniform(0.22, 0.42), rng.uniform(0.012, 0.022)
            mid = start[0] + sign * length * 0.55 * np.cos(turn), start[1] + length * 0.7 * np.sin(turn)
            turn += rng.normal(0, 0.35)
            end = mid[0] + sign * length * 0.6 * np.cos(turn), mid[1] + length * 0.7 * np.sin(turn)
            stroke(tree, u, v, start, mid, width, width * 0.7)
            stroke(tree, u, v, mid, end, width * 0.7, width * 0.3)
    return tree


def breasts(u, v, b, rng):
    """Breasts: a shadow over the lower lungs that ends in a curve."""
    if rng.random() >= BREASTS:
        return 0.0
    far, size, dense = np.abs(u), rng.uniform(0.24, 0.36), rng.uniform(0.04, 0.12)
    low = b.base - rng.uniform(0.0, 0.16)
    shape = ellipse(far, v, b.wall * 0.72, low - size, size * 1.15, size)
    return dense * cover(shape, 0.03) * np.clip((v - low + 1.5 * size) / size, 0, 1)
