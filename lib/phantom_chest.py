"""Frontal chest X-ray: grey, the patient's right on the left of the image.

Attenuation adds up along the ray, as in a radiograph: soft tissue, less air, plus bone, fluid and
devices; a film curve turns it into brightness. Lengths are in image units, in the patient's frame
(u to the image's right, v downwards), which the exposure turns, shifts and zooms a little.
"""

from types import SimpleNamespace

import numpy as np

from lib.phantom_canvas import Streams, cover, ellipse, expose, grid, reduce_mask, stroke, texture

LABELS = ("healthy", "cardiomegaly", "effusion", "pneumonia")

# --- Difficulty: what decides how well the classes can be told apart. ---
HEALTHY_CTR = (0.46, 0.04)  # cardiothoracic ratio: mean and deviation
ENLARGED_CTR = (0.56, 0.05)
PORTABLE_CTR = 0.02  # magnification at the bedside adds to either
EFFUSION = (0.22, 0.11)  # height as a fraction of the lung's: mean and deviation
EFFUSION_RANGE = (0.04, 0.6)
BLUNTED = 0.15  # share of lungs without effusion whose costophrenic angle is blunted all the same
OPACITY = (0.42, 0.17)  # of a consolidation: mean and deviation; 1 is white
CONFOUNDED = 0.35  # share of images with each of: atelectasis, breast shadow, perihilar haze
NOISE = 0.010  # fraction of the full range

#: What a caller may fix: (lowest, highest).
OVERRIDES = {
    "ctr": (0.3, 0.8),
    "effusion_right": (0.0, 0.8),
    "effusion_left": (0.0, 0.8),
    "opacity": (0.0, 1.0),
    "inspiration": (-2.5, 2.5),
    "exposure": (-2.5, 2.5),
    "portable": (0, 1),
}

AIR, ABDOMEN, HEART, SPINE, RIB, CLAVICLE = 0.46, 0.12, 0.05, 0.08, 0.095, 0.13


def sample(streams: Streams, findings: tuple[str, ...]) -> dict:
    """The generating parameters of one image with these findings, by name."""
    rng = streams("anatomy")
    portable = int(rng.random() < 0.3)
    mean, deviation = ENLARGED_CTR if "cardiomegaly" in findings else HEALTHY_CTR
    ctr = rng.normal(mean + PORTABLE_CTR * (portable - 0.3), deviation)
    parameters = {
        "ctr": min(max(ctr, 0.34), 0.74),
        "portable": portable,
        "inspiration": rng.normal(-0.6 * portable, 0.9),
        "exposure": min(max(rng.normal(), -2), 2),
        "opacity": 0.0,
    }
    for side in ("right", "left"):
        blunted = rng.random() < BLUNTED
        parameters[f"effusion_{side}"] = rng.uniform(0.01, 0.06) if blunted else 0.0
    if "effusion" in findings:
        rng = streams("effusion")
        sides = (("right",), ("left",), ("right", "left"))[rng.choice(3, p=(0.35, 0.3, 0.35))]
        for side in sides:
            parameters[f"effusion_{side}"] = float(np.clip(rng.normal(*EFFUSION), *EFFUSION_RANGE))
    if "pneumonia" in findings:
        parameters["opacity"] = float(np.clip(streams("pneumonia").normal(*OPACITY), 0.08, 0.9))
    return parameters


def render(parameters: dict, streams: Streams, side: int) -> tuple[np.ndarray, dict]:
    """One image float32 [3, side, side] in [0, 1] (three equal channels) and its ground truth."""
    p, rng = parameters, streams("body")
    body = _body(p, rng)
    x, y = grid(side)
    turn = rng.normal(0, 0.025)
    dx, dy, zoom = rng.normal(0, 0.04), rng.normal(0, 0.03), rng.normal(1.0, 0.05)
    u = ((x - dx) + turn * y) / zoom
    v = ((y - dy) - turn * x) / zoom
    warp = streams("warp")
    u = u + 0.012 * texture(warp, side, 3)
    v = v + 0.012 * texture(warp, side, 3)
    lung = _cavity(u, v, body)
    heart = ellipse(u, v, body.heart_x, body.heart_y, body.heart_a, body.heart_b, body.heart_turn)
    central = cover(_union(heart, _mediastinum(u, v, body, rng), 0.08), 0.055)
    fluid = [_fluid(u, v, body, p["effusion_right"], -1), _fluid(u, v, body, p["effusion_left"], 1)]
    fluid = (fluid[0] + fluid[1]) * cover(lung, 0.04)
    patch = _consolidation(u, v, body, streams("consolidation"), side) * cover(lung, 0.06)
    depth = 0.72 + 0.28 * np.sqrt(np.clip(-lung / 0.3, 0, 1))
    air = AIR * cover(lung, 0.05) * depth * (1 - central * 0.93) * (1 - 0.94 * fluid)
    shadow = _soft_tissue(u, v, body, rng)
    inside = np.clip(shadow * 4, 0, 1)
    flank = np.clip((np.abs(u) - body.wall) * 8, 0, 1)  # no edge where the abdominal wall begins
    below = cover(_diaphragm(u, body) - v, 0.05 + 0.4 * flank) * inside
    bones = _bones(u, v, body, rng, inside * (1 - 0.6 * np.maximum(np.maximum(central, below), fluid)))
    shadow = shadow + HEART * cover(heart, 0.08) + 0.08 * fluid * (1 - central)
    shadow = shadow + below * ABDOMEN * (1 - _stomach(u, v, body, streams("stomach"), side))
    vessels = (
        _vessels(u, v, body, streams("vessels")) * cover(lung, 0.05) * (1 - fluid) * (1 - 0.85 * central)
    )
    haze = _confounders(u, v, body, streams("confounders"), side) * cover(lung, 0.05)
    # What fills the alveoli takes the place of air: no opacity is denser than that.
    air = air * (1 - np.clip(p["opacity"] * patch + haze, 0, 0.97)) - vessels * 0.10
    shadow = shadow - air + bones + _outside(u, v, body, streams("breast"))
    thorax = ((lung < 0) & (heart > 0) & (np.abs(u - body.shift) > body.waist)).astype(np.float32)
    truth = {
        "ctr": np.float32(p["ctr"]),
        "effusion_right": np.float32(p["effusion_right"]),
        "effusion_left": np.float32(p["effusion_left"]),
        "opacity": np.float32(p["opacity"]),
        "thorax_width": np.float32(body.width * zoom),
        "heart": reduce_mask((heart < 0).astype(np.float32)),
        "lungs": reduce_mask(thorax),
        "effusion": reduce_mask(np.where(fluid > 0.5, np.float32(1), np.float32(0))),
        "consolidation": reduce_mask(patch * 1.4) & (p["opacity"] > 0),
    }
    devices = _devices(x, y, u, v, body, streams("devices"), p["portable"])
    return _develop(shadow, devices, x, y, p, streams, side), truth


def _body(p, rng):
    """Lengths of this patient's thorax; heart axes such that its width is exactly ctr of it."""
    b = SimpleNamespace()
    b.wall = rng.normal(0.75, 0.035)  # half of the inner thoracic width
    b.width = b.wall  # full width in image sides
    b.top = rng.normal(-0.75, 0.04) + 0.06 * p["portable"]
    b.dome = 0.36 + 0.07 * p["inspiration"], 0.40 + 0.07 * p["inspiration"] + rng.normal(0, 0.025)
    b.base = max(b.dome) + 0.20
    b.height = b.base - b.top
    b.shift = rng.normal(0, 0.02)  # rotation of the patient moves the mediastinum
    large = p["ctr"] - HEALTHY_CTR[0]  # a large heart lies flatter
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


def _union(one, other, smooth):
    """Signed distance to two shapes melted into each other over the length `smooth`."""
    blend = np.clip(smooth - np.abs(one - other), 0, None)
    return np.minimum(one, other) - blend * blend * (0.25 / smooth)


def _wall(v, b):
    """Inner half width of the rib cage at each height."""
    t = np.clip((v - b.top + 0.03) / (b.height + 0.03), 0, 1)
    return b.wall * np.sqrt(1 - (1 - t) ** 2.5)


def _cavity(u, v, b):
    """Signed distance to both pleural cavities, the mediastinum included."""
    far = np.abs(u)
    apex = b.top + 1.1 * (far - 0.31) ** 2 - v
    return np.maximum(np.maximum((far - _wall(v, b)) * 0.8, apex), v - _diaphragm(u, b))


def _diaphragm(u, b):
    """Height of the diaphragm: two domes, the right one (left in the image) usually higher."""
    dome = b.dome[0] + (b.dome[1] - b.dome[0]) * np.clip(u * 4 + 0.5, 0, 1)
    out = np.abs(u) - 0.32
    bend = np.where(out > 0, np.float32(0.20 / (b.wall - 0.32) ** 2), np.float32(0.5))
    return np.minimum(dome + bend * out**2, b.base + 0.02)


def _mediastinum(u, v, b, rng):
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


def _fluid(u, v, b, height, sign):
    """Opacity of an effusion whose level at the side wall is `height` of the lung's height."""
    level = b.base - height * b.height
    reach = np.clip(np.abs(u) / b.wall, 0, 1)
    meniscus = level + (0.07 + 0.18 * height) * (1 - reach**3)
    return cover(meniscus - v, 0.05) * (u * sign > 0) * min(height / 0.03, 1)


def _consolidation(u, v, b, rng, side):
    """Fluffy opacity in [0, 1]: one or two foci, mostly in the lower half of one lung."""
    sign, patch = rng.choice([-1, 1]), np.zeros_like(u)
    fluff = texture(rng, side, 7, 3, 0.7)
    for k in range(1 + int(rng.random() < 0.35)):
        cx = sign * b.wall * rng.uniform(0.42, 0.75)
        cy = b.top + b.height * rng.uniform(0.3, 0.78)
        size = rng.uniform(0.15, 0.27) * (1 - 0.3 * k)
        shape = ellipse(u, v, cx, cy, size, size * rng.uniform(0.75, 1.2), rng.uniform(0, 3))
        patch = np.maximum(patch, cover(shape + 0.32 * size * fluff, 0.16))
        sign = sign if rng.random() < 0.6 else -sign
    return patch * np.clip(0.85 + 0.18 * fluff, 0.3, 1)


def _confounders(u, v, b, rng, side):
    """Bands of atelectasis and perihilar haze: in every class alike."""
    haze = np.zeros_like(u)
    band, hazy, sign = rng.random() < CONFOUNDED, rng.random() < CONFOUNDED, rng.choice([-1, 1])
    cy, length, tilt = rng.uniform(0.02, 0.14), rng.uniform(0.12, 0.22), rng.normal(0, 0.25)
    strength = rng.uniform(0.12, 0.4, 2)
    if band:
        at = sign * 0.42, b.dome[int(sign > 0)] - cy
        haze = haze + strength[0] * cover(ellipse(u, v, *at, length, 0.025, tilt), 0.03)
    if hazy:
        fluff = texture(rng, side, 7, 3, 0.7)
        near = np.hypot(np.abs(u - b.shift) - 0.3, v - b.hilum - 0.12) / 0.38
        haze = haze + strength[1] * np.clip(1 - near, 0, 1) * np.clip(0.8 + 0.35 * fluff, 0, 1.6)
    return haze


def _soft_tissue(u, v, b, rng):
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


def _stomach(u, v, b, rng, side):
    """Gas under the left dome, of any size or none; loops of bowel below."""
    gas = rng.random() < 0.6
    size, depth, dim = rng.uniform(0.07, 0.15), rng.uniform(0.06, 0.12), rng.uniform(0.5, 1.6)
    bubble = ellipse(u, v, 0.38, b.dome[1] + depth + size * 0.6, size * 1.5, size * 0.8)
    return gas * dim * cover(bubble, 0.06) + 0.12 * texture(rng, side, 6, 2)


def _bones(u, v, b, rng, seen):
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


def _vessels(u, v, b, rng):
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


def _outside(u, v, b, rng):
    """Breasts: a shadow over the lower lungs that ends in a curve."""
    if rng.random() >= CONFOUNDED + 0.1:
        return 0.0
    far, size, dense = np.abs(u), rng.uniform(0.24, 0.36), rng.uniform(0.04, 0.12)
    low = b.base - rng.uniform(0.0, 0.16)
    shape = ellipse(far, v, b.wall * 0.72, low - size, size * 1.15, size)
    return dense * cover(shape, 0.03) * np.clip((v - low + 1.5 * size) / size, 0, 1)


def _devices(x, y, u, v, b, rng, portable):
    """Side marker; leads and their electrodes at the bedside. Opacity [H, W]."""
    metal = np.zeros_like(u)
    if rng.random() < 0.7:
        mx, my = rng.uniform(0.78, 0.92), rng.uniform(-0.92, -0.7)
        stroke(metal, x, y, (mx, my), (mx, my + 0.09), 0.012, 0.012)
        stroke(metal, x, y, (mx, my + 0.09), (mx + 0.05, my + 0.09), 0.012, 0.012)
    if portable and rng.random() < 0.7:
        for _ in range(int(rng.integers(1, 4))):
            at = rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.3)
            wire = np.zeros_like(u)
            knee = at[0] + rng.normal(0, 0.2), at[1] + rng.uniform(0.15, 0.4)
            end = knee[0] + rng.normal(0, 0.3), knee[1] + rng.uniform(0.2, 0.5)
            stroke(wire, u, v, at, knee, 0.003, 0.003)
            stroke(wire, u, v, knee, end, 0.003, 0.003)
            metal = np.maximum(metal, 0.35 * wire)
            stroke(metal, u, v, at, (at[0], at[1] + 0.01), 0.024, 0.024)
    return metal


def _develop(shadow, devices, x, y, p, streams, side):
    """Scatter, film curve, collimation and noise."""
    rng = streams("film")
    shadow = np.maximum(shadow, 0) + 0.5 * devices
    low = rng.uniform(0.0, 0.05)
    high = rng.uniform(0.86, 1.0) - 0.03 * p["exposure"]
    image = np.clip((expose(shadow, rng.uniform(0.004, 0.011)) - low) / (high - low), 0, 1)
    image = image ** float(np.exp(-0.16 * p["exposure"] + 0.05))
    lift = 0.06 * (p["portable"] + rng.random())  # scatter flattens the contrast
    image = image * (1 - lift) + lift * 0.5 * (image > 0.03)
    if rng.random() < 0.25:  # collimated, or scanned with a border
        left, right, top = rng.uniform(0.0, 0.16, 3)
        edge = np.maximum(np.maximum(-1 + left - x, x - 1 + right), -1 + top - y)
        image = image * expose(cover(edge, 0.02), 0.0)
    image = image + NOISE * streams("noise").standard_normal(image.shape, dtype=np.float32)
    return np.repeat(np.clip(image, 0, 1)[None].astype(np.float32), 3, 0)
