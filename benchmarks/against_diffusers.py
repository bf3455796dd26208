"""Our training against diffusers' example script, in turn, on the same weights, images, batch and steps.

    python -m benchmarks.against_diffusers --script path/to/textual_inversion.py [--pairs 3] [--steps 200]

The script is examples/textual_inversion/textual_inversion.py of the diffusers repository; it needs accelerate
and, of torchvision, RandomHorizontalFlip alone, which is supplied here, and said, where there is none.
A B A B: each run is a process of its own. Images are 1024-pixel PNGs, as a user has them. Prints steps per
second after the first five, steps per second of the whole (reading and encoding of images included, loading
of weights not), peak memory, the ratio of each pair, and the loss on held-out images under fixed noise of
what both have learned. Each trains at its own rate: the script at the paper's constant 5e-3, ours at its
default.
"""

import argparse
import importlib.util
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.tables import peak_memory, row, save
from lib.base import load_base
from lib.datasets import load_images
from lib.denoising import validation_loss
from lib.embedding import Embedding
from lib.inversion import InversionSettings, train
from lib.phantoms import draw

PIXELS = 1024
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
SKIPPED = 5  # first steps, in which memory is laid out


def write_images(folder: Path, n: int) -> None:
    """n chest phantoms as 1024-pixel PNGs."""
    folder.mkdir(parents=True)
    for i, image in enumerate(draw("chest", "pneumonia", n, seed=0)[0]):
        pixels = Image.fromarray(np.uint8(np.rint(255 * image.transpose(1, 2, 0))))
        pixels.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC).save(folder / f"{i:03d}.png")


def supply_torchvision() -> None:
    """`torchvision.transforms.RandomHorizontalFlip`, on PIL images, where torchvision is not installed."""
    if importlib.util.find_spec("torchvision"):
        return

    class RandomHorizontalFlip:
        def __init__(self, p):
            self.p = p

        def __call__(self, image):
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < self.p else image

    module, transforms = types.ModuleType("torchvision"), types.ModuleType("torchvision.transforms")
    transforms.RandomHorizontalFlip, module.transforms = RandomHorizontalFlip, transforms
    sys.modules |= {"torchvision": module, "torchvision.transforms": transforms}


def theirs(asked, folder: Path) -> tuple[list[float], Embedding]:
    """Moments of the start and of each step, and what was learned."""
    import accelerate
    from torch.utils.data import DataLoader

    supply_torchvision()
    moments, backward, iterate = [], accelerate.Accelerator.backward, DataLoader.__iter__

    def begun(self):
        if not moments:
            moments.append(time.perf_counter())
        return iterate(self)

    def timed(self, *arguments, **named):
        backward(self, *arguments, **named)
        moments.append(time.perf_counter())

    DataLoader.__iter__, accelerate.Accelerator.backward = begun, timed
    options = {
        "pretrained_model_name_or_path": asked.base, "train_data_dir": folder / "images",
        "placeholder_token": "<x>", "initializer_token": "grey", "num_vectors": asked.vectors,
        "resolution": asked.side, "train_batch_size": asked.batch_size, "max_train_steps": asked.steps,
        "learning_rate": 5e-3, "lr_warmup_steps": 0, "save_steps": 10**9, "checkpointing_steps": 10**9,
        "output_dir": folder / "out", "seed": 0,
        "mixed_precision": "no" if asked.precision == "fp32" else asked.precision,
    }  # fmt: skip
    sys.argv = [asked.script, *(word for k, v in options.items() for word in (f"--{k}", str(v)))]
    accelerate.Accelerator.init_trackers = lambda *_, **__: None  # no tensorboard is measured
    accelerate.Accelerator.log = lambda *_, **__: None
    runpy.run_path(asked.script, run_name="__main__")
    return moments, Embedding.load(folder / "out" / "learned_embeds.safetensors", "<x>")


def ours(asked, folder: Path) -> tuple[list[float], Embedding]:
    """The same of `lib.inversion.train`."""
    base = load_base(asked.base, asked.device, PRECISIONS[asked.ours_precision or asked.precision])
    moments = [time.perf_counter()]  # the script reads its images in its loop
    images = load_images(str(folder / "images"), None, None, base.image_side)
    settings = InversionSettings(
        "<x>", vectors=asked.vectors, steps=asked.steps, batch_size=asked.batch_size, record_every=1
    )
    for record in train(base, images, settings):
        moments.append(time.perf_counter())
        vectors = record.vectors
    return moments, Embedding(vectors, "<x>")


def measured(asked, which: str, folder: Path) -> dict:
    """One run in this process: written to folder/<which>.json."""
    moments, embedding = (theirs if which == "script" else ours)(asked, folder)
    memory = peak_memory(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # before a base comes
    base = load_base(asked.base, asked.device)
    held = load_images("phantom:chest/pneumonia", asked.held_out, "test", base.image_side)
    return {
        "steps_per_second": 1 / statistics.median(np.diff(moments)[SKIPPED:]),
        "overall": (len(moments) - 1) / (moments[-1] - moments[0]),
        "megabytes": memory,
        "loss": validation_loss(base, held, embedding),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--script", required=True, type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--base", default="models/mini", type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--device")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS)
    parser.add_argument("--ours-precision", choices=PRECISIONS, help="of ours, if not the script's")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--vectors", type=int, default=8)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--held-out", type=int, default=50, help="images that the loss is measured on")
    parser.add_argument("--one", choices=("script", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # which the script would take
    asked.side = load_base(asked.base, "cpu").image_side
    if asked.one:
        found = measured(asked, asked.one, asked.folder)
        (asked.folder / "found.json").write_text(json.dumps(found))
        return
    if not importlib.util.find_spec("torchvision"):
        print("torchvision is not installed: its RandomHorizontalFlip is supplied")
    print(f"{asked.vectors} vectors, batch {asked.batch_size}, {asked.steps} steps, {asked.images} images")
    found = {"script": [], "ours": []}
    for pair in range(asked.pairs):
        for which, runs in found.items():
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place) / "run"
                write_images(folder / "images", asked.images)
                command = [sys.executable, "-m", "benchmarks.against_diffusers", *sys.argv[1:]]
                command += ["--one", which, "--folder", str(folder)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr)
                runs.append(json.loads((folder / "found.json").read_text()))
            print(
                f"pair {pair + 1} {which:6}", {k: float(f"{v:.4g}") for k, v in runs[-1].items()}, flush=True
            )
        script, mine = (runs[-1] for runs in found.values())
        ratios = {k: float(f"{mine[k] / script[k]:.4g}") for k in ("steps_per_second", "overall")}
        print(f"pair {pair + 1} ours / the script", ratios, flush=True)
    rows, how = [], asked.precision
    if asked.ours_precision:
        how = f"script {how}, ours {asked.ours_precision}"
    how += f", {asked.steps} steps"
    whole = f"reading and encoding of {asked.images} images included"
    for name, text in (("steps_per_second", "once under way"), ("overall", whole)):
        ratios = [a[name] / b[name] for a, b in zip(found["ours"], found["script"], strict=True)]
        rows.append(row(f"{how}: ours / the script, {text}", ratios, "1"))
    for which, runs in found.items():
        for name, unit in (("steps_per_second", "steps/s"), ("megabytes", "MB"), ("loss", "held-out loss")):
            rows.append(row(f"{how}: {which}", [run[name] for run in runs], unit))
    save("against_diffusers", rows, prefix=f"{how}: ")


if __name__ == "__main__":
    main()
