"""Rows, summaries and trends of fidelity: what is compared with what, and what the tables say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_archives import write_chexpert, write_pcam, xray

from lib.artefacts import sampled
from lib.cohorts import cohorts
from lib.fidelity import (
    Drawing,
    Judge,
    chosen_images,
    fidelity_rows,
    nearest,
    summarise,
    tasks,
    trend,
    untrained,
)
from lib.inversion import InversionSettings
from lib.metrics import METRICS
from lib.pcam import PCam
from lib.tasks import token_of

SETTINGS = InversionSettings(steps=2, batch_size=2, record_every=1)
DRAWING = Drawing(n=5, guidance=2.0, steps=2)


def table(kid_of, values=(1, 8, 64), seeds=(0, 1, 2), dataset="prostate"):
    """A table as `fidelity_rows` gives it, in which every metric is kid_of(value, seed)."""
    rows = []
    everything = [("real", 0, 0), *(("untrained", 64, s) for s in seeds)]
    everything += [("embedding", v, s) for v in values for s in seeds]
    for condition, value, seed in everything:
        found = {"real": 0.0, "untrained": 2.0}.get(condition, kid_of(value, seed))
        row = {
            "dataset": dataset,
            "class": "tumour",
            "condition": condition,
            "vectors": value,
            "n_train": 100,
        }
        row |= {"seed": seed, "n_real": 50, "n_fake": 50}
        for metric in METRICS:
            row |= {metric: found, f"{metric}_low": found - 0.1, f"{metric}_high": found + 0.1}
        rows.append(row)
    return pd.DataFrame(rows)


def test_fewer_images_are_part_of_more_and_a_seed_chooses_them():
    five, ten, all_of_them = (chosen_images(100, n, seed=1) for n in (5, 10, 100))
    assert set(five) <= set(ten) and list(all_of_them) == list(range(100))
    assert list(five) == sorted(five) and set(five) != set(chosen_images(100, 5, seed=2))
    assert list(chosen_images(8, 50, seed=0)) == list(range(8))


def test_a_summary_has_the_interval_over_seeds():
    found = summarise(table(lambda v, s: 1.0 + 0.1 * s), "vectors")
    row = found[(found.condition == "embedding") & (found.vectors == 8)].iloc[0]
    assert row.kid == pytest.approx(1.1) and row.seeds == 3
    assert row.kid_high - row.kid == pytest.approx(
        4.303 * 0.1 / np.sqrt(3), rel=1e-3
    )  # Student's t, 2 degrees
    alone = summarise(table(lambda v, s: 1.0, seeds=(0,)), "vectors")
    assert (alone.kid_high - alone.kid_low).round(6).eq(0.2).all()


def test_a_trend_is_told_from_none():
    falls = trend(table(lambda v, s: 1.0 - 0.1 * np.log2(max(v, 1)) + 0.01 * s), "vectors").set_index(
        "metric"
    )
    assert falls.rho["kid"] < -0.9 and falls.apart.all()  # apart says nothing of which is better
    assert (falls["from"]["kid"], falls["to"]["kid"]) == (1, 64)
    assert falls.closed["kid"] == pytest.approx((2.0 - 0.41) / 2.0)
    flat = trend(table(lambda v, s: 1.0 + 0.3 * s), "vectors").set_index("metric")
    assert abs(flat.rho["kid"]) < 0.2 and not flat.apart.any()
    single = trend(table(lambda v, s: 1.0, values=(64,), seeds=(0,)), "vectors").set_index("metric")
    assert np.isnan(single.rho["kid"]) and not single.apart["kid"]


def test_nothing_that_is_compared_was_trained_on():
    for task in tasks(None, 6, 4, 64, 0):
        ids = [set(part.ids) for part in (task.train, task.real, task.second)]
        assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])
        assert [len(i) for i in ids] == [6, 4, 4]


def test_no_patient_is_on_both_sides_of_a_comparison(tmp_path):
    rows = [xray(p, study=s, Pneumonia="1.0") for p in range(1, 61) for s in range(4)]
    write_chexpert(tmp_path, rows)
    (task,) = tasks(f"chexpert:{tmp_path}", 4, 5, 8, 0)
    patients = [set(part.patients) for part in (task.train, task.real, task.second)]
    assert len(task.real) == len(task.second) > 1
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])


def test_no_more_is_read_than_is_used(tmp_path, monkeypatch):
    """PatchCamelyon has 262,144 patches."""
    write_pcam(tmp_path, {"train": 400, "valid": 400, "test": 400})
    read, plain = [], PCam._read
    monkeypatch.setattr(PCam, "_read", lambda *given: read.append(given) or plain(*given))
    list(tasks(f"pcam:{tmp_path}", 4, 4, 8, 0))
    list(cohorts(f"pcam:{tmp_path}", 8, 4, 8, 8, 8, 0))
    assert 0 < len(read) < 60


@pytest.mark.slow
def test_rows_have_floor_control_and_each_condition(base, runs_folder):
    task = next(tasks("phantom:chest", 6, 5, base.image_side, 0))
    rows = pd.DataFrame(fidelity_rows(base, task, SETTINGS, DRAWING, [(1, 6), (2, 3)], [0, 1]))
    assert list(rows.condition) == ["real"] + ["untrained", "embedding", "embedding"] * 2
    assert set(
        zip(
            rows[rows.condition == "embedding"].vectors,
            rows[rows.condition == "embedding"].n_train,
            strict=True,
        )
    ) == {(1, 6), (2, 3)}
    assert (rows.n_real == 5).all() and (rows.n_fake == 5).all()
    judge, token = Judge(base, task, DRAWING), token_of(task.name, task.label)
    first = untrained(base, replace(SETTINGS, token=token, vectors=2, seed=0))
    compared = (task.second.images[:5], sampled(base, first, DRAWING.n, **DRAWING.settings(0)))
    assert rows.kid[:2].tolist() == [judge.judge(images)["kid"] for images in compared]
    again = pd.DataFrame(fidelity_rows(base, task, SETTINGS, DRAWING, [(1, 6), (2, 3)], [0, 1]))
    pd.testing.assert_frame_equal(rows, again)
    assert len(list((runs_folder / "embeddings").glob("[0-9a-f]*"))) == 4


@pytest.mark.slow
def test_the_nearest_training_image_of_a_training_image_is_itself(base, runs_folder):
    task = next(tasks("phantom:histology", 6, 4, base.image_side, 0))
    found = nearest(Judge(base, task, DRAWING), task.train.images[2:4])
    assert (found == task.train.images[2:4]).all()


def test_untrained_vectors_are_those_that_training_starts_from(base):
    first = untrained(base, SETTINGS)
    assert first.vectors.shape == (64, base.token_width)
    assert (first.vectors == untrained(base, SETTINGS).vectors).all()
