"""Seconds from a slider's movement to its picture: python -m benchmarks.slider [--moves 20] [--steps 16]

Prints the median and the range over the movements, at the base's own side. Embeddings are random vectors:
what they draw does not change how long it takes.
"""

import argparse
import time

import torch

from benchmarks.tables import row, save
from lib.base import load_base
from lib.embedding import Embedding
from lib.widgets import Interpolate


def measure(base, moves: int, steps: int) -> list[float]:
    """Seconds of each of `moves` movements between the two ends, 64 vectors a class."""
    generator = torch.Generator().manual_seed(0)
    library = {
        ("chest", label): Embedding(torch.randn(64, base.token_width, generator=generator), f"<{label}>")
        for label in ("healthy", "cardiomegaly")
    }
    demo = Interpolate(base, library, steps=steps)
    demo.wait()
    seconds = []
    for move in range(moves):
        started = time.perf_counter()
        demo.weight.value = (move % 18 + 1) / 20
        demo.wait()
        seconds.append(time.perf_counter() - started)
        assert "mdb-ready" in demo.state.value, demo.state.value
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="models/mini")
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--steps", type=int, default=16, help="solver steps, as in params/mini.yaml")
    asked = parser.parse_args()
    base = load_base(asked.base, "cpu")
    seconds = measure(base, asked.moves, asked.steps)
    save("slider", [row(f"slider to picture, {base.image_side} px, {asked.steps} steps", seconds, "s")])


if __name__ == "__main__":
    main()
