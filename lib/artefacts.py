"""What notebooks make once and read again: trained embeddings, generated images, fine-tuned floors.

Each is keyed by the digests of the base, the images and the settings, and by the code that makes it.
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lib.card import card
from lib.embedding import Embedding
from lib.inversion import Job, provenance, train_many
from lib.progress import progress
from lib.recipes import CheckpointError
from lib.runs import MARKER, Run, cached, code_digest
from lib.sampling import generate, inpaint
from lib.sweep import sweep
from lib.tasks import token_of


@dataclass(frozen=True)
class Trained:
    """An embedding with its training log (one row a record) and what it cost."""

    embedding: Embedding
    records: pd.DataFrame
    seconds: float
    path: str

    def summary(self) -> dict[str, float]:
        """Vectors, kilobytes of the file, updates, seconds of training, held-out loss where there is one."""
        losses = self.records.validation_loss.dropna()
        return {
            "vectors": self.embedding.vectors.shape[0],
            "kilobytes": Path(self.path).stat().st_size / 1000,
            "steps": int(self.records.step.iloc[-1]),
            "seconds": self.seconds,
            "held_out_loss": losses.iloc[-1] if len(losses) else float("nan"),
        }


#: What decides what a base sees in an image, a loss, an embedding, and a picture.
SEEING = ("lib.base", "lib.pipelines", "lib.embedding", "lib.products")
LOSSES = ("lib.denoising", *SEEING)
TRAINING = (
    *("lib.inversion", "lib.training", "lib.recipes", "lib.starts", "lib.scenes", "lib.world"),
    *("lib.graphs", *LOSSES),
)
AT_ONCE = 8 * 512**2  # pixels of an update
DRAWING = ("lib.sampling", "lib.predictor", "lib.graphs", *SEEING)


def trained(base, images, settings, validation=None, text=""):
    """Textual inversion of `images` (an ImageSet) under `settings`, trained unless it was before.

    A run that is interrupted goes on from its last checkpoint. `text` names the run to whoever watches.
    """
    return trained_together(base, [Job(images, settings, validation)], text)[0]


def trained_together(base, jobs: list[Job], text="") -> list[Trained]:
    """`trained` of each job, as many in one batch as `batches` says: each knows how much company it had."""
    return [run for batch in batches(base, jobs) for run in _trained_in_one(base, batch, text)]


def batches(base, jobs: list[Job]) -> list[list[Job]]:
    """The jobs in turn, cut so that an update is of AT_ONCE pixels at most, or of one job."""
    pixels = max(job.settings.batch_size for job in jobs) * base.image_side**2
    size = max(1, AT_ONCE // pixels)
    return [jobs[first : first + size] for first in range(0, len(jobs), size)]


def _trained_in_one(base, jobs, text):
    run = _run_of(base, jobs)
    if not run.done:
        with run.locked():
            if not run.done:
                _train(run, base, jobs, text)
    found = []
    for path in (run.folder / f"{i}.safetensors" for i in range(len(jobs))):
        records = pd.read_csv(path.with_suffix(".csv"))
        seconds = float(records.seconds.iloc[-1]) / len(jobs)
        found.append(Trained(Embedding.load(path), records, seconds, str(path)))
    return found


def _run_of(base, jobs: list[Job]) -> Run:
    key = {
        "base": base.digest,
        "jobs": [
            {
                "images": job.images.digest,
                "validation": job.validation.digest if job.validation is not None else None,
                "settings": asdict(job.settings),
            }
            for job in jobs
        ],
        "code": code_digest(*TRAINING),
    }
    return Run(None, "embeddings", key)


def trained_all(base, parts, settings) -> list[Trained]:
    """`trained` of each of `parts` (of lib.tasks.training_sets) under `settings`.

    The classes of one data set go through the base in one batch, several data sets at a time. The
    held-out loss is measured at the start and in each quarter of the steps.
    """
    sets: dict[str, list[Job]] = {}
    for name, label, images, held in parts:
        ours = replace(settings, token=token_of(name, label), validate_every=max(1, settings.steps // 4))
        sets.setdefault(name, []).append(Job(images, ours, held))
    parts = [(name, batch) for name, jobs in sets.items() for batch in batches(base, jobs)]
    new = [(name, batch) for name, batch in parts if not _run_of(base, batch).done]
    calls = [partial(trained_together, jobs=batch, text=name) for name, batch in new]
    sweep(base, calls, "data sets in training")  # without a worker where all is there
    return [run for name, batch in parts for run in trained_together(base, batch, name)]


def _train(run, base, jobs, text):
    checkpoint = run.scratch / "checkpoint.pt"
    try:
        records = _records(base, jobs, checkpoint, text)
    except CheckpointError:  # begun on another device, which encodes images with other last bits
        checkpoint.unlink()
        records = _records(base, jobs, checkpoint, text)
    with run.writing() as folder:
        for i, (job, logged) in enumerate(zip(jobs, zip(*records, strict=True), strict=True)):
            meta = provenance(base, job.images, job.settings, logged[-1])
            last = Embedding(logged[-1].vectors, job.settings.token, meta)
            path = last.save(folder / f"{i}.safetensors")
            path.with_suffix(".md").write_text(card(last, path.name), encoding="utf-8")
            rows = [{k: v for k, v in vars(r).items() if k != "vectors"} for r in logged]
            pd.DataFrame(rows).to_csv(folder / f"{i}.csv", index=False)


def _records(base, jobs, checkpoint, text):
    steps, records = jobs[0].settings.steps, []
    for found in train_many(base, jobs, checkpoint):
        records.append(found)
        loss = np.mean([record.loss for record in found])
        progress(found[0].step, steps, f"{text or jobs[0].settings.token}: loss {loss:.4f}")
    return records


def sampled(base, what, n, **settings):
    """`generate(base, what, n, **settings)` as float32 [n, 3, H, W], drawn unless it was before."""
    return np.load(_samples(base, what, n, settings) / "images.npy")


def seconds_an_image(base, what, n, **settings) -> float:
    """What each image of `sampled` with these arguments took when it was drawn, decoding included."""
    marker = _samples(base, what, n, settings) / MARKER
    return json.loads(marker.read_text(encoding="utf-8"))["seconds"] / n


def _samples(base, what, n, settings) -> Path:
    key = {
        "base": base.digest,
        "what": _named(what),
        "n": n,
        "settings": settings,
        "code": code_digest(*DRAWING),
    }

    def make(folder: Path) -> None:
        progress(0, n, "drawing")
        images = generate(base, what, n, **settings).numpy()
        progress(n, n, "drawing")
        np.save(folder / "images.npy", images.astype(np.float32))

    return cached("samples", key, make)


def inpainted(base, what, images, masks, seed=0, **settings):
    """`inpaint` of each of images [n, 3, H, W] in its mask [n, H, W], image i from seed + i; float32."""
    images, masks = np.asarray(images, np.float32), np.asarray(masks, bool)
    key = {
        "base": base.digest,
        "what": _named(what),
        "images": images,
        "masks": masks,
        "seed": seed,
        "settings": settings,
        "code": code_digest(*DRAWING),
    }

    def make(folder: Path) -> None:
        painted = []
        for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
            painted.append(inpaint(base, what, image, mask, seed=seed + i, **settings)[0].numpy())
            progress(i + 1, len(images), "inpainting")
        np.save(folder / "images.npy", np.stack(painted).astype(np.float32))

    return np.load(cached("inpainted", key, make) / "images.npy")


def _named(what):
    """An embedding by its digest, a mapping as [[name, weight], ...] in its order, a caption as it is."""
    if isinstance(what, dict):
        return [[_named(prompt), weight] for prompt, weight in what.items()]
    return what.digest if isinstance(what, Embedding) else what


def remembered(name, key, modules, compute):
    """What `compute()` returns (a mapping, of what JSON holds), computed unless it was before.

    key: what determines it; modules: those whose code does.
    """

    def make(folder: Path) -> None:
        (folder / "result.json").write_text(json.dumps(compute()))

    folder = cached(name, {"key": key, "code": code_digest(*modules)}, make)
    return json.loads((folder / "result.json").read_text())
