"""What an embedding gives away of its training images: copies of them, and who was among them.

Two questions. Are generated images nearer to training images than to as many held-out ones (Akbar et al.
2023, arXiv 2305.07644)? Can an attacker tell training images from held-out ones (membership inference;
Carlini et al. 2023, arXiv 2301.13188) by their fixed-noise loss, by that loss less a shadow's, who was
trained on others, or by their distance to generated images? Distances are those of pixels, of what the base
sees and of what a diagnostic classifier sees. An audit that finds nothing must be seen to find
something: the positive control is the base's U-Net fine-tuned on five images until it knows them by heart.
"""

import copy
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.spatial.distance import cdist

from lib.artefacts import DRAWING, TRAINING, remembered, sampled, trained
from lib.auc import auc_interval
from lib.config import digest
from lib.denoising import image_losses
from lib.diagnostic import diagnostic, healthy_beside
from lib.embedding import Embedding
from lib.features import extract, load_extractor
from lib.fidelity import Drawing, Task, chosen_images, embedding_of, untrained
from lib.gap import fine_tune
from lib.inversion import InversionSettings
from lib.runs import cached, code_digest
from lib.sampling import generate
from lib.sweep import sweep
from lib.tasks import token_of

CONTROL, NOTHING, FLOOR = "U-Net fine-tuned", "untrained vectors", "real images"
SPACES = ("pixels", "base", "classifier")
SHUFFLES = 200  # times that who was trained on is drawn anew, for what chance gives
_CODE = (
    *("lib.privacy", "lib.diagnostic", "lib.features", "lib.fidelity", "lib.gap", "lib.classify"),
    *("lib.resnet", "lib.metrics", "lib.auc", *DRAWING, *TRAINING),
)


@dataclass(frozen=True)
class Audit:
    """One row of the audit: what was trained, on how many images, for how long.

    kind: "embedding", CONTROL, NOTHING or FLOOR; `steps` are updates.
    """

    kind: str
    vectors: int
    n_train: int
    steps: int


def audits(vectors: int, n_train: int, steps: int, sizes, counts, lengths, control) -> list[Audit]:
    """Floor, negative control, positive control (images, updates), then one thing varied at a time.

    None has more than n_train images, however many are asked for.
    """
    images, updates = control
    found = [
        Audit(FLOOR, 0, n_train, 0),
        Audit(NOTHING, vectors, n_train, 0),
        Audit(CONTROL, 0, min(images, n_train), updates),
        Audit("embedding", vectors, n_train, steps),
        *(Audit("embedding", k, n_train, steps) for k in sizes),
        *(Audit("embedding", vectors, min(n, n_train), steps) for n in counts),
        *(Audit("embedding", vectors, n_train, length) for length in lengths),
    ]
    return list(dict.fromkeys(found))


def learned(base, tasks: Sequence[Task], settings: InversionSettings, seed: int) -> dict[str, Embedding]:
    """Data set -> the embedding of all its training images, as 03 and `audit_row` train it."""
    shared = {"settings": settings, "vectors": settings.vectors, "seed": seed}
    calls = [partial(embedding_of, task=task, n=len(task.train), **shared) for task in tasks]
    runs = sweep(base, calls, "trainings")
    return {task.name: run.embedding for task, run in zip(tasks, runs, strict=True)}


def audit_row(
    base,
    task: Task,
    settings: InversionSettings,
    drawing: Drawing,
    audit: Audit,
    seed: int,
    classifier_steps: int = 150,
) -> dict:
    """One row: ratio_<space>, chance_<space>_low and _high, closer_<space>, auc_<attack> with its interval,
    null_<attack> likewise.

    ratio: geometric mean over generated images of the distance to the nearest training image / to the nearest
    of as many held-out ones; 1 where the training images are no nearer. chance: what 95 % of random divisions
    into training and held-out images give, so that a ratio below says that it was these.
    closer: share of generated images with a ratio below 1. The space "classifier", of one trained for
    `classifier_steps` updates, only where there are healthy images. auc: of training against held-out images
    by the attack; 0.5 is a guess. null: the same of training images, of patients of whom this embedding
    saw none, where it saw but some: what tells the splits apart and not who was trained on.
    """
    key = {
        "base": base.digest,
        "images": [part.digest for part in (task.train, task.real, task.second)],
        "settings": asdict(settings),
        "drawing": asdict(drawing),
        "audit": asdict(audit),
        "seed": seed,
        "classifier_steps": classifier_steps,
    }
    healthy = healthy_beside(task.second)
    key["healthy"] = None if healthy is None else healthy.digest
    given = base, task, healthy, settings, drawing, audit, seed, classifier_steps
    found = remembered("privacy", key, _CODE, lambda: _audit(*given))
    naming = {"dataset": task.name, "class": task.label}
    return naming | asdict(audit) | {"seed": seed, "n_pictures": drawing.n} | found


def _audit(base, task, healthy, settings, drawing, audit, seed, classifier_steps):
    members, pictures = prepare(base, task, settings, drawing, audit, seed)
    held, losses = task.real, _losses(base, task, settings, drawing, audit, seed, members)
    row, patients = {"n_held": len(held)}, (*members.patients, *held.patients)
    for space, see in _eyes(base, task, healthy, classifier_steps).items():
        seen = [see(images) for images in (pictures, members.images, held.images)]
        ratios = distance_ratios(*seen)
        low, high = chance(*seen, patients, seed)
        row |= {f"ratio_{space}": float(np.exp(np.log(ratios).mean())), f"chance_{space}_low": low}
        row |= {f"chance_{space}_high": high, f"closer_{space}": float((ratios < 1).mean())}
        if space == "base":
            near = [-cdist(part, seen[0]).min(1) for part in seen[1:]]
    row |= _areas("auc", members, held, {"pictures": np.concatenate(near)} | _guesses(losses))
    unseen = task.train.subset(np.flatnonzero(~np.isin(task.train.patients, members.patients)))
    if audit.kind == "embedding" and len(unseen):
        losses = _losses(base, task, settings, drawing, audit, seed, unseen)
        row |= _areas("null", unseen, held, _guesses(losses))
    return row


def _guesses(losses) -> dict[str, np.ndarray]:
    """Attack by the losses of `_losses` -> a score of each image, the higher the likelier to be a member."""
    return {} if losses is None else {"loss": -losses[0], "shadow": losses[1] - losses[0]}


def _areas(prefix, members, held, scores) -> dict[str, float]:
    """The AUC of each attack, of members against held-out images, with its interval over patients."""
    labels, row = np.repeat([1, 0], [len(members), len(held)]), {}
    patients, _ = pd.factorize(np.array([*members.patients, *held.patients]))
    for attack, values in scores.items():
        area, name = auc_interval(labels, values, patients), f"{prefix}_{attack}"
        row |= {name: area.value, f"{name}_low": area.low, f"{name}_high": area.high}
    return row


def prepare(base, task: Task, settings: InversionSettings, drawing: Drawing, audit: Audit, seed: int):
    """(members, pictures [n, 3, H, W]) of one audit: who was trained on, and what was drawn then."""
    members = task.train.subset(chosen_images(len(task.train), audit.n_train, seed))
    if audit.kind == FLOOR:
        return members, task.second.images[: drawing.n]
    if audit.kind == CONTROL:
        return members, _control(base, members, task.real, drawing, audit, seed)["pictures"]
    chosen = _chosen(task, settings, audit, seed)
    if audit.kind == NOTHING:
        return members, _drawn(base, untrained(base, chosen), drawing, seed)
    run = embedding_of(base, task, chosen, audit.vectors, audit.n_train, seed)
    return members, _drawn(base, run.embedding, drawing, seed)


def _losses(base, task, settings, drawing, audit, seed, members):
    """[2, members + held-out]: of what was trained on the members, and of a shadow that was not: an
    embedding trained alike on other images, or the untouched base for the fine-tuned one. None of neither.
    """
    if audit.kind == CONTROL:
        return _control(base, members, task.real, drawing, audit, seed)["losses"]
    if audit.kind in (FLOOR, NOTHING):
        return None
    chosen = _chosen(task, settings, audit, seed)
    run = embedding_of(base, task, chosen, audit.vectors, audit.n_train, seed)
    others = task.second.subset(chosen_images(len(task.second), audit.n_train, seed))
    shadow = trained(base, others, chosen, text=f"{task.name}, shadow of {audit.n_train} images")
    both = np.concatenate([members.images, task.real.images])
    return np.array([image_losses(base, both, one.embedding).numpy() for one in (run, shadow)])


def _chosen(task, settings, audit, seed):
    chosen = replace(settings, token=token_of(task.name, task.label), vectors=audit.vectors, seed=seed)
    return chosen if audit.kind == NOTHING else replace(chosen, steps=audit.steps)


def _control(base, members, held, drawing, audit, seed) -> dict[str, np.ndarray]:
    """`pictures` of the fine-tuned U-Net, and its `losses` above those of the base."""
    key = {"base": base.digest, "images": [members.digest, held.digest], "drawing": asdict(drawing)}
    key |= {"steps": audit.steps, "seed": seed, "code": code_digest(*_CODE)}

    def make(folder: Path) -> None:
        tuned = memorised(base, members, audit.steps, seed)
        way = {"guidance": 1.0, "steps": drawing.steps, "sampler": drawing.sampler, "seed": seed}
        both = np.concatenate([members.images, held.images])
        losses = [image_losses(model, both, "").numpy() for model in (tuned, base)]
        np.savez(folder / "found.npz", pictures=generate(tuned, "", drawing.n, **way).numpy(), losses=losses)

    with np.load(cached("memorised", key, make) / "found.npz") as found:
        return dict(found)


def _drawn(base, embedding, drawing, seed):
    return sampled(base, embedding, drawing.n, **drawing.settings(seed))


def memorised(base, images, steps: int, seed: int = 0):
    """The positive control: a Base whose U-Net was fine-tuned on `images`, kept where it knows them best."""
    tuned = copy.copy(
        fine_tune(base, images.images, images.images, steps, min(16, len(images)), every=50, seed=seed)
    )
    tuned.digest = digest([base.digest, images.digest, steps, seed])
    return tuned


def distance_ratios(pictures, train, held) -> np.ndarray:
    """[n]: distance of each of pictures [n, d] to its nearest of train [m, d] / to that of held [h, d].

    Both are of equally many: of the larger set, the geometric mean over all subsets as large as the other.
    """
    return np.exp(_log_ratios(cdist(pictures, np.concatenate([train, held])), len(train)))


def chance(pictures, train, held, patients, seed: int = 0) -> tuple[float, float]:
    """What 95 % of random divisions of the same images into training and held-out ones give for the
    geometric mean of `distance_ratios`.

    patients [train + held]: whose each image is; a division never cuts through one, so that it is of as many
    training images as there are, or of the number nearest to it that whole patients make; nan where all
    images are of one patient.
    """
    rng, apart = np.random.default_rng([seed, 70]), cdist(pictures, np.concatenate([train, held]))
    owners, _ = pd.factorize(np.array(patients))
    if not owners.any():
        return float("nan"), float("nan")
    found = []
    for _ in range(SHUFFLES):
        places = rng.permutation(owners.max() + 1).argsort()[owners]  # of each image, its patient's
        ends = np.bincount(places).cumsum()[:-1]
        n = ends[np.abs(ends - len(train)).argmin()]
        found.append(_log_ratios(apart[:, places.argsort(kind="stable")], n).mean())
    low, high = np.exp(np.quantile(found, (0.025, 0.975)))
    return float(low), float(high)


def _log_ratios(apart, n: int) -> np.ndarray:
    """Of distances [pictures, train + held], the first n of train."""
    m = min(n, apart.shape[1] - n)
    return _log_nearest(apart[:, :n], m) - _log_nearest(apart[:, n:], m)


def _log_nearest(apart, m: int) -> np.ndarray:
    """The mean, over all subsets of m columns of apart [pictures, n], of the log of the least distance."""
    n = apart.shape[1]
    k = np.arange(n - m)  # the least is the k-th of all where the subset holds it and none before
    shares = m / n * np.cumprod(np.concatenate([[1], (n - m - k) / (n - 1 - k)]))
    return np.log(np.maximum(np.sort(apart, 1)[:, : n - m + 1], 1e-9)) @ shares


def nearest_pairs(pictures, train, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n pictures that are nearest to a training image by their pixels, and these images; [n, 3, H, W]."""
    apart = cdist(pictures.reshape(len(pictures), -1), train.reshape(len(train), -1))
    order = apart.min(1).argsort()[:n]
    return pictures[order], train[apart[order].argmin(1)]


def _eyes(base, task, healthy, classifier_steps):
    """Space -> what gives float64 [n, d] of images, scaled by held-out images and not by training ones.

    The classifier's only where the data set has healthy images to tell from.
    """
    found = [
        lambda images: np.asarray(images, float).reshape(len(images), -1),
        partial(extract, load_extractor("base", base, task.second)),
        *([] if healthy is None else [partial(extract, diagnostic(healthy, task.second, classifier_steps))]),
    ]
    return dict(zip(SPACES, found, strict=False))


def capacity(name: str, embedding: Embedding, images, sizes: Sequence[int]) -> pd.DataFrame:
    """One row a number of vectors, up to the embedding's: bits that they hold, and those of the training
    images as PNG files.
    """
    stored = 0
    for image in np.asarray(images.images):
        file = io.BytesIO()
        Image.fromarray(np.uint8(np.rint(255 * image.transpose(1, 2, 0)))).save(file, "PNG", optimize=True)
        stored += len(file.getvalue())
    rows = []
    for k in (k for k in sizes if k <= len(embedding.vectors)):
        held = Embedding(embedding.vectors[:k], embedding.token).nbytes
        row = {"dataset": name, "vectors": k, "embedding_bits": 8 * held, "images_bits": 8 * stored}
        row |= {"share": held / stored, "images_that_would_fit": held / (stored / len(images))}
        rows.append(row)
    return pd.DataFrame(rows)
