"""Which solver, guidance and steps show best what tells two classes apart: why 07 draws as it does.

    python -m benchmarks.drawing [--images 64] [--base models/mini]

For each way and phantom, healthy and diseased are drawn from noises that no notebook uses, with the
embeddings of 02 and 06 to 09. Saved in results/benchmark-drawing.csv is the share of the difference between
the training images of the two classes that the drawn ones show, as the same reader sees both, with its 95 %
interval over noises; and how far healthy pictures lie from healthy images, in such differences.
"""

import argparse

import numpy as np
import pandas as pd

from lib.base import load_base
from lib.concepts import concepts
from lib.config import ROOT
from lib.interpolation import class_levels
from lib.inversion import InversionSettings
from lib.sampling import generate

#: solver, steps, guidance
WAYS = (
    ("dpm++", 10, 2.0),
    ("dpm++", 10, 3.0),
    ("euler_a", 20, 2.0),
    ("euler_a", 20, 3.0),
    ("euler_a", 50, 3.0),
)
SEED = 5000  # of the first noise
#: The older recipe, for whose embeddings the way of drawing was chosen.
LEARNED = InversionSettings(steps=720, batch_size=4, learning_rate=1e-2).by("adam")


def shown(base, concept, n, sampler, steps, guidance):
    """(share of the classes' difference, low, high, bias of the healthy pictures in such differences)."""
    finding, quantity = concept.findings[0], concept.quantity
    real, of_disease = class_levels(concept, finding)
    way = {"guidance": guidance, "steps": steps, "sampler": sampler, "seed": SEED}
    healthy, diseased = (
        concept.measure(generate(base, concept.embeddings[label], n, **way).numpy())[quantity]
        for label in (concept.healthy, finding)
    )
    difference = of_disease - real
    rises = (diseased - healthy) / difference  # of the same noise
    reach = 1.96 * rises.std(ddof=1) / np.sqrt(n)
    return rises.mean(), rises.mean() - reach, rises.mean() + reach, (healthy.mean() - real) / difference


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="models/mini")
    parser.add_argument("--images", type=int, default=64)
    asked = parser.parse_args()
    base, rows = load_base(asked.base), []
    for concept in concepts(base, None, LEARNED, 100, 50, 0):
        for way in WAYS:
            row = {"dataset": concept.name, "quantity": concept.quantity, "n": asked.images}
            row |= dict(zip(("sampler", "steps", "guidance"), way, strict=True))
            found = shown(base, concept, asked.images, *way)
            rows.append(row | dict(zip(("share", "low", "high", "bias"), found, strict=True)))
            print(*rows[-1].values(), flush=True)
    pd.DataFrame(rows).to_csv(
        ROOT / "results" / "benchmark-drawing.csv", index=False, float_format="%.4g", lineterminator="\n"
    )


if __name__ == "__main__":
    main()
