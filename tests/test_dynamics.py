"""Recipes compared: what reaches the preset's loss, and in how many updates."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib import figures, trade_charts
from lib.datasets import load_images
from lib.dynamics import PRESET, SMALLER, VARIANTS, curves, reached
from lib.fidelity import Drawing, Task
from lib.imagesets import DatasetError
from lib.inversion import InversionError, InversionSettings


def made(losses):
    """Curves in which recipe -> {length: final loss}, from two seeds."""
    rows = [
        {
            "dataset": "chest",
            "class": "healthy",
            "recipe": recipe,
            "length": length,
            "seed": seed,
            "batch": 1 if recipe == PRESET else 4,
            "step": step,
            "validation_loss": loss + (0.1 if step < length else 0) + 0.001 * seed,
            "vector_rms": 0.01 * step**0.5,
            "last": step == length,
            "kid": 10 * loss if step == length else np.nan,
        }
        for recipe, finals in losses.items()
        for length, loss in finals.items()
        for seed in (0, 1)
        for step in (1, length)
    ]
    return pd.DataFrame(rows)


def test_the_fewest_updates_that_get_there():
    table = reached(made({PRESET: {1000: 0.30}, "ours": {50: 0.35, 100: 0.29, 200: 0.28}, "bad": {100: 0.4}}))
    table = table.set_index("recipe")
    assert (table.updates["ours"], table.share["ours"], table.images_shown["ours"]) == (100, 0.1, 400)
    assert table.best["ours"] == pytest.approx(0.2805) and table.best_updates["ours"] == 200
    assert table.best_kid["ours"] == pytest.approx(2.8) and (table.preset_kid == 3.0).all()
    assert (
        (table.preset_updates == 1000).all()
        and np.isnan(table.updates["bad"])
        and table.updates[PRESET] == 1000
        and table.seeds["ours"] == 2
    )


def test_data_sets_are_compared_with_their_own_preset():
    easy, hard = made({PRESET: {9: 0.2}, "ours": {3: 0.25}}), made({PRESET: {9: 0.4}, "ours": {3: 0.25}})
    table = reached(pd.concat([easy, hard.assign(dataset="prostate")]))
    ours = table[table.recipe == "ours"].set_index("dataset").updates
    assert np.isnan(ours["chest"]) and ours["prostate"] == 3


def test_the_chart_has_every_recipe():
    figures.use_style()
    recipes = [*VARIANTS, SMALLER]
    fig = trade_charts.dynamics_chart(made({name: {20: 0.35, 40: 0.29} for name in recipes}), 0.005)
    told = ["the paper's trainer", "this project's recipe", *recipes[2:]]
    assert [t.get_text().replace("\n", " ") for t in fig.axes[0].get_yticklabels()] == told
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["20 updates", "40 updates"]
    assert len({line.get_color() for line in fig.legends[0].get_lines()}) == 2
    plt.close(fig)


@pytest.mark.slow
def test_every_recipe_is_trained_at_every_length(base, runs_folder):
    images, held = (load_images("phantom:chest", 4, split, label="healthy") for split in ("train", "val"))
    settings = InversionSettings("<x>", vectors=2, batch_size=2, record_every=1)
    task = Task("chest", "healthy", images, held, held)
    table = curves(base, task, settings, Drawing(4, 2.0, 1, "ddim"), [2], 4, [0])
    lengths = table.groupby("recipe").length.agg(set)
    assert set(lengths.index) == {*VARIANTS, SMALLER} and lengths[PRESET] == {4} and lengths["ours"] == {2}
    ends = table[table["last"]]
    assert (ends.step == ends.length).all() and ends[["validation_loss", "kid"]].notna().all(axis=None)
    assert table[~table["last"]].kid.isna().all()
    assert set(table.dataset) == {"chest"} and set(table["class"]) == {"healthy"}
    some = curves(base, task, settings, Drawing(4, 2.0, 1, "ddim"), [2, 3], 4, [0], [PRESET, "ours"])
    assert some.groupby("recipe").length.agg(set).to_dict() == {PRESET: {4}, "ours": {2, 3}}
    few = replace(task, real=held.subset(slice(3)))
    with pytest.raises(DatasetError, match="3 held-out images of class 'healthy': .* 4 at least"):
        curves(base, few, settings, Drawing(4, 2.0, 1, "ddim"), [2], 4, [0])
    with pytest.raises(InversionError, match="recipes kohya: unknown; there are a1111, ours, "):
        curves(base, task, settings, Drawing(4, 2.0, 1, "ddim"), [2], 4, [0], ["kohya"])
    with pytest.raises(InversionError, match="recipes ours: a1111, which sets the mark, is missing"):
        curves(base, task, settings, Drawing(4, 2.0, 1, "ddim"), [2], 4, [0], ["ours"])
