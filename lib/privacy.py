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
from lib.metrics import mean_interval
from lib.sampling import generate
from lib.sweep import sweep
from lib.tasks import token_of

CONTROL, NOTHING, FLOOR = "U-Net fine-tuned", "untrained vectors", "real images"
SPACES = ("pixels", "base", "classifier")
DRAWS = 20  # subsets of the larger of training and held-out images, each as many as there are of the other
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
    """One row: ratio_<space> with its interval, closer_<space>, auc_<attack> with its interval.

    ratio: geometric mean over generated images of the distance to the nearest training image / to the nearest
    of as many held-out ones; 1 where the training images are no nearer. closer: share of generated images
    with a ratio below 1. The space "classifier", of one trained for `classifier_steps` updates, only where
    there are healthy images. auc: of training against held-out images by the attack; 0.5 is a guess.
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
    members, held, pictures, losses = prepare(base, task, settings, drawing, audit, seed)
    row = {"n_held": len(held)}
    for space, see in _eyes(base, task, healthy, classifier_steps).items():
        seen = [see(images) for images in (pictures, members.images, held.images)]
        ratios = distance_ratios(*seen, seed)
        low, high = np.exp(mean_interval(np.log(ratios)))
        row |= {f"ratio_{space}": float(np.exp(np.log(ratios).mean())), f"ratio_{space}_low": float(low)}
        row |= {f"ratio_{space}_high": float(high), f"closer_{space}": float((ratios < 1).mean())}
        if space == "base":
            near = [-cdist(part, seen[0]).min(1) for part in seen[1:]]
    labels = np.repeat([1, 0], [len(members), len(held)])
    patients, _ = pd.factorize(np.array([*members.patients, *held.patients]))
    scores = {"pictures": np.concatenate(near)}
    if losses is not None:
        scores |= {"loss": -losses[0], "shadow": losses[1] - losses[0]}
    for attack, values in scores.items():
        area = auc_interval(labels, values, patients)
        row |= {f"auc_{attack}": area.value, f"auc_{attack}_low": area.low, f"auc_{attack}_high": area.high}
    return row


def prepare(base, task: Task, settings: InversionSettings, drawing: Drawing, audit: Audit, seed: int):
    """(members, held-out images, generated images, losses or None) of one audit.

    losses [2, members + held-out]: of what was trained on the members, and of a shadow that was not: an
    embedding trained alike on other images, or the untouched base for the fine-tuned one.
    """
    members = task.train.subset(chosen_images(len(task.train), audit.n_train, seed))
    both = np.concatenate([members.images, task.real.images])
    if audit.kind == FLOOR:
        return members, task.real, task.second.images[: drawing.n], None
    if audit.kind == CONTROL:
        tuned = memorised(base, members, audit.steps, seed)
        way = {"guidance": 1.0, "steps": drawing.steps, "sampler": drawing.sampler, "seed": seed}
        pictures = generate(tuned, "", drawing.n, **way).numpy()
        losses = [image_losses(model, both, "").numpy() for model in (tuned, base)]
        return members, task.real, pictures, np.array(losses)
    chosen = replace(settings, token=token_of(task.name, task.label), vectors=audit.vectors, seed=seed)
    if audit.kind == NOTHING:
        return members, task.real, _drawn(base, untrained(base, chosen), drawing, seed), None
    chosen = replace(chosen, steps=audit.steps)
    run = embedding_of(base, task, chosen, audit.vectors, audit.n_train, seed)
    others = task.second.subset(chosen_images(len(task.second), audit.n_train, seed))
    shadow = trained(base, others, chosen, text=f"{task.name}, shadow of {audit.n_train} images")
    losses = [image_losses(base, both, one.embedding).numpy() for one in (run, shadow)]
    return members, task.real, _drawn(base, run.embedding, drawing, seed), np.array(losses)


def _drawn(base, embedding, drawing, seed):
    return sampled(base, embedding, drawing.n, **drawing.settings(seed))


def memorised(base, images, steps: int, seed: int = 0):
    """The positive control: a Base whose U-Net was fine-tuned on `images`, kept where it knows them best."""
    tuned = copy.copy(
        fine_tune(base, images.images, images.images, steps, min(16, len(images)), every=50, seed=seed)
    )
    tuned.digest = digest([base.digest, images.digest, steps, seed])
    return tuned


def distance_ratios(pictures, train, held, seed: int = 0) -> np.ndarray:
    """[n]: distance of each of pictures [n, d] to its nearest of train [m, d] / to that of held [h, d].

    Both are of equally many: of the larger set, DRAWS random subsets as large as the other. Of held the
    median over them counts; of train the geometric mean, so that a copy of an image that only some subsets
    hold is not lost.
    """
    rng, m = np.random.default_rng([seed, 70]), min(len(train), len(held))

    def nearest(those):
        apart = cdist(pictures, those)
        draws = [apart[:, rng.permutation(len(those))[:m]].min(1) for _ in range(DRAWS)]
        return np.maximum(draws if m < len(those) else [apart.min(1)], 1e-9)

    to_held = np.median(nearest(held), 0)
    return np.exp(np.log(nearest(train)).mean(0)) / to_held


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
