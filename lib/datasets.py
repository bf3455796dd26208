"""Labelled images from phantoms, folders and archives through one function; one reader a prefix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from lib import phantoms, specs
from lib.folders import FolderSource
from lib.imagesets import SPLITS, DatasetError, ImageSet, Request, Source, check_label

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "READERS",
    "DatasetError",
    "ImageSet",
    "check",
    "classes",
    "load_images",
    "of_splits",
    "split_table",
    "splits",
]

PHANTOMS_A_CLASS = 100  # as many as the paper trained on


def load_images(
    spec: str | os.PathLike,
    n: int | None = None,
    split: str | None = "train",
    side: int = 64,
    seed: int = 0,
    label: str | None = None,
    patient_pattern: str | None = None,
    fewer: bool = False,
) -> ImageSet:
    """Images `[n, 3, side, side]`, float32, RGB, 0 to 1, with labels and patients.

    spec   `phantom:prostate`, `phantom:prostate/tumour`, a folder, `folder/class`, or an archive as
           its owner distributes it, with options after it:
           `chexpert:DIR`            ?view=frontal | lateral | ap | pa | all
                                     &uncertain=ignore | positive | negative
                                     &splits=patients | files
           `picai:IMAGES,LABELS`     ?lesions=expert | combined
           `pcam:DIR`
           each also ?classes=healthy,edema (which, of those that there are) and ?split_seed=1. The
           first word is the default; `lib.chexpert`, `lib.picai` and `lib.pcam` say what they mean.
           On a command line quote it: -p dataset 'chexpert:data/CheXpert?view=pa&uncertain=positive'
    n      images of each class; None: all there are (of a phantom, 100)
    split  train, val or test; `all` or None: every one of a folder's images. Folders named
           train, val and test are taken as they are; a folder without them is split 80/10/10
           by a hash of the patient's name, the same for every seed. Phantoms of two splits are
           drawn from disjoint seeds. Patients of CheXpert and PI-CAI are split by that hash, under
           `split_seed`; PatchCamelyon has splits of its own. `.note` says which rule it was;
           `split_table` gives the whole split.
    side   pixels; give it the base's `image_side`
    seed   which of a folder's images are chosen, in which order; which phantoms are drawn. The
           first m images of a class are the same for every n.
    label  one class only
    patient_pattern  see `lib.folders.FolderSource`
    fewer  where a class has less than n readable images, take those, as long as there is one

    Images are cropped to their central square, resized, and never flipped. A file that cannot be
    read is left out and named in `.skipped`. Raises DatasetError where what was asked for is not
    there.
    """
    spec = os.fspath(spec)
    request = Request(spec, n, "all" if split is None else split, side, seed, label, fewer)
    return _open(spec, patient_pattern).load(request)


def check(spec: str | os.PathLike) -> None:
    """Raises DatasetError for what no image need be read to find: a folder that is missing or without
    images, an archive of which one is, a name that means nothing.
    """
    _open(os.fspath(spec))


def classes(spec: str | os.PathLike) -> tuple[str, ...]:
    """The classes that `load_images` would find. Raises DatasetError as it does."""
    return _open(os.fspath(spec)).classes


def splits(spec: str | os.PathLike) -> tuple[str, ...]:
    """Those of train, val and test that hold images of `spec`; a folder need not have all."""
    return _open(os.fspath(spec)).splits


def of_splits(
    spec: str, n: int, names: Iterable[str], side: int, seed: int, label: str
) -> Iterator[ImageSet]:
    """At most n images of a class of each of these splits, but for those that have none."""
    for name in names:
        try:
            found = load_images(spec, n, name, side, seed, label, fewer=True)
        except DatasetError:  # a hash of ten patients may give it none, or none that can be read
            continue
        yield found


def split_table(spec: str | os.PathLike, patient_pattern: str | None = None) -> pd.DataFrame:
    """The split in writing: one row an image, with columns id, patient, label, split and rule.

    `rule` is how the split was made, with its seed. Raises DatasetError as `load_images` does, and for
    phantoms, which are drawn without end.
    """
    import pandas as pd

    source = _open(os.fspath(spec), patient_pattern)
    if isinstance(source, PhantomSource):
        raise DatasetError(f"{spec}: phantoms are drawn without end: their seed and split tell all")
    columns = ["id", "patient", "label", "split"]
    rows = [[getattr(candidate, name) for name in columns] for candidate in source.candidates]
    return pd.DataFrame(rows, columns=columns).assign(rule=source.rule)


class PhantomSource:
    """`modality` or `modality/class` of lib.phantoms; as many images as one asks for."""

    splits = SPLITS

    def __init__(self, name: str, patient_pattern: str | None = None) -> None:
        self.modality, _, label = name.partition("/")
        spec = f"phantom:{name}"
        if self.modality not in phantoms.MODALITIES:
            known = ", ".join(phantoms.MODALITIES)
            raise DatasetError(f"{spec}: no phantom {self.modality!r}: there are {known}")
        self.classes = tuple(phantoms.MODALITIES[self.modality])
        if label:
            check_label(label, self.classes, spec)
            self.classes = (label,)

    def load(self, request: Request) -> ImageSet:
        """Draw them. Raises DatasetError for a class that is not there and for split 'all'."""
        if request.split not in SPLITS:
            raise DatasetError(
                f"{request.spec}: phantoms are drawn without end: name the split train, val or test"
            )
        if request.label is not None:
            check_label(request.label, self.classes, request.spec)
        labels = self.classes if request.label is None else (request.label,)
        n = request.n or PHANTOMS_A_CLASS
        # Every pair of seed and split has a seed of its own: no image is in two splits.
        seed = request.seed * len(SPLITS) + SPLITS.index(request.split)
        drawn = [phantoms.draw(self.modality, label, n, seed=seed, side=request.side) for label in labels]
        ids = [f"{self.modality}/{label}/{seed}-{i:05d}" for label in labels for i in range(n)]
        return ImageSet(
            images=np.concatenate([images for images, _ in drawn]),
            labels=[label for label in labels for _ in range(n)],
            ids=ids,
            patients=ids,
            truth={key: np.concatenate([truth[key] for _, truth in drawn]) for key in drawn[0][1]},
            spec=request.spec,
            split=request.split,
            note=f"drawn from seed {seed}",
        )


def _on_demand(module: str, name: str) -> Callable[[str, str | None], Source]:
    """A reader whose module, with the library that it needs, is imported when it is first used."""
    return lambda rest, patient_pattern: getattr(import_module(module), name)(rest, patient_pattern)


# One reader a prefix. A reader takes what follows it and the patient pattern, and gives a Source.
READERS: dict[str, Callable[[str, str | None], Source]] = {
    "phantom": PhantomSource,
    "chexpert": _on_demand("lib.chexpert", "CheXpert"),
    "picai": _on_demand("lib.picai", "PiCai"),
    "pcam": _on_demand("lib.pcam", "PCam"),
}


def _open(spec: str, patient_pattern: str | None = None) -> Source:
    if not spec.strip():
        raise DatasetError("no data set named: give a folder of images or phantom:prostate")
    prefix, rest = specs.prefix_of(spec)
    if prefix is None:
        return FolderSource(spec, patient_pattern)
    if prefix not in READERS:
        known = ", ".join(f"{name}:" for name in READERS)
        raise DatasetError(f"{spec}: unknown prefix {prefix!r}: one of {known} or a folder")
    return READERS[prefix](rest, patient_pattern)
