"""Weights in bfloat16 against float32 on this machine: python -m benchmarks.precision [--pairs 5]

Trains and draws with both in turn, and sets beside each other what trainings end at: the loss of held-out
images under the float32 base, so that speed is not bought with quality.
"""

import argparse
import time

from benchmarks.sampling import PROMPT
from benchmarks.tables import row, save
from benchmarks.training import updates
from lib.base import load_base
from lib.datasets import load_images
from lib.denoising import validation_loss
from lib.inversion import invert
from lib.sampling import generate

SPEC = "phantom:chest/pneumonia"


def drawing(base, n: int, steps: int) -> float:
    """Seconds of drawing n pictures."""
    started = time.perf_counter()
    generate(base, PROMPT, n, steps=steps)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="models/mini")
    parser.add_argument("--device")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16, help="images an update")
    parser.add_argument("--images", type=int, default=8, help="drawn at once")
    parser.add_argument("--seeds", type=int, default=3, help="trainings whose losses are compared")
    parser.add_argument("--steps", type=int, default=200, help="updates of each of them")
    asked = parser.parse_args()
    single, half = (load_base(asked.base, asked.device, dtype) for dtype in ("float32", "bfloat16"))
    training, pictures = [], []
    for _ in range(asked.pairs + 1):
        a, b = (sum(updates(base, asked.batch_size, 5)) for base in (single, half))
        training.append(a / b)
        a, b = (drawing(base, asked.images, 10) for base in (single, half))
        pictures.append(a / b)
    rows = [
        row(f"update, batch {asked.batch_size}: float32 / bfloat16", training[1:], "1"),
        row(f"{asked.images} pictures at once: float32 / bfloat16", pictures[1:], "1"),
    ]
    train, test = (load_images(SPEC, 100, split, single.image_side) for split in ("train", "val"))
    for name, base in (("float32", single), ("bfloat16", half)):
        losses = []
        for seed in range(asked.seeds):
            settings = {"steps": asked.steps, "batch_size": asked.batch_size, "seed": seed}
            embedding = invert(base, train, "<pneumonia>", **settings)
            losses.append(validation_loss(single, test, embedding))
        rows.append(row(f"trained in {name}", losses, "held-out loss"))
    save("precision", rows)


if __name__ == "__main__":
    main()
