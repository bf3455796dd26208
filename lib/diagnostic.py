"""What a diagnosis looks at: features of a classifier that was trained on real images, healthy and diseased.

The audit's third pair of eyes. It is trained on images that the audit holds out, and on none that an
embedding was trained on: a classifier knows its own training images by heart.
"""

from dataclasses import asdict, replace

import numpy as np
import torch

from lib.classify import Cases, Training
from lib.datasets import classes, of_splits
from lib.imagesets import JOINED, ImageSet
from lib.progress import progress
from lib.resnet import Classifier, ClassifierSettings
from lib.runs import cached, code_digest

SETTINGS = ClassifierSettings(width=16, learning_rate=1e-3)
HELD_SHARE = 0.2  # of each class, to select the weights by
LEAST = 4  # healthy images: some to train on, some to select by
PAPER_SIDE = 196  # pixels, at most


class DiagnosticFeatures(torch.nn.Module):
    """A classifier's last features, each of unit deviation over `reference`; for lib.features.extract."""

    def __init__(self, classifier: Classifier, reference):
        super().__init__()
        self._classifier = classifier.eval()
        seen = classifier.features(torch.as_tensor(reference, dtype=torch.float32))
        self._mean, self._deviation = seen.mean(0), seen.std(0).clamp_min(1e-6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [n, d] of images [n, 3, H, W] in [0, 1]."""
        return (self._classifier.features(images) - self._mean) / self._deviation


def diagnostic(healthy: ImageSet, diseased: ImageSet, steps: int) -> DiagnosticFeatures:
    """The features of a classifier that tells `diseased` from `healthy`, such as `healthy_beside` gives.

    Trained once, for `steps` updates, on the CPU, and read again. Raises ClassifyError.
    """
    settings = replace(SETTINGS, side=min(healthy.images.shape[-1], PAPER_SIDE), steps=steps)
    held, learn = (Cases.of(*parts) for parts in zip(_cut(healthy), _cut(diseased), strict=True))
    key = {"cases": [learn.digest, held.digest], "settings": asdict(settings)}
    key["code"] = code_digest("lib.diagnostic", "lib.classify", "lib.resnet", "lib.auc")

    def make(folder):
        training = Training(learn, held, settings)
        for record in training:
            progress(record.step, settings.steps, f"diagnostic classifier: loss {record.loss:.3f}")
        torch.save(training.best.state_dict(), folder / "classifier.pt")

    classifier = Classifier(settings, np.zeros(3), np.ones(3))
    classifier.load_state_dict(
        torch.load(cached("diagnostics", key, make) / "classifier.pt", weights_only=True)
    )
    return DiagnosticFeatures(classifier, diseased.images)


def healthy_beside(diseased: ImageSet) -> ImageSet | None:
    """As many images of the first class of the same data set and splits (those that `diseased` joins).

    None where that class is their own, or has fewer than LEAST there.
    """
    first, side, found = classes(diseased.spec)[0], diseased.images.shape[-1], None
    if first in diseased.classes:
        return None
    for more in of_splits(diseased.spec, len(diseased), diseased.split.split(JOINED), side, 0, first):
        found = more if found is None else found.joined(more)
    if found is None or len(found) < LEAST:
        return None
    return found.subset(slice(0, len(diseased)))


def _cut(images):
    """(what selects the weights, what trains them)."""
    n = max(1, round(HELD_SHARE * len(images)))
    return images.subset(slice(0, n)), images.subset(slice(n, None))
