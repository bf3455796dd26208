"""What an update of the vectors costs, and where the time goes: python -m benchmarks.training

Time of an update, and beside it with torch's own products in place of those of lib/products.py; its parts,
each waited for; operations by torch's counter, as a share of what the machine's best matrix product reaches;
eight concepts at once against one after the other; how time grows with updates and with trainings; and how
time and memory grow with the number of images, in a process of its own each. Memory on a GPU is what is
reserved, which a card must have. --base names another model folder, --device and --dtype where and how it
runs.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tables import peak_memory, row, save
from lib.base import load_base
from lib.denoising import denoising_loss
from lib.inversion import Job, train_many
from lib.products import OneDnnLinear, use_onednn
from lib.recipes import InversionSettings
from lib.training import Concept

PARTS = ("drawing latents", "text encoder", "U-Net forward", "backward", "optimizer")
NUMBERS = (10, 100, 1000, 10_000)  # of images
UPDATES = (50, 100, 200, 400)  # of one training
TRAININGS = (1, 2, 4, 8)  # one after the other, of the first of UPDATES each
WARMUP = 5  # updates, in which memory is laid out and, on a GPU, a graph recorded


def clock(device) -> float:
    """Now, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def pictures(base, n: int) -> torch.Tensor:
    side = base.image_side
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def by_part(base, settings, repeats: int) -> list[list[float]]:
    """Seconds of each of PARTS over `repeats` updates, computed plainly: on a GPU `updates` are faster."""
    concept = Concept(base, pictures(base, 8), settings)
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
        found.append([b - a for a, b in zip(moments, moments[1:], strict=False)])
    return [list(part) for part in zip(*found[2:], strict=True)]


def updates(base, batch_size: int, repeats: int, images=None) -> list[float]:
    """Seconds of each of `repeats` updates, on eight images for None, after a few that lay out memory."""
    images = pictures(base, 8) if images is None else images
    settings = InversionSettings(
        "<x>", steps=repeats + WARMUP, batch_size=batch_size, record_every=1, init=""
    )
    seconds = [found[0].seconds for found in train_many(base, [Job(images, settings)])]
    return [b - a for a, b in zip(seconds[WARMUP - 1 :], seconds[WARMUP:], strict=False)]


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
    concept = Concept(base, pictures(base, 4), settings)
    with torchs_products(), FlopCounterMode(display=False) as counter:
        draw = concept.draw()
        states = base.embed(draw.prompts, {settings.token: concept.vectors}).index_select(0, draw.which)
        denoising_loss(base, draw.latents, draw.noise, draw.times, states).mean().backward()
    return counter.get_total_flops()


def matmul_peak(base, side: int, repeats: int = 5) -> tuple[float, float]:
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


def in_turn(base, trainings: int, steps: int) -> float:
    """Seconds of whole trainings, one after the other, of eight images each, encoding included."""
    started = clock(base.device)
    for i in range(trainings):
        settings = InversionSettings(f"<{i}>", steps=steps, batch_size=4, record_every=steps, init="")
        list(train_many(base, [Job(pictures(base, 8), settings)]))
    return clock(base.device) - started


def of_many(base, n: int, repeats: int) -> dict:
    """Of n images, which are there before: seconds of encoding and of updates, and what a training takes.

    A smaller training goes before, so that what is taken once a process is not taken for theirs.
    """
    updates(base, 4, 1, pictures(base, 100))
    images, before = pictures(base, n), peak_memory(base.device)
    started = clock(base.device)
    concept = Concept(base, images, InversionSettings("<x>", batch_size=4, init=""))
    encoding = clock(base.device) - started
    del concept
    seconds = updates(base, 4, repeats, images)
    return {"encoding": encoding, "updates": seconds, "megabytes": peak_memory(base.device) - before}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="models/mini")
    parser.add_argument("--device")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="images an update")
    parser.add_argument("--numbers", type=int, nargs="*", default=NUMBERS, help="of images")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    base = load_base(asked.base, asked.device, asked.dtype)
    if asked.one:
        print(json.dumps(of_many(base, asked.one, asked.repeats)))
        return
    on_gpu = base.device.type == "cuda"
    products = matmul_peak(base, 8192 if on_gpu else 2048)
    rows, peak = [], max(products)
    for name, speed in zip(("torch's", "oneDNN's"), products, strict=True):
        if name == "torch's" or base.device.type == "cpu":
            rows.append(row(f"square matrix product, {name}", speed / 1e9, "GFLOP/s"))
    for size in asked.batches:
        if on_gpu:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        ours = updates(base, size, asked.repeats)
        rows.append(row(f"update, batch {size}", [1000 * t for t in ours], "ms"))
        if on_gpu:
            rows.append(row(f"update, batch {size}: memory", peak_memory(base.device) / 1e3, "GB"))
        if base.device.type == "cpu":
            with torchs_products():
                theirs = updates(base, size, asked.repeats)
            ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
            rows.append(row(f"update, batch {size}: with torch's products / with oneDNN's", ratios, "1"))
        settings = InversionSettings("<x>", steps=2, batch_size=size, init="")
        if size == 4:
            for name, seconds in zip(PARTS, by_part(base, settings, asked.repeats), strict=True):
                rows.append(row(f"update, batch {size}: {name}", [1000 * t for t in seconds], "ms"))
        count = operations(base, settings)
        rows.append(row(f"update, batch {size}: operations", count / 1e9, "GFLOP"))
        shares = [count / peak / t for t in ours]
        rows.append(row(f"update, batch {size}: share of that product's speed", shares, "1"))
    steps = 10 * WARMUP if on_gpu else 10  # a graph is recorded once a training
    ratios = together(base, {"steps": steps, "batch_size": 1}, 8, max(2, asked.repeats // 4))
    rows.append(row("eight concepts at batch 1: one after the other / at once", ratios, "1"))
    for number in UPDATES:
        rows.append(row(f"one training, {number} updates", in_turn(base, 1, number), "s"))
    for number in TRAININGS:
        what = f"{number} trainings in turn, {UPDATES[0]} updates"
        rows.append(row(what, in_turn(base, number, UPDATES[0]), "s"))
    for n in asked.numbers:
        command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], "--one", str(n)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        rows.append(row(f"encoding, {n} images", 1000 * found["encoding"] / n, "ms an image"))
        rows.append(row(f"update, {n} images", [1000 * t for t in found["updates"]], "ms"))
        rows.append(row(f"memory beside the images, {n} of them", found["megabytes"], "MB"))
    save("training", rows)


if __name__ == "__main__":
    main()
