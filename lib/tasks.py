"""What the experiments run on: the phantoms, or a data set of the user's, cut into the same parts."""

import re
from collections.abc import Iterator

import pandas as pd

from lib.datasets import classes, load_images, of_splits, split_table, splits
from lib.imagesets import DatasetError, ImageSet
from lib.phantoms import MODALITIES
from lib.specs import is_own, name_of

LONGEST = 90  # characters of a token
UPDATES = 200  # of an embedding of phantoms
UPDATES_OWN = 1500  # of one of the user's images, which are harder: most prostates come to have a gland
MOST_CLASSES = 20  # more are patients, one folder each


def image_sets(
    dataset: str | None, n: int, side: int, seed: int, split="train"
) -> list[tuple[str, ImageSet]]:
    """(name, images of every class): the three phantoms or the user's data set, at most n a class."""
    if dataset is None:
        return [(m, load_images(f"phantom:{m}", n, split, side, seed)) for m in MODALITIES]
    return [(name_of(dataset), load_images(dataset, n, split, side, seed, fewer=True))]


def updates(steps: int | None, dataset: str | None) -> int:
    """`steps`, or for None UPDATES_OWN of a data set of the user's and UPDATES of phantoms."""
    if steps is not None:
        return steps
    return UPDATES_OWN if is_own(dataset) else UPDATES


def token_of(name: str, label: str) -> str:
    """ "nih-chest-xray", "no_finding" -> "<nih-chest-xray-no_finding>"; "-" for what a token may not hold."""
    text = re.sub(r"[^\w.+-]+", "-", f"{name} {label}".lower()).strip("-")
    return f"<{text[-LONGEST:]}>"


def learned_classes(spec: str) -> tuple[str, ...]:
    """The classes of a data set.

    Raises DatasetError for more than MOST_CLASSES, each of which is learned, and for two whose names give
    one token and so one file ("GGO 3" and "ggo-3").
    """
    labels = classes(spec)
    if len(labels) > MOST_CLASSES:
        shown = ", ".join(labels[:3])
        raise DatasetError(
            f"{spec}: {len(labels)} classes ({shown}, ...), each of which would be learned by itself: where "
            "its subfolders are patients, put them into a folder that is named by their class"
        )
    first: dict[str, str] = {}
    for label in labels:
        other = first.setdefault(token_of(name_of(spec), label), label)
        if other != label:
            raise DatasetError(
                f"{spec}: the classes {other!r} and {label!r} would share a token and a file: rename one"
            )
    return labels


def training_sets(
    dataset: str | None, n: int, n_held: int, side: int, seed: int
) -> Iterator[tuple[str, str, ImageSet, ImageSet]]:
    """(name, class, n training images, at most n_held held-out ones) for each class.

    Of a class with fewer than n, the user's folder gives what it has.
    Held-out images are those of the split val; where it has none, those of test, on which the loss is
    watched and nothing is chosen.
    """
    for spec in [f"phantom:{m}" for m in MODALITIES] if dataset is None else [dataset]:
        for label in learned_classes(spec):
            images = load_images(spec, n, "train", side, seed, label, fewer=True)
            yield name_of(spec), label, images, _watched(spec, n_held, side, seed, label)


def _of_val(spec, n, side, seed, label) -> ImageSet | None:
    """At most n images of a class of the split val; None where there are none."""
    return next(of_splits(spec, n, {"val"} & {*splits(spec)}, side, seed, label), None)


def _watched(spec, n, side, seed, label):
    """Held-out images of a class: of val, or of test where val has none."""
    found = _of_val(spec, n, side, seed, label)
    return found or load_images(spec, n, "test", side, seed, label, fewer=True)


def patient_tables(dataset: str, used: list[ImageSet]) -> dict[str, pd.DataFrame]:
    """`split`: each image's patient and split, with the rule and its seed; `skipped`: (id, reason)."""
    skipped = pd.DataFrame([entry for images in used for entry in images.skipped], columns=["id", "reason"])
    return {"split": split_table(dataset), "skipped": skipped.drop_duplicates()}


def gap_sets(
    dataset: str | None, n: int, side: int, seed: int, n_test: int = 100, n_stop: int = 50
) -> Iterator[tuple[str, str, ImageSet, ImageSet | None, ImageSet]]:
    """(name, class, train, stop, test) for the last class of each set: the diseased one of the phantoms.

    `stop` is where the fine-tuned floor is stopped; None where the split val has none of them. n, n_test and
    n_stop: the most images of each.
    """
    for spec in [f"phantom:{m}" for m in MODALITIES] if dataset is None else [dataset]:
        label = learned_classes(spec)[-1]
        train = load_images(spec, n, "train", side, seed, label, fewer=True)
        stop = _of_val(spec, n_stop, side, seed, label)
        test = load_images(spec, n_test, "test", side, seed, label, fewer=True)
        yield name_of(spec), label, train, stop, test
