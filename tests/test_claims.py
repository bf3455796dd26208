"""The scorecard reads verdicts from tables, and says so where there are none."""

import numpy as np
import pandas as pd
import pytest

from lib import readme
from lib.claims import CLAIMS, MISSING, NO_TRUTH, UNTOUCHED, claims
from lib.fidelity import METRICS, summarise, trend
from lib.inpainting import SPECIFICITY


def test_nothing_measured_is_said(tmp_path):
    table = claims(tmp_path)
    assert len(table) == len(CLAIMS) == 8 and (table.verdict == MISSING).all()


@pytest.mark.parametrize(
    "shown, control, verdict",
    [
        (0.8, 0.05, "holds"),
        (0.8, 0.09, "in part"),
        (0.8, 0.4, "in part"),
        (0.8, 0.65, "not apart"),
        (0.0, 0.0, "fails"),
    ],
)
def test_inpainting_is_judged_beside_its_controls(tmp_path, shown, control, verdict):
    row = {"dataset": "prostate", "shape": "disc", "emphasis": 1.0, "n": 20}
    rows = [
        row
        | {"condition": c, "lesion": v, "lesion_low": v - 0.1, "lesion_high": v + 0.1}
        | {"gain_low": v - control - 0.2}
        for c, v in (("original", 0.05), ("diseased", shown), ("healthy", control))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "09_inpainting-summary.csv", index=False)
    assert pytest.approx(1 - SPECIFICITY) == UNTOUCHED
    found = claims(tmp_path)
    mine = found[found.phantoms.str.startswith("prostate")].iloc[0]
    assert mine.verdict == verdict and mine.n == "20" and f"{control:.0%}" in mine.control
    pd.DataFrame(rows).to_csv(tmp_path / "real-09_inpainting-summary-mine.csv", index=False)
    found = claims(tmp_path)
    assert set(found[found.real.str.contains("lesion in")].verdict) == {NO_TRUTH}


def test_at_a_glance_several_verdicts_of_a_data_set_are_counted(tmp_path):
    row = {"way": "sum", "n_with": 9, "n_without": 9, "with": 0.4, "without": 0.1, "low": 2.0, "high": 9.0}
    findings = (("chest", "effusion", 4.0), ("chest", "pneumonia", 1.0), ("histology", "tumour", 1.0))
    rows = [row | {"dataset": d, "finding": f, "ratio": r, "high": 2 * r} for d, f, r in findings]
    others = [
        r | {"way": way, "ratio": 4.0, "high": 9.0}
        for r in rows
        for way in ("alone", "difference", "phantom")
    ]
    pd.DataFrame(rows + others).to_csv(tmp_path / "08_composition-ratio.csv", index=False)
    file = {"class": "a", "kilobytes": 34, "seed": 0}
    for name, path in (("histology", "02_textual_inversion"), ("pcam", "real-02_textual_inversion-pcam")):
        pd.DataFrame([file | {"dataset": name}]).to_csv(tmp_path / f"{path}.csv", index=False)
    lines = readme.glance(tmp_path).splitlines()
    assert lines[0] == "| claim | chest | histology | pcam (real) |"
    assert "| findings combine | 1 of 2 hold | fails | - |" in lines
    assert "| findings combine, by differences (ours) | holds | holds | - |" in lines
    assert "| an embedding is under 1 MB | - | holds | holds |" in lines
    assert f"| more images are better | {' | '.join('---')} |" in lines


@pytest.mark.parametrize(
    "ratio, low, high, without, verdict, interval",
    [
        (4.0, 2.0, 9.0, 0.1, "holds", "2.0 to 9.0"),
        (45.0, 8.0, 23714.7, 0.0, "holds", "8.0 or more"),  # of nothing seen unasked
        (2.0, 1.0, 4.2, 0.1, "not apart", "1.0 to 4.2"),
        (1.2, 0.8, 1.7, 0.1, "fails", "0.8 to 1.7"),
        (np.nan, np.nan, np.nan, 0.0, "fails", "-"),
    ],
)
def test_what_an_interval_leaves_open_does_not_fail(tmp_path, ratio, low, high, without, verdict, interval):
    row = {
        "dataset": "chest",
        "finding": "effusion",
        "n_with": 9,
        "n_without": 9,
        "with": 0.4,
        "without": without,
    }
    row |= {"low": low, "high": high}
    rows = [
        row | {"way": "sum", "ratio": ratio},
        *(row | {"way": w, "ratio": 1.0} for w in ("alone", "phantom")),
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "08_composition-ratio.csv", index=False)
    (mine,) = claims(tmp_path).query("claim == 'findings combine'").itertuples()
    assert mine.verdict == verdict and mine.interval == interval


@pytest.mark.parametrize(
    "rho, low, high, rise_low, rise_high, verdict",
    [
        (1.0, 0.98, 1.0, 0.1, 0.3, "holds"),
        (0.83, 0.47, 0.98, 0.01, 0.06, "not apart"),
        (0.83, 0.47, 0.90, 0.01, 0.06, "fails"),
        (1.0, 0.98, 1.0, -0.3, -0.1, "fails"),
    ],
)
def test_growth_that_an_interval_leaves_open_does_not_fail(
    tmp_path, rho, low, high, rise_low, rise_high, verdict
):
    row = {
        "dataset": "chest",
        "quantity": "ctr",
        "rho": rho,
        "low": low,
        "high": high,
        "single": 0.9,
        "n": 32,
    }
    row |= {"share": 0.8, "rise_low": rise_low, "rise_high": rise_high}
    pd.DataFrame([row | {"way": way} for way in ("AND", "vectors")]).to_csv(
        tmp_path / "07_interpolation-correlation.csv", index=False
    )
    (mine,) = claims(tmp_path).query("claim == 'disease grows with its weight'").itertuples()
    assert mine.verdict == verdict


@pytest.mark.parametrize(
    "gain, low, high, verdict",
    [
        (0.03, 0.01, 0.06, "holds"),
        (0.03, -0.01, 0.06, "not apart"),
        (-0.02, -0.05, 0.01, "not apart"),
        (-0.02, -0.05, -0.01, "fails"),
    ],
)
def test_the_gain_is_that_of_the_papers_table(tmp_path, gain, low, high, verdict):
    row = {"dataset": "prostate", "kind": "real + synthetic", "in_table": True, "gain": gain, "low": low}
    row |= {"high": high, "auc": 0.81, "against_auc": 0.78, "control_auc": 0.49, "n_test": 200, "seeds": 5}
    rows = [row, row | {"in_table": False}, row | {"kind": "synthetic"}]
    pd.DataFrame(rows).to_csv(tmp_path / "06_auc_gain-gain.csv", index=False)
    found = claims(tmp_path)
    (mine,) = found[found.claim == "synthetic images raise the AUC"].itertuples()
    assert mine.verdict == verdict and "0.780 to 0.810" in mine.phantoms and "0.490" in mine.control


def fidelity_row(condition, by, value, kid, low, high):
    row = {"dataset": "prostate", "class": "tumour", "condition": condition, by: value}
    row |= {"n_real": 100, "n_fake": 48}
    return row | {f"{m}{end}": v for m in METRICS for end, v in (("", kid), ("_low", low), ("_high", high))}


@pytest.mark.parametrize(
    "last, verdict", [((0.5, 0.4, 0.6), "holds"), ((0.9, 0.8, 1.2), "not apart"), ((2.0, 1.9, 2.2), "fails")]
)
def test_the_trend_may_go_the_wrong_way(tmp_path, last, verdict):
    by = "n_train"
    rows = [fidelity_row("real", by, 0, 0.0, 0.0, 0.0), fidelity_row("untrained", by, 100, 9.0, 9.0, 9.0)]
    rows += [fidelity_row("embedding", by, 5, 1.0, 0.9, 1.1), fidelity_row("embedding", by, 100, *last)]
    trend(pd.DataFrame(rows), by).to_csv(tmp_path / "04_sample_count-trend.csv", index=False)
    (mine,) = (r for r in claims(tmp_path).itertuples() if r.phantoms.startswith("prostate"))
    assert mine.verdict == verdict


def test_one_number_alone_is_no_trend(tmp_path):
    for by, stem in (("n_train", "04_sample_count-trend"), ("vectors", "03_embedding_size-summary")):
        rows = [fidelity_row("real", by, 0, 0.0, 0.0, 0.0), fidelity_row("untrained", by, 5, 9.0, 9.0, 9.0)]
        rows = pd.DataFrame([*rows, fidelity_row("embedding", by, 5, 1.0, 0.9, 1.1)])
        told = trend(rows, by) if by == "n_train" else summarise(rows, by)
        told.to_csv(tmp_path / f"{stem}.csv", index=False)
    assert (claims(tmp_path).verdict == MISSING).all()


@pytest.mark.parametrize(
    "at_8, verdict",
    [
        ((1.0, 0.8, 1.2), "holds"),
        ((0.6, 0.4, 0.8), "in part"),  # 64 are better than one, but not than the paper's least
        ((0.1, 0.0, 0.2), "fails"),
        (None, "in part"),
    ],
)
def test_sizes_are_judged_over_the_papers_range(tmp_path, at_8, verdict):
    steps = {1: (4.0, 3.0, 5.0), 8: at_8, 64: (0.5, 0.4, 0.6)}
    rows = [fidelity_row("untrained", "vectors", 64, 9.0, 9.0, 9.0)]
    rows += [fidelity_row("embedding", "vectors", k, *found) for k, found in steps.items() if found]
    table = pd.DataFrame(rows).assign(seeds=3)
    table.to_csv(tmp_path / "03_embedding_size-summary.csv", index=False)
    (mine,) = (r for r in claims(tmp_path).itertuples() if r.phantoms.startswith("prostate"))
    assert mine.verdict == verdict and "9.000" in mine.control
    table = table[table.vectors > 1]  # the paper's own sizes
    table.to_csv(tmp_path / "03_embedding_size-summary.csv", index=False)
    told = [r.verdict for r in claims(tmp_path).itertuples() if r.phantoms.startswith("prostate")]
    assert told == ([] if at_8 is None else ["not apart" if verdict == "in part" else verdict])


@pytest.mark.parametrize("better, verdict", [("low", "holds"), ("high", "fails"), ("not apart", "not apart")])
def test_low_guidance_is_judged_by_kid(tmp_path, better, verdict):
    row = {"dataset": "chest", "metric": "kid", "low": 2.0, "high": 8.0, "at_low": 0.5, "at_high": 0.9}
    row |= {"low_from": 0.4, "low_to": 0.6, "high_from": 0.7, "high_to": 1.1}
    row |= {"better": better, "best": 1.0, "untrained": 3.0, "seeds": 3, "n_real": 100, "n_fake": 64}
    rows = [row, row | {"metric": "coverage", "better": "high"}]
    pd.DataFrame(rows).to_csv(tmp_path / "05_guidance-low-or-high.csv", index=False)
    found = claims(tmp_path)
    (mine,) = found[found.claim == "low guidance looks most real"].itertuples()
    assert mine.verdict == verdict and mine.n == "64 drawn, 100 real" and "3.000" in mine.control
    assert mine.interval.startswith("0.40 to 0.60, 0.70 to 1.10: ")


def test_a_gap_of_other_numbers_of_vectors_keeps_its_columns(tmp_path):
    row = {"dataset": "chest", "class": "a", "empty": 0.4, "caption": 0.39, "1 vectors": 0.35}
    row |= {"64 vectors": 0.3, "fine-tuned": 0.2, "share_1": 0.25, "share_64": 0.5, "n_test": 9, "seeds": 1}
    for folder, steps in ((tmp_path, 1500), (tmp_path / "updates-200", 200)):
        folder.mkdir(exist_ok=True)
        pd.DataFrame([row | {"sd_64": 0.002}, row | {"dataset": str(steps)}]).to_csv(
            folder / "02_textual_inversion-share.csv", index=False
        )
        pd.DataFrame([{"steps": steps}]).to_csv(folder / "02_textual_inversion.csv", index=False)
    losses = "0.4000 | 0.3900 | 0.3500 | - | 0.3000 | 0.2000"
    several, rest = f"{losses} | 50% (sd 1.0 points) | 70% | 9 | 1 |", f"{losses} | 50% | 70% | 9 | 1 |"
    assert readme.gap(tmp_path).splitlines()[2:] == [
        f"| chest, a (phantom) | 200 | {several}",
        f"| chest, a (phantom) | 1500 | {several}",
        f"| 1500, a (phantom) | 1500 | {rest}",
        f"| 200, a (phantom) | 200 | {rest}",
    ]
