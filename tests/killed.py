"""Work that is killed at random moments and taken up again: python tests/killed.py FOLDER KILLS

Trains, draws, paints and diagnoses, all of it through runs/. Each worker is forked from this process, which
has loaded the base and uses one thread, as forking needs. Prints one line of JSON: the digest of the files
of an uninterrupted run, seconds it took, and for each kill whether it hit and the digest after the second go.
"""

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch

from lib.artefacts import inpainted, sampled, trained
from lib.base import load_base
from lib.classify import Cases, diagnose
from lib.datasets import load_images
from lib.inversion import InversionSettings
from lib.resnet import ClassifierSettings

MADE = ("*.safetensors", "*.npy")  # and not what holds seconds


def work(base, images, healthy) -> None:
    settings = InversionSettings(
        "<x>", vectors=2, steps=6, batch_size=2, record_every=1, checkpoint_every=1, ema=0.9
    )
    embedding = trained(base, images, settings).embedding
    drawn = sampled(base, embedding, 2, steps=2)
    mask = np.zeros((1, base.image_side, base.image_side), bool)
    mask[:, 20:40, 20:40] = True
    inpainted(base, embedding, drawn[:1], mask, steps=2)
    cases = Cases.of(healthy, images)
    learner = ClassifierSettings(width=4, steps=6, batch_size=4, validate_every=2, seed=1)
    diagnose(cases, None, cases, cases, learner, (8, 0))


def forked(folder: Path, after: float | None, *given) -> bool:
    """Works in a child with runs/ in `folder`; kills it `after` seconds. Returns whether it was killed."""
    child = os.fork()
    if not child:
        os.environ["MDB_RUNS"] = str(folder)
        status = 1
        try:
            work(*given)
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)  # and not back into the parent's loop
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def made(folder: Path) -> str:
    """A digest of every file that the work leaves, and of its name."""
    found = sorted(path for pattern in MADE for path in folder.rglob(pattern))
    assert len(found) == 4, found
    return hashlib.sha256(b"".join(p.name.encode() + content(p) for p in found)).hexdigest()


def content(path: Path) -> bytes:
    """The file's arrays: an embedding's header says how long its training took."""
    if path.suffix == ".npy":
        return np.load(path).tobytes()
    from safetensors.numpy import load_file

    return b"".join(array.tobytes() for array in load_file(path).values())


def main() -> None:
    root, kills = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    base = load_base("models/mini", "cpu")
    images, healthy = (load_images("phantom:chest", 4, "train", label=c) for c in ("effusion", "healthy"))
    given = base, images, healthy
    seconds = []
    for name in ("first", "whole"):  # the shorter one: other work may have slowed the other
        started = time.perf_counter()
        forked(root / name, None, *given)
        seconds.append(time.perf_counter() - started)
    seconds = min(seconds)
    rng, rows = np.random.default_rng(0), []
    for kill in range(kills):
        folder = root / str(kill)
        hit = forked(folder, seconds * rng.uniform(0.02, 0.98), *given)
        forked(folder, None, *given)
        rows.append([hit, made(folder)])
    print(json.dumps({"whole": made(root / "whole"), "seconds": seconds, "kills": rows}))


if __name__ == "__main__":
    main()
