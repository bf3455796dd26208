"""How closely a measured quantity follows the weight."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from lib.concepts import Concepts
from lib.embedding import Embedding
from lib.interpolation import class_levels, prompt_at, rank_correlations

SHARED = {"dataset": "chest", "class": "effusion", "way": "AND", "quantity": "blunting"}


def table(grid):
    """A row a noise and weight, of values [noises, weights]."""
    weights = np.linspace(0, 1, grid.shape[1])
    rows = [
        SHARED | {"noise": i, "weight": w, "value": value}
        for i, values in enumerate(grid)
        for w, value in zip(weights, values, strict=True)
    ]
    return pd.DataFrame(rows)


def test_correlations_are_spearmans():
    grid = np.random.default_rng(0).normal(size=(6, 5)) + np.linspace(0, 2, 5)
    rows = table(grid)
    found = rank_correlations(rows, {"chest": (1.0, 5.0)}).iloc[0]
    weights = np.linspace(0, 1, 5)
    assert found.rho == pytest.approx(spearmanr(weights, grid.mean(0)).statistic)
    assert found.pooled == pytest.approx(spearmanr(rows.weight, rows.value).statistic)
    assert found.single == pytest.approx(np.mean([spearmanr(weights, row).statistic for row in grid]))
    assert found.low <= found.rho <= found.high and found.n == 6
    assert found.rise == pytest.approx((grid[:, -1] - grid[:, 0]).mean()) == 4 * found.share


def test_the_levels_of_classes_are_those_of_their_images():
    images = {
        label: SimpleNamespace(images=np.full((3, 3, 2, 2), v)) for label, v in (("a", 0.2), ("b", 0.7))
    }
    known = dict.fromkeys(images)
    assert class_levels(Concepts("mine", "mine", known, images, None), "b") == pytest.approx((0.2, 0.7))


def test_what_never_changes_follows_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rank_correlations(table(np.ones((3, 4))), {"chest": (0.0, 1.0)}).iloc[0]
    assert (found.rho, found.pooled, found.single, found.rise) == (0, 0, 0, 0)


def test_a_weight_is_that_of_the_disease():
    healthy, diseased = Embedding(torch.zeros(2, 3), "<h>"), Embedding(torch.full((2, 3), 4.0), "<d>")
    assert prompt_at("AND", healthy, diseased, 0.25) == {healthy: 0.75, diseased: 0.25}
    assert torch.equal(prompt_at("vectors", healthy, diseased, 0.25).vectors, torch.ones(2, 3))
