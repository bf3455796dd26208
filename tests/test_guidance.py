"""Ways of drawing: which there are, what each row says, which scale is better, which ways none beats."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib import figures, trade_charts
from lib.artefacts import sampled, seconds_an_image
from lib.fidelity import Drawing, tasks
from lib.guidance import frontier, like, low_or_high, way_rows, ways
from lib.inversion import InversionSettings
from lib.metrics import METRICS

REFERENCE = Drawing(5, 2.0, 20, "euler_a")
SAMPLERS = ("ddim", "euler_a", "dpm++")


def table(kid_of, datasets=("prostate",), seeds=(0, 1, 2)):
    """Rows as `way_rows` gives them, in which kid and every other metric is kid_of(way, seed)."""
    rows = []
    drawings = ways(REFERENCE, (1.0, 2.0, 8.0), (10, 20), SAMPLERS)
    everything = [("real", None, 0)]
    everything += [("untrained", REFERENCE, s) for s in seeds]
    everything += [("embedding", way, s) for s in seeds for way in drawings]
    for name in datasets:
        for condition, way, seed in everything:
            row = {"dataset": name, "class": "tumour", "condition": condition, "seed": seed}
            row |= {"sampler": way.sampler if way else "", "guidance": way.guidance if way else 0.0}
            row |= {"steps": way.steps if way else 0, "n_real": 50, "n_fake": 50}
            row["seconds_an_image"] = way.steps / 100 if way else np.nan
            value = {"real": 0.0, "untrained": 9.0}.get(condition, kid_of(way, seed) if way else 0.0)
            for metric in METRICS:
                row |= {metric: value, f"{metric}_low": value - 0.1, f"{metric}_high": value + 0.1}
            rows.append(row)
    return pd.DataFrame(rows)


def test_each_way_is_there_once_and_the_reference_first():
    found = ways(REFERENCE, (1.0, 2.0, 8.0), (10, 20), SAMPLERS)
    assert found[0] == REFERENCE and len(found) == len(set(found)) == 3 * 2 + 2 * 2
    assert {(w.guidance, w.steps) for w in found if w.sampler == "euler_a"} == {
        (g, s) for g in (1.0, 2.0, 8.0) for s in (10, 20)
    }
    assert {w.guidance for w in found if w.sampler != "euler_a"} == {2.0}
    other = ways(replace(REFERENCE, steps=30), (1.0, 2.0, 8.0), (10, 20), SAMPLERS)
    assert {w.guidance for w in other if w.steps == 30} == {1.0, 2.0, 8.0}, "at its steps scales are compared"


@pytest.mark.parametrize(
    "slope, kid, precision", [(0.5, "low", "high"), (-0.5, "high", "low"), (0.0, "not apart", "not apart")]
)
def test_the_better_scale_is_named_only_where_intervals_do_not_meet(slope, kid, precision):
    rows = like(table(lambda way, seed: 3 + slope * way.guidance + 0.01 * seed), REFERENCE, "guidance")
    found = low_or_high(rows, 2.0).set_index("metric")
    assert found.better["kid"] == kid and found.better["precision"] == precision
    assert (found.low["kid"], found.high["kid"], found.seeds["kid"]) == (2.0, 8.0, 3)
    assert found.at_high["kid"] - found.at_low["kid"] == pytest.approx(6 * slope)
    assert found.untrained["kid"] == 9.0 and found.floor["kid"] == 0.0
    if slope:
        assert found.best["kid"] == (1.0 if slope > 0 else 8.0)
        assert found.rho["kid"] * slope > 0.8 * abs(slope)


def test_a_choice_keeps_what_it_does_not_name():
    rows = table(lambda way, seed: 1.0)
    drawn = like(rows, REFERENCE, "steps", "sampler")
    drawn = drawn[drawn.condition == "embedding"]
    assert (
        set(drawn.guidance) == {2.0} and set(drawn.sampler) == set(SAMPLERS) and set(drawn.steps) == {10, 20}
    )
    assert {"real", "untrained"} <= set(like(rows, REFERENCE, "guidance").condition)


def test_the_frontier_holds_no_way_that_another_beats():
    """Euler is best at either number of steps, and more steps help: two ways are left."""
    rows = table(lambda way, seed: 10 / way.steps + 0.1 * way.guidance + (way.sampler != "euler_a"))
    found = frontier(rows)
    assert (
        list(found.steps) == [10, 20] and set(found.sampler) == {"euler_a"} and set(found.guidance) == {1.0}
    )
    assert list(found.near_best) == [False, True]
    slower_is_worse = frontier(table(lambda way, seed: way.steps * way.guidance, ("chest", "prostate")))
    assert list(slower_is_worse.dataset) == ["chest", "prostate"] and set(slower_is_worse.steps) == {10}


def test_charts_show_every_training_and_the_floor():
    figures.use_style()
    rows = table(lambda way, seed: 1 / way.steps + seed, ("prostate", "chest"))
    by_guidance = like(rows, REFERENCE, "guidance")
    fig = trade_charts.guidance_chart(by_guidance, like(rows, REFERENCE, "steps", "sampler"))
    dots = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert [len(d.get_xdata()) for d in dots] == [9, 9]  # three scales from three seeds, two data sets
    assert sum(line.get_linestyle() == "--" for line in fig.axes[0].lines) == 2
    assert {t.get_text() for t in fig.axes[3].get_legend().get_texts()} == set(SAMPLERS)
    grid = trade_charts.guidance_grid(rows[(rows.sampler == "euler_a") & (rows.condition == "embedding")])
    assert len(grid.axes[0].texts) == 6
    for seconds in ((0.036, 0.074), (0.07, 0.75)):
        drawn = rows.assign(seconds_an_image=np.linspace(*seconds, len(rows)))
        ax = trade_charts.guidance_chart(by_guidance, like(drawn, REFERENCE, "steps", "sampler")).axes[5]
        low, high = ax.get_xlim()
        assert 2 <= sum(low <= tick <= high for tick in ax.get_xticks()) <= 5  # labels that can be read
    plt.close("all")


@pytest.mark.slow
def test_rows_are_drawn_once_beside_floor_and_control(base, runs_folder):
    task = next(tasks("phantom:chest", 6, 5, base.image_side, 0, "val"))
    assert task.real.split == "val"
    settings = InversionSettings(vectors=2, steps=2, batch_size=2, record_every=1)
    drawings = ways(Drawing(5, 2.0, 2, "ddim"), (1.0,), (2,), ("dpm++",))
    rows = pd.DataFrame(way_rows(base, task, settings, drawings, [0, 1]))
    assert list(rows.condition) == ["real"] + ["untrained", *["embedding"] * 3] * 2
    assert rows[rows.condition != "real"].seconds_an_image.gt(0).all() and rows.kid.notna().all()
    pd.testing.assert_frame_equal(rows, pd.DataFrame(way_rows(base, task, settings, drawings, [0, 1])))


def test_the_seconds_of_a_picture_are_those_it_was_drawn_in(base, runs_folder):
    way = {"guidance": 1.0, "steps": 1, "seed": 0}
    sampled(base, "plain grey", 2, **way)
    (marker,) = runs_folder.glob("samples/*/done.json")
    before = marker.stat().st_mtime_ns
    assert 0 < seconds_an_image(base, "plain grey", 2, **way) < 600
    assert marker.stat().st_mtime_ns == before  # read, not drawn again
