"""Tables of what is known of images: measured truths a class, and how a base obeys captions."""

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib.auc import auc_interval
from lib.judge import agreement, chance


def truth_table(sets) -> pd.DataFrame:
    """Mean and standard deviation of each scalar truth: [(name, ImageSet), ...] -> one row a class and truth.

    Truths that are masks are reported as the share of the image that they cover.
    """
    rows = []
    for name, images in sets:
        for label in images.classes:
            part = images.of(label)
            row = {"dataset": name, "class": label, "n": len(part)}
            rows.append(row | {"quantity": "mean intensity", **_moments(part.images.mean((1, 2, 3)))})
            for quantity, values in part.truth.items():
                if values.dtype.kind not in "biuf":
                    continue
                flat = values.reshape(len(part), -1).astype(float).mean(1)
                rows.append(row | {"quantity": quantity, **_moments(flat)})
    return pd.DataFrame(rows)


def _moments(values: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else np.nan,
    }


def obedience_table(scenes, drawn: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """How often each attribute of n captions is read back from what the base drew.

    drawn, truth: [n, 3, H, W], the base's pictures and true renderings of the same captions. Columns:
    hits with its 95 % Wilson interval, the chance level, and the ceiling (hits on the renderings).
    """
    ours, ceiling, guess = agreement(scenes, drawn), agreement(scenes, truth), chance()
    rows = []
    for attribute, hits in ours.items():
        low, high = wilson(hits.sum(), len(hits))
        rows.append(
            {
                "attribute": attribute,
                "n": len(hits),
                "hits": hits.mean(),
                "low": low,
                "high": high,
                "chance": guess[attribute],
                "ceiling": ceiling[attribute].mean(),
            }
        )
    return pd.DataFrame(rows)


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, float(middle - reach)), min(1.0, float(middle + reach))


def difficulty_table(sets, test_sets, seed: int = 0) -> pd.DataFrame:
    """How well each diseased class is told from the first one by a simple classifier of pixels.

    sets, test_sets: [(name, ImageSet), ...], disjoint. Logistic regression on 40 principal components;
    the AUC with its 95 % bootstrap interval over test patients. A class that the phantoms made too easy
    (or impossible) shows here at once.
    """
    rows = []
    for (name, train), (_, test) in zip(sets, test_sets, strict=True):
        healthy = train.classes[0]
        for diseased in train.classes[1:]:
            x, y, _ = _pixels(train, healthy, diseased)
            unseen, truth, patients = _pixels(test, healthy, diseased)
            parts = min(40, len(x) - 1)
            model = make_pipeline(PCA(parts, random_state=seed), StandardScaler(), LogisticRegression(C=0.1))
            found = auc_interval(truth, model.fit(x, y).decision_function(unseen), patients, seed=seed)
            row = {"dataset": name, "against": f"{healthy} / {diseased}", "n_train": len(y)}
            row |= {"n_test": len(truth), "auc": found.value, "low": found.low, "high": found.high}
            rows.append(row)
    return pd.DataFrame(rows, columns=["dataset", "against", "n_train", "n_test", "auc", "low", "high"])


def _pixels(images, healthy, diseased):
    """(pixels [n, values], whether diseased [n], patients [n]) of the two classes."""
    labels = np.array(images.labels)
    chosen = np.isin(labels, (healthy, diseased))
    pixels = images.images[chosen].reshape(chosen.sum(), -1)
    return pixels, (labels[chosen] == diseased).astype(int), np.array(images.patients)[chosen]
