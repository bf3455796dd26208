"""A disease painted into a healthy image: where, what it did there, and that it did nothing elsewhere."""

import numpy as np
import pandas as pd
from scipy.ndimage import binary_erosion, gaussian_filter

from lib.artefacts import inpainted
from lib.concepts import Concepts, emphasised
from lib.descriptors import haematoxylin, mask_contrast
from lib.measures import wilson
from lib.metrics import mean_interval

#: modality -> (truth that a mask lies in, sign of a lesion in each channel); others: anywhere, all bright
PLACES = {"prostate": ("gland", (-1.0, -1.0, 1.0)), "chest": ("lungs", (1.0, 1.0, 1.0))}
SHAPES = ("disc", "free-form")
SPECIFICITY = 0.95  # share of untouched healthy places whose contrast counts as no lesion


def mask_of(shape: str, side: int, radius: float, centre, rng) -> np.ndarray:
    """bool [side, side]: a disc of `radius` (share of the side), or a blob about as large with a wavy rim."""
    y, x = np.mgrid[:side, :side]
    y, x = y - centre[0], x - centre[1]
    rim = 1.0
    if shape == "free-form":
        waves = np.arange(2, 6)  # around the rim; a single one would only move the blob
        angles = waves[:, None, None] * np.arctan2(y, x)
        cosines, sines = rng.normal(0, 0.4 / waves, (2, len(waves)))
        rim = 1 + np.tensordot(cosines, np.cos(angles), 1) + np.tensordot(sines, np.sin(angles), 1)
    return np.hypot(y, x) <= radius * side * np.clip(rim, 0.3, 1.8)


def masks_for(modality: str, images, shape: str, radius: float, seed: int) -> np.ndarray:
    """bool [n, side, side]: one mask an image (ImageSet), centred in the organ where the truth shows it."""
    side, organ = images.images.shape[-1], PLACES.get(modality, (None,))[0]
    masks = []
    for i in range(len(images)):
        rng = np.random.default_rng([seed, i])
        centre = _centre(images.truth.get(organ), i, side, radius, rng)
        masks.append(mask_of(shape, side, radius, centre, rng))
    return np.stack(masks)


def _centre(organ, i, side, radius, rng):
    """A random point as deep in the organ as the mask is wide, if it is so wide; else of the middle half."""
    if organ is not None:
        for depth in (radius, radius / 2, 0):
            iterations = round(depth * side)
            inner = binary_erosion(organ[i], iterations=iterations) if iterations else organ[i]
            if inner.any():
                return rng.choice(np.argwhere(inner))
    return rng.uniform(0.3, 0.7, 2) * side


def contrast(modality: str, images, masks) -> np.ndarray:
    """Contrast [n] of what is inside each mask to a ring around it, positive as a lesion of this modality is.

    Prostate: darker on T2W and ADC, brighter on DWI; histology: more nuclear stain; others: brighter.
    """
    if modality == "histology":
        return mask_contrast(haematoxylin(images)[:, None], masks, signs=(1.0,))
    return mask_contrast(images, masks, PLACES.get(modality, (None, (1.0, 1.0, 1.0)))[1])


def untouched(image, painted, mask, blur: float) -> bool:
    """Whether every pixel that the blurred mask does not reach is exactly the original's."""
    outside = (gaussian_filter(mask.astype(np.float32), blur) <= 0.01) & ~mask
    return np.array_equal(np.asarray(painted)[:, outside], np.asarray(image)[:, outside])


def paint(
    base, concepts: Concepts, label, images, masks, blur, emphasis: float, **drawing
) -> dict[tuple[str, float], np.ndarray]:
    """(condition, emphasis) -> [n, 3, H, W]: each image of an ImageSet with its mask drawn anew.

    `diseased` under the embedding of `label`; `healthy`, its control, in the same place from the same noise:
    alone (1), and with `emphasis` times what tells the one from the other.
    """
    diseased, healthy = concepts.embeddings[label], concepts.embeddings[concepts.healthy]
    return {
        (condition, times): inpainted(
            base, emphasised(other, [wanted], times), images.images, masks, blur=blur, **drawing
        )
        for times in (1.0, emphasis)
        for condition, wanted, other in (("diseased", diseased, healthy), ("healthy", healthy, diseased))
    }


def contrast_rows(concepts, label, shape, images, masks, painted, blur) -> pd.DataFrame:
    """One row a condition, emphasis and image: contrast and intensity in the mask, whether the rest is equal.

    painted: of `paint`; the original has emphasis 1.
    """
    rows = []
    for (condition, times), pictures in {("original", 1.0): images.images, **painted}.items():
        values = contrast(concepts.modality, pictures, masks)
        for i, (image, picture, mask) in enumerate(zip(images.images, pictures, masks, strict=True)):
            row = {"dataset": concepts.name, "class": label, "shape": shape, "condition": condition}
            row |= {
                "emphasis": times,
                "image": i,
                "contrast": values[i],
                "unit": "density of stain" if concepts.modality == "histology" else "share of white",
                "equal_outside": untouched(image, picture, mask, blur),
            }
            rows.append(
                row | {f"inside_{c}": v for c, v in zip("RGB", picture[:, mask].mean(1), strict=True)}
            )
    return pd.DataFrame(rows)


def summarise(table: pd.DataFrame, limits: dict[tuple[str, str], float]) -> pd.DataFrame:
    """One row a data set, shape, condition and emphasis: mean contrast, and how often there is a lesion.

    limits: (data set, shape) -> the contrast that SPECIFICITY of healthy images stay below in such masks,
    from images of another split. gain: contrast less that of the healthy embedding, equally emphasised,
    in the same place, with its interval.
    """
    rows, names = [], ["dataset", "class", "shape", "condition", "emphasis"]
    for keys, part in table.groupby(names, sort=False):
        row = dict(zip(names, keys, strict=True)) | {"n": len(part)}
        low, high = mean_interval(part.contrast.to_numpy())
        row |= {"contrast": part.contrast.mean(), "contrast_low": low, "contrast_high": high}
        limit = limits[row["dataset"], row["shape"]]
        hits = int((part.contrast > limit).sum())
        low, high = wilson(hits, len(part))
        row |= {"limit": limit, "lesion": hits / len(part), "lesion_low": low, "lesion_high": high}
        like = names[:3] + ["emphasis"]
        same = table[(table[like] == [row[name] for name in like]).all(axis=1)]
        control = same[same.condition == "healthy"].set_index("image").contrast
        gain = (part.set_index("image").contrast - control).to_numpy()
        low, high = mean_interval(gain)
        rows.append(row | {"gain": gain.mean(), "gain_low": low, "gain_high": high})
    return pd.DataFrame(rows)
