"""Which layers and which noise of the base see best what is wrong with pictures: why lib/features.py is so.

    python -m benchmarks.extractors [--images 100] [--base models/mini] [--output FILE.csv]

For each candidate and modality, KID between real phantoms and degraded ones, in standard deviations of KID
between two real samples. Printed are the medians over modalities, the share of the degradations whose
weak, then strong form is ranked above real (`ranked`), and the least of all (`least`), by which it is sorted.
"""

import argparse

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from lib.base import load_base
from lib.features import BaseFeatures, extract
from lib.metrics import kid
from lib.phantoms import draw

CLASSES = {
    "prostate": ("tumour", "normal"),
    "chest": ("effusion", "healthy"),
    "histology": ("tumour", "normal"),
}
LAYERS = {
    "first": ("down_blocks.0",),
    "middle": ("mid_block",),
    "last": ("up_blocks.-1",),
    "middle, last": ("up_blocks.-1", "mid_block"),
    "all up": ("mid_block", "up_blocks.0", "up_blocks.1", "up_blocks.2"),
}
LEVELS = (0.02, 0.1, 0.25)
SPLITS = 30  # of the real pictures, for the spread of KID between two real samples


def degraded(modality, n):
    """Pictures by name: `fit`, `real` (2 n) and, weak and strong, each degradation."""
    label, other = CLASSES[modality]
    real = draw(modality, label, 3 * n, seed=900)[0]
    wrong = draw(modality, other, n, seed=901)[0]
    second, rng = draw(modality, label, n, seed=902)[0], np.random.default_rng(0)
    blurred = [np.stack([gaussian_filter(x, (0, s, s)) for x in second]) for s in (0.4, 0.8)]
    noisy = [np.clip(second + s * rng.standard_normal(second.shape), 0, 1) for s in (0.03, 0.08)]
    return {
        "fit": real[:n],
        "real": real[n:],
        "blur": blurred,
        "noise": noisy,
        "repetition": [second[rng.integers(0, max(n // m, 2), n)] for m in (3, 10)],
        "class swap": [np.concatenate([second[: n // 2], wrong[n // 2 :]]), wrong],
    }


def scores(base, sets, layers, level, n):
    """KID of each degradation, weak and strong, in deviations of that between two real samples."""
    extractor = BaseFeatures(base, sets["fit"], layers, level)
    real, rng = extract(extractor, sets["real"]), np.random.default_rng(0)
    orders = [rng.permutation(2 * n) for _ in range(SPLITS)]
    floor = [kid(real[order[:n]], real[order[n:]]) for order in orders]
    found = {}
    for name, (weak, strong) in list(sets.items())[2:]:
        values = [kid(real[:n], extract(extractor, images)) for images in (weak, strong)]
        found |= {
            f"{name} {i}": (v - np.mean(floor)) / np.std(floor) for i, v in zip((1, 2), values, strict=True)
        }
        found[f"ranked {name}"] = float(np.mean(floor) < values[0] < values[1])
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="models/mini")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--output")
    given = parser.parse_args()
    base, rows = load_base(given.base), []
    for modality in CLASSES:
        sets = degraded(modality, given.images)
        for name, layers in LAYERS.items():
            for level in LEVELS:
                found = scores(base, sets, layers, level, given.images)
                rows.append({"modality": modality, "layers": name, "level": level, **found})
                print(modality, name, level, flush=True)
    table = pd.DataFrame(rows)
    strengths = [c for c in table if c.endswith((" 1", " 2"))]
    groups = table.groupby(["layers", "level"])
    summary = groups[strengths].median()
    summary["ranked"] = groups[[c for c in table if c.startswith("ranked")]].mean().mean(axis=1)
    summary["least"] = summary[strengths].min(axis=1)
    print(summary.sort_values("least").round(2).to_string())
    if given.output:
        table.to_csv(given.output, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
