"""Cohorts, what is trained on what, and what the tables and charts of the AUC's gain say."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from lib import figures, gap, trade_charts
from lib.auc import auc
from lib.classify import Cases, ClassifierSettings, ClassifyError
from lib.cohorts import CohortError, cohorts
from lib.embedding import Embedding
from lib.fidelity import Drawing
from lib.gain import (
    BOTH,
    FEW,
    HALVES,
    REAL,
    SHUFFLED,
    SYNTHETIC,
    Outcome,
    Plan,
    Synthesis,
    class_evidence,
    class_fidelity,
    outcomes,
    shuffled,
)
from lib.gain_tables import curves, gains, rows_of, summarise
from lib.inversion import InversionSettings

TINY = ClassifierSettings(width=4, steps=4, batch_size=4, validate_every=2)
NO_BASE = SimpleNamespace(device="cpu", source="")
PLAN = Plan((8, 16), (0, 4, 8), 2, (0, 1), (0,))


@pytest.fixture(scope="module")
def cohort():
    return next(cohorts("phantom:prostate", 16, 2, 8, 40, 64, 0))


def folder(place, splits, n=10, classes=("healthy", "sick")):
    """A folder of tiny pictures: n of each class in each split."""
    rng = np.random.default_rng(0)
    for split in splits:
        for label in classes:
            (place / split / label).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 255, (12, 12), dtype=np.uint8)
                Image.fromarray(pixels).save(place / split / label / f"{split}{label}{i}.png")
    return str(place)


class TestCohorts:
    def patients(self, parts):
        return {patient for part in parts for patient in part.patients}

    def test_no_patient_is_in_two_parts(self, cohort):
        train, validation, test = map(self.patients, (cohort.train, cohort.validation, cohort.test))
        assert not (train & validation or train & test or validation & test)
        assert [len(p) for p in (*cohort.train, *cohort.validation, *cohort.test)] == [8, 8, 4, 4, 20, 20]
        assert cohort.labels == ("normal", "tumour") and cohort.available == 16
        assert cohort.test_labels.sum() == 20 and len(cohort.test_patients) == 40

    def test_the_diseased_class_is_the_last(self):
        names = [(c.name, *c.labels) for c in cohorts(None, 4, 2, 4, 4, 16, 0)]
        assert names == [
            ("prostate", "normal", "tumour"),
            ("chest", "healthy", "pneumonia"),
            ("histology", "normal", "tumour"),
        ]

    def test_without_a_split_val_training_patients_are_held_out(self, tmp_path):
        (found,) = cohorts(folder(tmp_path, ("train", "test")), 20, 4, 200, 200, 16, 0)
        assert [len(p) for p in (*found.train, *found.validation, *found.test)] == [8, 8, 2, 2, 10, 10]
        assert not self.patients(found.train) & self.patients(found.validation)
        assert [held for *_, held in found.parts] == [None, None]

    def test_a_split_val_is_taken_as_it_is(self, tmp_path):
        (found,) = cohorts(folder(tmp_path, ("train", "val", "test")), 20, 4, 12, 8, 16, 0)
        assert [len(p) for p in (*found.train, *found.validation, *found.test)] == [10, 10, 6, 6, 4, 4]
        assert found.validation[0].split == "val" and len(found.parts[0][3]) == 4

    @pytest.mark.parametrize(
        "n, classes, said", [(10, ("healthy",), "one class"), (3, ("a", "b"), "too few")]
    )
    def test_what_cannot_be_diagnosed_is_said(self, tmp_path, n, classes, said):
        with pytest.raises(CohortError, match=said):
            list(cohorts(folder(tmp_path, ("train", "test"), n, classes), 6, 2, 4, 4, 16, 0))


class TestPlan:
    def test_the_papers_table_comes_first(self):
        found = Plan((50, 200), (0, 500, 2000), 10, (0,), (0,)).conditions(200)
        assert [(c.kind, c.n_real, c.n_synthetic, c.embedding_images) for c in found if c.in_table] == [
            (REAL, 200, 0, 0),
            (BOTH, 200, 2000, 100),
            (HALVES, 200, 2000, 100),
            (SYNTHETIC, 0, 2000, 100),
            (FEW, 0, 2000, 10),
            (SHUFFLED, 200, 0, 0),
        ]
        assert [(c.kind, c.n_real, c.n_synthetic, c.embedding_images) for c in found if not c.in_table] == [
            (BOTH, 200, 500, 100),
            (REAL, 50, 0, 0),
            (BOTH, 50, 2000, 25),
        ]
        assert found[: sum(c.in_table for c in found)] == [c for c in found if c.in_table]

    def test_there_are_no_more_real_cases_than_there_are(self):
        found = Plan((50, 100, 200), (0, 8), 60, (0,), (0,)).conditions(68)
        assert {c.n_real for c in found} == {0, 50, 68}
        assert next(c for c in found if c.kind == FEW).embedding_images == 34

    @pytest.mark.parametrize("seeds, origins", [((), (0,)), ((0,), ())])
    def test_a_plan_without_a_seed_is_refused(self, seeds, origins):
        with pytest.raises(ClassifyError, match="seeds"):
            Plan((50,), (0, 2), None, seeds, origins)

    @pytest.mark.parametrize("reals, synthetics", [((51,), (0, 2)), ((50,), (0,)), ((), (2,)), ((0,), (2,))])
    def test_numbers_that_make_no_table_are_refused(self, reals, synthetics):
        with pytest.raises(ClassifyError, match="even numbers"):
            Plan(reals, synthetics, None, (0,), (0,))


class Fake:
    """A Synthesis whose pictures are noise: it notes what it was asked for."""

    def __init__(self):
        self.asked = []

    def cases(self, base, cohort, n_images, n, seed):
        self.asked.append((n_images, n, seed))
        images = np.random.default_rng([n_images, n, seed]).random((n, 3, 64, 64), dtype=np.float32)
        return Cases.of(images[: n // 2], images[n // 2 :])


@pytest.fixture(scope="module")
def found(cohort, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MDB_RUNS", str(tmp_path_factory.mktemp("runs")))
        synthesis = Fake()
        yield outcomes(NO_BASE, cohort, synthesis, PLAN, TINY), synthesis.asked


def test_every_condition_is_trained_from_each_seed_and_scored_once(found, cohort):
    results, asked = found
    assert [o.condition for o in results] == PLAN.conditions(16)
    assert all(o.scores.shape == (2, 40) and len(o.rows) == 2 for o in results)
    assert len({o.scores.tobytes() for o in results}) == len(results)  # no two are the same training
    table = rows_of(results)
    expected = [float(auc(cohort.test_labels, o.scores[i])) for o in results for i in (0, 1)]
    assert table.auc.tolist() == pytest.approx(expected)
    assert set(asked) == {(8, 8, 0), (2, 8, 0), (4, 8, 0)}  # the most cases, of as many images as are real


class Stop(Exception):
    """Raised where a test has seen enough."""


def test_fewer_real_cases_are_those_that_their_embeddings_saw(cohort, monkeypatch):
    """For 8 of 16 real cases and embedding seed 3: the same four a class train embedding and classifier."""
    seen = {}
    fewer = next(c for c in PLAN.conditions(16) if (c.kind, c.n_real) == (REAL, 8))

    def diagnose(real, **others):
        seen.update(others, classifier=real)
        raise Stop

    def train(base, parts, settings):
        seen["embedding"] = [images for _, _, images, _ in parts]
        raise Stop

    monkeypatch.setattr("lib.gain.diagnose", diagnose)
    monkeypatch.setattr("lib.gain.trained_all", train)
    monkeypatch.setattr(Plan, "conditions", lambda self, available: [fewer])
    with pytest.raises(Stop):
        outcomes(NO_BASE, cohort, Fake(), replace(PLAN, embedding_seeds=(3,)), TINY)
    real = seen["classifier"]
    for name, parts in (("validation", cohort.validation), ("test", cohort.test)):
        assert (seen[name].images == Cases.of(*parts).images).all()
        assert (seen[name].labels == Cases.of(*parts).labels).all()
    for which in (0, 1):
        with pytest.raises(Stop):
            Synthesis(InversionSettings(), Drawing(0, 2.0, 1)).pictures(None, cohort, which, 4, 4, 3)
        assert (real.images[real.labels == bool(which)] == seen["embedding"][which].images).all()
    assert len(real) == 8 and not (real.images[:4] == cohort.train[0].images[:4]).all()


def test_shuffled_labels_mean_nothing_and_keep_their_number(cohort):
    cases = Cases.of(*cohort.train)
    other = shuffled(cases, 1)
    assert (other.images == cases.images).all() and other.labels.sum() == cases.labels.sum()
    assert (shuffled(cases, 1).labels == other.labels).all()
    assert (shuffled(cases, 2).labels != other.labels).any()


def test_shuffled_labels_agree_with_true_ones_as_often_as_not():
    cases = Cases.of(*np.zeros((2, 100, 3, 2, 2), np.float32))
    for seed in range(5):
        agreement = shuffled(cases, seed).labels == cases.labels
        assert agreement[:100].sum() == agreement[100:].sum() == 50
    uneven = shuffled(Cases(cases.images[:120], cases.labels[:120]), 0)
    assert uneven.labels[:100].sum() == 17 and uneven.labels[100:].sum() == 3


@pytest.mark.parametrize("n", [1, 5, 25, 81])
def test_of_an_odd_number_in_each_class_as_many_labels_of_each_are_left(n):
    labels = shuffled(Cases.of(*np.zeros((2, n, 3, 2, 2), np.float32)), 0).labels
    assert labels.sum() == n and abs(2 * labels[:n].sum() - n) <= 1
    assert len(shuffled(Cases.of(*np.zeros((2, n, 3, 2, 2), np.float32)), 0).take(2 * n)) == 2 * n


def known(cohort, signals, seeds=3):
    """Outcomes whose scores hold `signals[i]` deviations of truth."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((seeds, len(cohort.test_labels)))
    return [
        Outcome(
            cohort, c, [{"seed": s, "auc": 0.5} for s in range(seeds)], shared + signal * cohort.test_labels
        )
        for c, signal in zip(PLAN.conditions(16), signals, strict=True)
    ]


@pytest.fixture(scope="module")
def story(cohort):
    """real, both, halves, synthetic, few, shuffled, then both 4, real 8, both 8."""
    return known(cohort, (1.0, 2.5, 2.0, 1.0, 0.0, 0.0, 1.5, 0.4, 1.0))


def test_gains_are_told_against_the_right_rows(story):
    found = gains(story)
    assert list(zip(found.kind, found.against, found.n_real, found.n_synthetic, strict=True)) == [
        (BOTH, REAL, 16, 8),
        (HALVES, REAL, 16, 8),
        (SYNTHETIC, REAL, 0, 8),
        (FEW, SYNTHETIC, 0, 8),
        (BOTH, REAL, 16, 4),
        (BOTH, REAL, 8, 8),
    ]
    areas = [o.scores for o in story]
    labels = story[0].cohort.test_labels
    mean = lambda i: auc(labels, areas[i]).mean()  # noqa: E731
    pairs = ((1, 0), (2, 0), (3, 0), (4, 3), (6, 0), (8, 7))
    expected = [mean(i) - mean(j) for i, j in pairs]
    assert found.gain.tolist() == pytest.approx(expected)
    assert found.auc.tolist() == pytest.approx([mean(i) for i, _ in pairs])
    assert (found.auc - found.against_auc).tolist() == pytest.approx(expected)
    assert found.control_auc.tolist() == pytest.approx([mean(5)] * 6)
    assert found.low[0] > 0 and found.high[3] < 0 and found.low[2] <= 0 <= found.high[2]
    assert found.delong[0] < 0.05 < found.delong[2] and found.delong_share[0] > 0.6
    assert (found.seeds == 3).all() and (found.n_test == 40).all()


def test_of_one_test_case_a_class_no_p_value_is_told(cohort):
    one = replace(cohort, test=tuple(part.subset([0]) for part in cohort.test))
    found = gains(known(one, (1.0, 2.5, 2.0, 1.0, 0.0, 0.0, 1.5, 0.4, 1.0)))
    assert found[["delong", "delong_share"]].isna().all(axis=None) and found.gain.between(-1, 1).all()


def test_a_summary_sets_the_papers_figures_beside_its_table_only(story):
    found = summarise(story)
    assert found.paper.dropna().tolist() == [0.780, 0.803, 0.766, 0.562]
    assert found[found.kind == SHUFFLED].paper.isna().all() and found[~found.in_table].paper.isna().all()
    assert (found.low < found.auc).all() and (found.auc < found.high).all() and (found.sd > 0).all()
    control = found[found.kind == SHUFFLED].iloc[0]
    assert control.low < 0.5 < control.high


def test_a_folder_called_prostate_is_not_the_papers_modality(story):
    def elsewhere(cohort):
        return replace(cohort, test=tuple(replace(part, spec="prostate") for part in cohort.test))

    found = summarise([replace(outcome, cohort=elsewhere(outcome.cohort)) for outcome in story])
    assert found.paper.isna().all() and found.auc.equals(summarise(story).auc)


def test_charts_show_each_training_and_each_row(story):
    figures.use_style()
    rows, summary, lines = rows_of(story), summarise(story), curves(story)
    fig = trade_charts.auc_chart(rows[rows.in_table], summary[summary.in_table])
    dots = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert [len(d.get_xdata()) for d in dots] == [3] * 6
    assert len(set(lines.kind)) == 6 and lines.groupby("kind").true.max().eq(1).all()
    assert len(trade_charts.roc_chart(lines).axes[0].get_legend().get_texts()) == 6
    dose = trade_charts.dose_chart(summary)
    points = [c.lines[0].get_xdata().tolist() for c in dose.axes[0].containers]
    assert points[0] == [0, 4, 8] and points[1] == pytest.approx([8], rel=0.05)  # drawn alike, in halves
    assert [c.lines[0].get_xdata().tolist() for c in dose.axes[1].containers] == [[8, 16], [8, 16]]
    alone = trade_charts.dose_chart(summary[summary.n_real.isin((0, 16))])
    assert len(alone.axes) == 1  # and not an empty one beside it
    plt.close("all")


@pytest.mark.slow
def test_each_class_is_compared_with_both(base, cohort, runs_folder):
    settings = InversionSettings(vectors=2, steps=2, batch_size=2, record_every=1)
    rows = class_fidelity(base, cohort, Synthesis(settings, Drawing(0, 2.0, 1, "ddim")), PLAN)
    assert [(r["class"], r["pictures"], r["of"]) for r in rows] == [
        (label, pictures, of)
        for label in cohort.labels
        for pictures in ("real", "synthetic")
        for of in cohort.labels
    ]
    assert all(r["n_fake"] == 4 and np.isfinite(r["kid"]) for r in rows)
    few = replace(cohort, test=tuple(part.subset(slice(0, 3)) for part in cohort.test))
    rows = class_fidelity(base, few, Synthesis(settings, Drawing(0, 2.0, 1, "ddim")), PLAN)
    assert all(r["n_real"] == 3 and np.isnan(r["kid"]) for r in rows)  # too few for an interval


def test_evidence_is_what_two_embeddings_disagree_on(base, cohort):
    generator = torch.Generator().manual_seed(0)
    one, other = (
        Embedding(0.3 * torch.randn(2, base.token_width, generator=generator), token)
        for token in ("<one>", "<other>")
    )

    def found(*pair):
        return class_evidence(base, cohort, SimpleNamespace(embeddings=lambda *_: pair), PLAN, draws=2)

    right, swapped, same = found(one, other), found(other, one), found(one, one)
    assert right["auc"] == pytest.approx(1 - swapped["auc"]) and right["n_test"] == 40
    assert right["score_healthy"] == pytest.approx(-swapped["score_healthy"]) != 0
    assert (same["auc"], same["low"], same["high"], same["score_diseased"]) == (0.5, 0.5, 0.5, 0)
    assert right["floor_steps"] == 0 and np.isnan(right["floor_auc"])


@pytest.mark.slow
def test_evidence_of_whole_networks_is_of_those_trained_on_each_class(base, cohort, runs_folder, monkeypatch):
    monkeypatch.setattr(gap, "fine_tune", partial(gap.fine_tune, batch_size=2, every=1))
    pair = [Embedding(torch.zeros(1, base.token_width), token) for token in ("<one>", "<other>")]

    def found(cohort):
        synthesis = SimpleNamespace(embeddings=lambda *_: pair)
        return class_evidence(base, cohort, synthesis, PLAN, floor_steps=2, draws=2)

    row = found(cohort)
    assert row["auc"] == 0.5 != row["floor_auc"] and row["floor_low"] < row["floor_auc"] < row["floor_high"]
    parts = (cohort.parts[::-1], cohort.validation[::-1], cohort.test[::-1])
    turned = replace(cohort, **dict(zip(("parts", "validation", "test"), parts, strict=True)))
    assert found(turned)["floor_auc"] == pytest.approx(row["floor_auc"])
