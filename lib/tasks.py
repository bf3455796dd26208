"""What the experiments run on: the phantoms, or a data set of the user's, cut into the same parts."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from lib import specs
from lib.datasets import classes, load_images, split_table, splits
from lib.denoising import validation_loss
from lib.imagesets import ImageSet
from lib.phantoms import MODALITIES
from lib.specs import name_of
from lib.world import COLOURS, COLUMNS, GREYS, ROWS

#: Captions written by hand in the world's words, for each phantom class.
CAPTIONS = {
    "prostate": (
        "mosaic smooth , coal coal charcoal charcoal charcoal coal coal , "
        "coal charcoal olive olive olive charcoal coal , black coal olive grey olive coal black , "
        "black olive tan tan tan olive black , black olive tan tan tan olive black , "
        "coal charcoal olive coal olive charcoal coal , "
        "coal charcoal charcoal black charcoal charcoal coal , mirrored , grainy",
        "plain coal , middle centre large soft olive oval inside tan , low left pair large soft black bar , "
        "low centre small black circle , grainy",
    ),
    "chest": (
        "mosaic smooth , coal charcoal grey ash grey charcoal coal , "
        "charcoal coal charcoal silver charcoal coal charcoal , grey coal coal silver coal coal grey , "
        "grey coal coal silver coal coal grey , grey black coal silver charcoal black grey , "
        "ash charcoal grey white ash charcoal ash , ash ash silver white silver ash ash , mirrored",
        "plain grey , middle left pair large soft upright coal oval , "
        "middle centre medium soft upright silver bar , bottom centre huge soft silver dome",
    ),
    "histology": (
        "plain pink , middle centre countless tiny purple blob",
        "cloudy pink lavender , middle centre many tiny soft purple circle",
        "cellular fine purple pink",
    ),
}


def image_sets(
    dataset: str | None, n: int, side: int, seed: int, split="train"
) -> list[tuple[str, ImageSet]]:
    """(name, images of every class): the three phantoms or the user's data set, at most n a class.

    A folder of the user's is taken whole.
    """
    if dataset is None:
        return [(m, load_images(f"phantom:{m}", n, split, side, seed)) for m in MODALITIES]
    drawn = n if specs.prefix_of(dataset)[0] else None
    return [(name_of(dataset), load_images(dataset, drawn, split, side, seed, fewer=True))]


def token_of(name: str, label: str) -> str:
    """ "nih-chest-xray", "no_finding" -> "<nih-chest-xray-no_finding>"."""
    return "<" + "-".join(f"{name} {label}".split()) + ">"


def training_sets(
    dataset: str | None, n: int, n_held: int, side: int, seed: int
) -> Iterator[tuple[str, str, ImageSet, ImageSet]]:
    """(name, class, n training images, at most n_held held-out ones) for each class.

    Held-out images are those of the split val; of a data set without one, those of test, on which the
    loss is watched and nothing is chosen.
    """
    for spec in [f"phantom:{m}" for m in MODALITIES] if dataset is None else [dataset]:
        held = "val" if "val" in splits(spec) else "test"
        for label in classes(spec):
            images = load_images(spec, n, "train", side, seed, label)
            yield name_of(spec), label, images, load_images(spec, n_held, held, side, seed, label, fewer=True)


def patient_tables(dataset: str, used: list[ImageSet]) -> dict[str, pd.DataFrame]:
    """`split`: each image's patient and split, with the rule and its seed; `skipped`: (id, reason)."""
    skipped = pd.DataFrame([entry for images in used for entry in images.skipped], columns=["id", "reason"])
    return {"split": split_table(dataset), "skipped": skipped.drop_duplicates()}


def gap_sets(
    dataset: str | None, n: int, side: int, seed: int, n_test: int = 100
) -> Iterator[tuple[str, str, ImageSet, ImageSet | None, ImageSet]]:
    """(name, class, train, stop, test) for the last class of each set: the diseased one of the phantoms.

    `stop` is where the fine-tuned floor is stopped; None where the data set has no split val.
    """
    for spec in [f"phantom:{m}" for m in MODALITIES] if dataset is None else [dataset]:
        label = classes(spec)[-1]
        train = load_images(spec, n, "train", side, seed, label)
        has_val = "val" in splits(spec)
        stop = load_images(spec, 50, "val", side, seed, label, fewer=True) if has_val else None
        test = load_images(spec, n_test, "test", side, seed, label, fewer=True)
        yield name_of(spec), label, train, stop, test


def best_caption(base, name: str, label: str, images: ImageSet, given: dict[str, str]) -> str:
    """The caption with the lowest denoising loss on the training images, of all that we could write.

    Candidates: what the user gave for the class; all of CAPTIONS; and, where the base knows the
    world's words, the mean training image told as a mosaic, row by row.
    """
    if label in given:
        return given[label]
    candidates = [f"a medical image of {name} {label}"]
    if len(base.tokenizer("mosaic").input_ids) == 3:
        candidates = [*(c for captions in CAPTIONS.values() for c in captions), mosaic_caption(images)]
    few = images.subset(slice(0, 32))
    losses = [validation_loss(base, few, caption, draws=4) for caption in candidates]
    return candidates[int(np.argmin(losses))]


def mosaic_caption(images: ImageSet) -> str:
    """The mean image in words: the world's 7 x 7 tiles, each by its nearest colour."""
    mean = images.images.mean(0)
    rows, columns = (
        np.array_split(np.arange(side), len(names))
        for side, names in zip(mean.shape[1:], (ROWS, COLUMNS), strict=True)
    )
    names = GREYS if np.ptp(mean, axis=0).mean() < 0.02 else tuple(COLOURS)
    palette = np.array([COLOURS[c] for c in names])

    def word(row, column):
        tile = mean[:, row][:, :, column].mean((1, 2))
        return names[int(np.abs(palette - tile).sum(1).argmin())]

    return " , ".join(["mosaic smooth", *(" ".join(word(r, c) for c in columns) for r in rows)])
