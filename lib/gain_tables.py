"""What the classifiers of lib.gain say: areas, gains and ROC curves, over test patients and trainings."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lib.auc import auc, auc_interval, compare, roc
from lib.gain import BOTH, FEW, HALVES, REAL, SHUFFLED, SYNTHETIC, Outcome

#: The paper's AUC and its standard deviation over trainings (prostate; its table of ResNet-18).
PAPER = {REAL: (0.780, 0.017), BOTH: (0.803, 0.009), SYNTHETIC: (0.766, 0.020), FEW: (0.562, 0.036)}
#: kind -> the kind that it is compared with; of as many real cases for the first, of the table for the others
AGAINST = {BOTH: REAL, HALVES: REAL, SYNTHETIC: REAL, FEW: SYNTHETIC}


def rows_of(found: Sequence[Outcome]) -> pd.DataFrame:
    """One row a training."""
    return pd.DataFrame([outcome.naming | row for outcome in found for row in outcome.rows])


def summarise(found: Sequence[Outcome]) -> pd.DataFrame:
    """One row a condition: mean AUC, deviation over trainings, interval over patients and trainings.

    paper, paper_sd: the paper's, beside the rows of its table.
    """
    table = []
    for outcome in found:
        areas = auc(outcome.cohort.test_labels, outcome.scores)
        area = auc_interval(outcome.cohort.test_labels, outcome.scores, outcome.cohort.test_patients)
        row = outcome.naming | {"auc": area.value, "low": area.low, "high": area.high}
        row["sd"] = areas.std(ddof=1) if len(areas) > 1 else np.nan
        phantom = outcome.cohort.test[0].spec == "phantom:prostate"  # a folder of that name is no phantom
        known = PAPER if outcome.condition.in_table and phantom else {}
        row["paper"], row["paper_sd"] = known.get(outcome.condition.kind, (np.nan, np.nan))
        table.append(row | {"seeds": len(areas), "n_test": len(outcome.cohort.test_labels)})
    return pd.DataFrame(table)


def gains(found: Sequence[Outcome]) -> pd.DataFrame:
    """Paired differences of AUC: with synthetic images less without; synthetic less real; few less many.

    gain, low, high: bootstrap over patients and trainings; auc, against_auc, control_auc: means over the
    trainings of the row, of what it is compared with, and of shuffled labels. delong: the median p value
    of the pairs of trainings, delong_share: the share of these below 0.05; nan with one case of a class.
    """
    table = []
    for outcome in found:
        against = _baseline(outcome, found)
        if against is None:
            continue
        compared = compare(
            outcome.cohort.test_labels, against.scores, outcome.scores, outcome.cohort.test_patients
        )
        row = outcome.naming | {"against": against.condition.kind, "gain": compared.difference.value}
        labels = outcome.cohort.test_labels
        control = next(o for o in found if o.cohort is outcome.cohort and o.condition.kind == SHUFFLED)
        for name, of in (("auc", outcome), ("against_auc", against), ("control_auc", control)):
            row[name] = auc(labels, of.scores).mean()
        row |= {"low": compared.difference.low, "high": compared.difference.high}
        p = np.array(compared.p_values)
        row |= {
            "delong": float(np.median(p)),
            "delong_share": float((p < 0.05).mean() if np.isfinite(p).all() else np.nan),
        }
        table.append(row | {"seeds": len(p), "n_test": len(outcome.cohort.test_labels)})
    return pd.DataFrame(table)


def _baseline(outcome, found):
    """The outcome that one is compared with, or None."""
    kind, n_real = outcome.condition.kind, outcome.condition.n_real
    for other in found:
        alike = other.condition.n_real == n_real if kind == BOTH else other.condition.in_table
        if other.cohort is outcome.cohort and other.condition.kind == AGAINST.get(kind) and alike:
            return other
    return None


def curves(found: Sequence[Outcome]) -> pd.DataFrame:
    """ROC curves of the table's rows and control: mean, lowest and highest over trainings, at 101 places."""
    table = []
    for outcome in found:
        if not outcome.condition.in_table:
            continue
        false, true = roc(outcome.cohort.test_labels, outcome.scores)
        part = {"false": false, "true": true.mean(0), "low": true.min(0), "high": true.max(0)}
        table.append(pd.DataFrame(outcome.naming | part))
    return pd.concat(table, ignore_index=True)
