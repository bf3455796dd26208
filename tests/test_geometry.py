"""Sizes, norms and angles of embeddings."""

import numpy as np
import pytest
import torch

from lib.embedding import Embedding, EmbeddingError
from lib.geometry import between, file_table, likely_steps, norm_table, released, walk_of, within
from lib.recipes import InversionSettings


def made(vectors, token="<x>"):
    return Embedding(torch.as_tensor(vectors, dtype=torch.float32), token)


def test_every_format_holds_the_same_numbers(tmp_path):
    table = file_table(made(torch.randn(8, 128)), tmp_path)
    assert table.exact.all() and len(table) == 5 and (table.bytes >= table.numbers).all()
    assert (table.numbers == 8 * 128 * 4).all()


def test_a_random_walk_has_the_norm_of_one():
    """Coordinates that went rate x sqrt(steps) on average have a ratio of 1."""
    walk = made(0.005 * 10_000**0.5 * np.random.default_rng(0).choice([-1.0, 1.0], (64, 256)))
    far = walk_of([0.005] * 10_000)
    row = norm_table({"walk": walk}, {"walk": far}).iloc[0]
    assert row.ratio == pytest.approx(1) and abs(row.cosine) < 0.02
    assert norm_table({"walk": walk}, {"walk": 2 * far}).ratio[0] == pytest.approx(0.5)
    assert likely_steps({"walk": walk}, 0.005, [1000, 9000, 40_000]) == {"walk": 9000}


def test_a_falling_rate_walks_less_far():
    """Signs at random times the rates of this project's recipe, against the formula."""
    settings = InversionSettings()
    rates = np.array([settings.rate(step) for step in range(settings.steps)])
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (20_000, len(rates)))
    assert walk_of(rates) == pytest.approx((signs @ rates).std(), rel=0.02)
    assert walk_of(rates) < 0.7 * settings.learning_rate * settings.steps**0.5


def test_cosines():
    one = made([[1.0, 0.0], [1.0, 0.0]])
    other = made([[0.0, 1.0], [-1.0, 0.0]])
    assert within(one) == pytest.approx(1) and within(other) == pytest.approx(0, abs=1e-9)
    assert np.isnan(within(made([[1.0, 2.0]])))
    table = between({"a": one, "b": other})
    assert table.loc["a", "a"] == pytest.approx(1) and table.loc["a", "b"] == pytest.approx(-0.5)


def test_released_files_are_of_one_size(tmp_path):
    with pytest.raises(EmbeddingError, match=r"no \.pt file"):
        released(tmp_path)
    for name in "ab":
        made(torch.randn(4, 8)).save(tmp_path / f"{name}.pt", "a1111")
    assert list(released(tmp_path)) == ["a", "b"]
    made(torch.randn(2, 8)).save(tmp_path / "c.pt", "a1111")
    with pytest.raises(EmbeddingError, match="2 sizes"):
        released(tmp_path)
