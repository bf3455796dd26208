"""From healthy to diseased: by AND weights, and by mixing the two embeddings' vectors.

The noise of picture i is the same at every weight, so that what changes is the weight alone.
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lib.artefacts import sampled
from lib.concepts import INTENSITY, Concepts
from lib.embedding import Embedding

WAYS = {"AND": "composed predictions", "vectors": "mixed embeddings"}


def prompt_at(way: str, healthy: Embedding, diseased: Embedding, weight: float):
    """What is drawn at `weight` of the disease, 0 to 1: {healthy: 1 - w, diseased: w}, or (1 - w) h + w d."""
    if way == "AND":
        return {healthy: 1 - weight, diseased: weight}
    vectors = (1 - weight) * healthy.vectors + weight * diseased.vectors
    return Embedding(vectors, f"{diseased.token[:-1]}-mixed>")


def strips(base, concepts: Concepts, label: str, weights, n: int, **drawing) -> dict[str, np.ndarray]:
    """way -> float32 [weights, n, 3, H, W]: the same n noises at every weight."""
    ends = concepts.embeddings[concepts.healthy], concepts.embeddings[label]
    return {
        way: np.stack([sampled(base, prompt_at(way, *ends, w), n, **drawing) for w in weights])
        for way in WAYS
    }


def measured(concepts: Concepts, label: str, weights, drawn: dict[str, np.ndarray]) -> pd.DataFrame:
    """One row a way, weight and noise: the quantity and the mean intensity of that picture."""
    rows = []
    for way, pictures in drawn.items():
        for weight, images in zip(weights, pictures, strict=True):
            values = concepts.measure(images)
            for i, (value, tone) in enumerate(zip(values[concepts.quantity], values[INTENSITY], strict=True)):
                row = {"dataset": concepts.name, "class": label, "way": way, "weight": weight, "noise": i}
                rows.append(row | {"quantity": concepts.quantity, "value": value, "intensity": tone})
    return pd.DataFrame(rows)


def class_levels(concepts: Concepts, label: str) -> tuple[float, float]:
    """The quantity's mean in the training images of the healthy class and of `label`, as it is read."""
    healthy, diseased = (
        float(concepts.measure(concepts.images[name].images)[concepts.quantity].mean())
        for name in (concepts.healthy, label)
    )
    return healthy, diseased


def rank_correlations(
    table: pd.DataFrame, levels: dict[str, tuple[float, float]], resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Spearman's rho of quantity and weight for each data set and way, 95 % bootstrap over noises.

    rho: of the mean over noises at each weight; pooled: over all pictures; single: the mean over noises of
    each one's own. rise: mean at the last weight less that at the first, with its interval; share: of what
    the images that were learned differ by (`levels`: data set -> `class_levels`, real_healthy and
    real_diseased in the table). A disease need not raise what stands in for it where nothing is known (mean
    intensity): there the sign says nothing.
    """
    rows = []
    for (name, label, way, quantity), part in table.groupby(
        ["dataset", "class", "way", "quantity"], sort=False
    ):
        grid = part.pivot(index="noise", columns="weight", values="value").to_numpy()
        weights = np.sort(part.weight.unique())
        rng = np.random.default_rng(seed)
        draws = grid[rng.integers(len(grid), size=(resamples, len(grid)))].mean(1)
        rhos = _rho(draws, weights)
        rises = draws[:, -1] - draws[:, 0]
        row = {"dataset": name, "class": label, "way": way, "quantity": quantity, "n": len(grid)}
        row |= {"weights": len(weights), "rho": float(_rho(grid.mean(0)[None], weights)[0])}
        row |= dict(zip(("low", "high"), np.quantile(rhos, (0.025, 0.975)), strict=True))
        pooled = _rho(part.value.to_numpy()[None], part.weight)
        row |= {"pooled": float(pooled[0]), "single": _rho(grid, weights).mean()}
        rise = (grid[:, -1] - grid[:, 0]).mean()
        healthy, diseased = levels[name]
        row |= {"rise": rise, "share": rise / (diseased - healthy)}
        row |= {"real_healthy": healthy, "real_diseased": diseased}
        rows.append(
            row | dict(zip(("rise_low", "rise_high"), np.quantile(rises, (0.025, 0.975)), strict=True))
        )
    return pd.DataFrame(rows)


def _rho(values, weights):
    """Rank correlation [m] of each row of values [m, w] with the weights; 0 where a row is constant."""
    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    wanted = rankdata(weights) - (len(weights) + 1) / 2
    norm = np.sqrt(np.square(ranks).sum(1) * np.square(wanted).sum())
    return np.where(norm > 0, ranks @ wanted / np.where(norm > 0, norm, 1), 0.0)
