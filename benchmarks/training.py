"""What an update of the vectors costs, and where the time goes: python -m benchmarks.training

Step time by part, and beside it with torch's own products in place of those of lib/products.py; operations
by torch's counter, as a share of what the machine's best matrix product reaches; eight concepts at once
against one after the other; and how time and memory grow with the number of images. --base names another
model folder, --device and --dtype where and how it runs.
"""

import argparse
import time
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tables import row, save
from lib.base import load_base
from lib.denoising import denoising_loss
from lib.inversion import Job, train_many
from lib.products import OneDnnLinear, use_onednn
from lib.recipes import InversionSettings
from lib.training import Concept

PARTS = ("drawing latents", "text encoder", "U-Net forward", "backward", "optimizer")
NUMBERS = (10, 100, 1000, 10_000)  # of images


def clock(device) -> float:
    """Now, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def pictures(base, n: int) -> torch.Tensor:
    side = base.image_side
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def by_part(base, settings, repeats: int) -> list[list[float]]:
    """Seconds of each of PARTS, and of the whole, over `repeats` updates."""
    concept = Concept(base, pictures(base, 32), settings)
    found = []
    for _ in range(repeats + 2):
        moments = [clock(base.device)]
        draw = concept.draw()
        moments.append(clock(base.device))
        states = base.embed(draw.prompts, {settings.token: concept.vectors})
        moments.append(clock(base.device))
        states = states.index_select(0, draw.which)
        losses = denoising_loss(base, draw.latents, draw.noise, draw.times, states)
        moments.append(clock(base.device))
        concept.loss(losses, draw.times).backward()
        moments.append(clock(base.device))
        concept.update()
        moments.append(clock(base.device))
        found.append([b - a for a, b in zip(moments, moments[1:], strict=False)] + [moments[-1] - moments[0]])
    return [list(part) for part in zip(*found[2:], strict=True)]


@contextmanager
def torchs_products():
    """Linear layers as torch computes them."""
    worth, OneDnnLinear.worth = OneDnnLinear.worth, float("inf")
    try:
        yield
    finally:
        OneDnnLinear.worth = worth


def operations(base, settings) -> float:
    """Floating-point operations of one update, as the counter knows them: of torch's products."""
    with torchs_products(), FlopCounterMode(display=False) as counter:
        list(train_many(base, [Job(pictures(base, 4), settings)]))
    return counter.get_total_flops() / settings.steps


def matmul_peak(base, side: int = 2048, repeats: int = 5) -> tuple[float, float]:
    """Floating-point operations a second of a square matrix product at its best: torch's, and oneDNN's."""
    layer = torch.nn.Linear(side, side, False, base.device, base.dtype).requires_grad_(False)
    states = torch.randn(side, side, device=base.device, dtype=base.dtype)

    def fastest():
        seconds = []
        for _ in range(repeats):
            started = clock(base.device)
            layer(states)
            seconds.append(clock(base.device) - started)
        return 2 * side**3 / min(seconds)

    theirs = fastest()
    use_onednn(layer)
    return theirs, fastest()


def together(base, settings, concepts: int, repeats: int) -> list[float]:
    """Ratios of the time of `concepts` one after the other to that of all at once, in turn."""
    settings = {"init": "", "record_every": 100, **settings}
    jobs = [Job(pictures(base, 8), InversionSettings(f"<{i}>", **settings)) for i in range(concepts)]
    ratios = []
    for _ in range(repeats):
        started = clock(base.device)
        for job in jobs:
            list(train_many(base, [job]))
        middle = clock(base.device)
        list(train_many(base, jobs))
        ratios.append((middle - started) / (clock(base.device) - middle))
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="models/mini")
    parser.add_argument("--device")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--repeats", type=int, default=15)
    asked = parser.parse_args()
    base = load_base(asked.base, asked.device, getattr(torch, asked.dtype))
    products = matmul_peak(base)
    rows, peak = [], max(products)
    for name, speed in zip(("torch's", "oneDNN's"), products, strict=True):
        rows.append(row(f"square matrix product, {name}", speed / 1e9, "GFLOP/s"))
    for size in (1, 4, 16):
        settings = InversionSettings("<x>", steps=2, batch_size=size, record_every=100, init="")
        *parts, whole = by_part(base, settings, asked.repeats)
        rows.append(row(f"update, batch {size}", [1000 * t for t in whole], "ms"))
        if base.device.type == "cpu":
            with torchs_products():
                *_, theirs = by_part(base, settings, asked.repeats)
            ratios = [a / b for a, b in zip(theirs, whole, strict=True)]
            rows.append(row(f"update, batch {size}: with torch's products / with oneDNN's", ratios, "1"))
        if size == 4:
            for name, seconds in zip(PARTS, parts, strict=True):
                rows.append(row(f"update, batch {size}: {name}", [1000 * t for t in seconds], "ms"))
        work = operations(base, settings)
        rows.append(
            row(f"update, batch {size}: share of that product's speed", [work / t / peak for t in whole], "1")
        )
    ratios = together(base, {"steps": 10, "batch_size": 1}, 8, max(2, asked.repeats // 4))
    rows.append(row("eight concepts at batch 1: one after the other / at once", ratios, "1"))
    for n in NUMBERS:
        images = pictures(base, n)
        started = clock(base.device)
        concept = Concept(base, images, InversionSettings("<x>", batch_size=4, init=""))
        rows.append(row(f"encoding, {n} images", 1000 * (clock(base.device) - started) / n, "ms an image"))
        kept = concept.mean.nbytes + concept.std.nbytes
        rows.append(row(f"held while training, {n} images", kept / n / 1000, "kB an image"))
        del concept
        settings = InversionSettings("<x>", steps=12, batch_size=4, record_every=1, init="")
        seconds = [found[0].seconds for found in train_many(base, [Job(images, settings)])]
        steps = [1000 * (b - a) for a, b in zip(seconds[2:], seconds[3:], strict=False)]
        rows.append(row(f"update, {n} images", steps, "ms"))
    save("training", rows)


if __name__ == "__main__":
    main()
