"""Frontal chest X-ray: grey, the patient's right on the left of the image.

Attenuation adds up along the ray, as in a radiograph: soft tissue, less air, plus bone, fluid and
devices; a film curve turns it into brightness. Lengths are in image units, in the patient's frame
(u to the image's right, v downwards), which the exposure turns, shifts and zooms a little.
"""

import numpy as np

from lib import chest_anatomy as anatomy
from lib.phantom_canvas import Streams, cover, ellipse, expose, grid, reduce_mask, stroke, texture

LABELS = ("healthy", "cardiomegaly", "effusion", "pneumonia")

# --- Difficulty: what decides how well the classes can be told apart. ---
HEALTHY_CTR = (anatomy.USUAL_CTR, 0.04)  # cardiothoracic ratio: mean and deviation
ENLARGED_CTR = (0.56, 0.05)
PORTABLE_CTR = 0.02  # magnification at the bedside adds to either
EFFUSION = (0.22, 0.11)  # height as a fraction of the lung's: mean and deviation
EFFUSION_RANGE = (0.04, 0.6)
BLUNTED = 0.15  # share of lungs without effusion whose costophrenic angle is blunted all the same
OPACITY = (0.42, 0.17)  # of a consolidation: mean and deviation; 1 is white
CONFOUNDED = 0.35  # share of images with each of: atelectasis, perihilar haze
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

AIR, ABDOMEN, HEART = 0.46, 0.12, 0.05


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
    body = anatomy.body(p, rng)
    x, y = grid(side)
    turn = rng.normal(0, 0.025)
    dx, dy, zoom = rng.normal(0, 0.04), rng.normal(0, 0.03), rng.normal(1.0, 0.05)
    u = ((x - dx) + turn * y) / zoom
    v = ((y - dy) - turn * x) / zoom
    warp = streams("warp")
    u = u + 0.012 * texture(warp, side, 3)
    v = v + 0.012 * texture(warp, side, 3)
    lung = anatomy.cavity(u, v, body)
    heart = ellipse(u, v, body.heart_x, body.heart_y, body.heart_a, body.heart_b, body.heart_turn)
    central = cover(anatomy.union(heart, anatomy.mediastinum(u, v, body, rng), 0.08), 0.055)
    fluid = [_fluid(u, v, body, p["effusion_right"], -1), _fluid(u, v, body, p["effusion_left"], 1)]
    fluid = (fluid[0] + fluid[1]) * cover(lung, 0.04)
    patch = _consolidation(u, v, body, streams("consolidation"), side) * cover(lung, 0.06)
    depth = 0.72 + 0.28 * np.sqrt(np.clip(-lung / 0.3, 0, 1))
    air = AIR * cover(lung, 0.05) * depth * (1 - central * 0.93) * (1 - 0.94 * fluid)
    shadow = anatomy.soft_tissue(u, v, body, rng)
    inside = np.clip(shadow * 4, 0, 1)
    flank = np.clip((np.abs(u) - body.wall) * 8, 0, 1)  # no edge where the abdominal wall begins
    below = cover(anatomy.diaphragm(u, body) - v, 0.05 + 0.4 * flank) * inside
    bones = anatomy.bones(u, v, body, rng, inside * (1 - 0.6 * np.maximum(np.maximum(central, below), fluid)))
    shadow = shadow + HEART * cover(heart, 0.08) + 0.08 * fluid * (1 - central)
    shadow = shadow + below * ABDOMEN * (1 - anatomy.stomach(u, v, body, streams("stomach"), side))
    vessels = anatomy.vessels(u, v, body, streams("vessels")) * cover(lung, 0.05)
    vessels = vessels * (1 - fluid) * (1 - 0.85 * central)
    haze = _confounders(u, v, body, streams("confounders"), side) * cover(lung, 0.05)
    # What fills the alveoli takes the place of air: no opacity is denser than that.
    air = air * (1 - np.clip(p["opacity"] * patch + haze, 0, 0.97)) - vessels * 0.10
    shadow = shadow - air + bones + anatomy.breasts(u, v, body, streams("breast"))
    thorax = ((lung < 0) & (heart > 0) & (np.abs(u - body.shift) > body.waist)).astype(np.float32)
    seen = central < 0.5  # behind the heart fluid and consolidation do not show
    truth = {
        "ctr": np.float32(p["ctr"]),
        "effusion_right": np.float32(p["effusion_right"]),
        "effusion_left": np.float32(p["effusion_left"]),
        "opacity": np.float32(p["opacity"]),
        "thorax_width": np.float32(body.width * zoom),
        "heart": reduce_mask((heart < 0).astype(np.float32)),
        "lungs": reduce_mask(thorax),
        "effusion": reduce_mask(((fluid > 0.5) & seen).astype(np.float32)),
        "consolidation": reduce_mask(patch * 1.4 * seen) & (p["opacity"] > 0),
    }
    devices = _devices(x, y, u, v, body, streams("devices"), p["portable"])
    return _develop(shadow, devices, x, y, p, streams, side), truth


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
