"""The scorecard: each of the paper's eight claims beside what was measured; results/claims.csv.

python -m lib.claims            # writes results/claims.csv from the other tables of results/

Nothing is computed that those tables do not hold; a claim whose table is missing is "not measured".
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lib.config import ROOT
from lib.runs import atomic_write

MISSING = "not measured"
NO_TRUTH = "no ground truth"
OURS = ", (half of each batch real|by differences|emphasised):"  # ways of ours, after a data set's name
UNTOUCHED = 0.05  # share of untouched places that count as a lesion: 1 - lib.inpainting.SPECIFICITY
COLUMNS = ("claim", "paper", "phantoms", "real", "n", "seeds", "interval", "verdict", "control")


def claims(results: Path) -> pd.DataFrame:
    """One row a claim and data set in COLUMNS, as text; a single row where nothing was measured."""
    rows = []
    for claim, paper, stem, summarise in CLAIMS:
        found = []
        for path in _tables(results, stem):
            kind = "real" if path.name.startswith("real-") else "phantoms"
            for name, text, *rest in summarise(pd.read_csv(path)):
                values = dict(zip(COLUMNS[4:], map(str, rest), strict=True))
                if kind == "real" and summarise is _inpainting:
                    values["verdict"] = NO_TRUTH  # how bright a disc is says nothing of a lesion there
                found.append({"claim": claim, "paper": paper, kind: f"{name}: {text}"} | values)
        rows += found or [{"claim": claim, "paper": paper, "verdict": MISSING}]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(object).fillna(MISSING)


def _tables(results, stem):
    """<notebook>-<part>.csv of the phantoms, then real-<notebook>-<part>-<data set>.csv."""
    real = sorted(results.glob(f"real-{stem}-*.csv"))
    other = [f"real-{stem}-{part}-" for part in ("gap", "share")]
    real = [p for p in real if not p.name.startswith(tuple(other))]
    return [p for p in (results / f"{stem}.csv", *real) if p.is_file()]


def _sizes(table):
    """KID at one vector, and from the paper's 8 to its 64: lib.fidelity.summarise."""
    for name, part in table.groupby("dataset", sort=False):
        steps = part[part.condition == "embedding"].set_index("vectors").sort_index()
        if len(steps) < 2:
            continue
        paper = min((k for k in steps.index if k >= 8), default=steps.index[-1])
        shown = sorted({steps.index[0], paper, steps.index[-1]})
        one, few, most = (steps.loc[k] for k in (shown[0], shown[-2:][0], shown[-1]))
        verdict = "not apart"
        if few.kid_high < most.kid_low:
            verdict = "fails"
        elif few.kid_low > most.kid_high:
            verdict = "holds" if paper < shown[-1] else "in part"
        elif one.kid_low > most.kid_high:
            verdict = "in part"
        told = ", ".join(f"{steps.loc[k].kid:.3f} at {k}" for k in shown)
        control = part[part.condition == "untrained"].kid.iloc[0]
        yield (
            name,
            f"KID {told}",
            *_compared(most, (few.kid_low, few.kid_high), (most.kid_low, most.kid_high), verdict, control),
        )


def _counts(table):
    """KID from the least to the most: lib.fidelity.trend."""
    for _, r in table[(table.metric == "kid") & (table["from"] < table["to"])].iterrows():
        text = f"KID {r['first']:.3f} at {r['from']} to {r['last']:.3f} at {r['to']}"
        verdict = "not apart" if not r.apart else "holds" if r["last"] < r["first"] else "fails"
        ends = (r.first_low, r.first_high), (r.last_low, r.last_high)
        yield r.dataset, text, *_compared(r, *ends, verdict, r.untrained)


def _guidance(table):
    """KID at the paper's low scale and at the highest: lib.guidance.low_or_high."""
    for r in table[table.metric == "kid"].itertuples():
        verdict = {"low": "holds", "high": "fails"}.get(r.better, r.better)
        text = f"KID {r.at_low:.3f} at {r.low:g}, {r.at_high:.3f} at {r.high:g}; best at {r.best:g}"
        ends = (r.low_from, r.low_to), (r.high_from, r.high_to)
        yield r.dataset, text, *_compared(r, *ends, verdict, r.untrained)


def _compared(row, one, other, verdict, untrained):
    """n, seeds, interval, verdict and control of two KIDs with these intervals."""
    apart = "apart" if max(one[0], other[0]) > min(one[1], other[1]) else "they overlap"
    told = ", ".join(f"{low:.2f} to {high:.2f}" for low, high in (one, other))
    n = f"{row.n_fake:.0f} drawn, {row.n_real:.0f} real"
    return n, int(row.seeds), f"{told}: {apart}", verdict, f"untrained vectors: KID {untrained:.3f}"


def _gain(table):
    """The paper's second row against its first, by lib.gain_tables.gains."""
    ways = {"real + synthetic": "", "real + synthetic, halves": ", half of each batch real"}
    for r in table[table.kind.isin(ways) & table.in_table].itertuples():
        verdict = "holds" if r.low > 0 else "fails" if r.high < 0 else "not apart"
        yield (
            f"{r.dataset}{ways[r.kind]}",
            f"{r.against_auc:.3f} to {r.auc:.3f}",
            f"{r.n_test} test cases",
            r.seeds,
            f"gain {r.gain:+.3f} ({r.low:+.3f} to {r.high:+.3f})",
            verdict,
            f"shuffled labels: {r.control_auc:.3f}",
        )


def _graded(holds, partly, possible=False):
    """possible: whether the interval leaves it open."""
    return "holds" if holds else "in part" if partly else "not apart" if possible else "fails"


def _interpolation(table):
    for r in table[table.way == "AND"].itertuples():
        mixed = table[(table.dataset == r.dataset) & (table.way == "vectors")].rho.iloc[0]
        text, verdict = f"rank correlation of {r.quantity} {r.rho:.2f}, of one noise {r.single:.2f}", NO_TRUTH
        if r.quantity != "mean intensity":
            text += f", {r.share:.0%} of the difference"
            grows = r.rho >= 0.95 and r.rise_low > 0
            verdict = _graded(grows and r.share >= 0.5, grows, r.high >= 0.95 and r.rise_high > 0)
        interval = f"{r.low:.2f} to {r.high:.2f}"
        yield r.dataset, text, r.n, 1, interval, verdict, f"vectors mixed instead: {mixed:.2f}"


def _composition(table):
    table = table.rename(columns={"with": "shown"})
    for r in table[table.way.isin(["sum", "difference"])].itertuples():
        same = table[(table.dataset == r.dataset) & (table.finding == r.finding)].set_index("way")
        truth, alone = same.shown["phantom"], _times(same.ratio["alone"])
        obeys = r.ratio >= 3 and r.low > 1
        end = f"to {r.high:.1f}" if r.without else "or more"  # of what was never seen unasked there is no end
        verdict = _graded(obeys and r.shown >= truth / 2, obeys, r.high >= 3)
        yield (
            f"{r.dataset}, {r.finding}{', by differences' if r.way == 'difference' else ''}",
            _times(r.ratio) + ("" if np.isnan(r.ratio) else f", in {r.shown:.0%} of pictures"),
            f"{r.n_with} with, {r.n_without} without",
            1,
            "-" if np.isnan(r.ratio) else f"{r.low:.1f} {end}",
            verdict,
            f"not asked for: {r.without:.0%}; phantoms: {truth:.0%}; embedding alone: {alone}",
        )


def _times(ratio):
    return "seen in no picture" if np.isnan(ratio) else f"{ratio:.1f} times as often"


def _inpainting(table):
    disc = table[table["shape"] == "disc"]
    untouched = disc[disc.condition == "original"].set_index("dataset").lesion_high
    for (name, emphasis), part in disc.groupby(["dataset", "emphasis"], sort=False):
        found = part.set_index("condition")
        ours, control = found.loc["diseased"], found.loc["healthy"]
        more = ours.lesion_low > untouched[name] and ours.gain_low > 0  # gain: image by image
        holds = more and ours.lesion > 0.5 and control.lesion <= UNTOUCHED
        yield (
            f"{name}{', emphasised' if emphasis > 1 else ''}",
            f"lesion in {ours.lesion:.0%}",
            int(ours.n),
            1,
            f"{ours.lesion_low:.0%} to {ours.lesion_high:.0%}",
            _graded(holds, more, ours.lesion_high > untouched[name]),
            f"healthy embedding: {control.lesion:.0%}",
        )


def _sharing(table):
    for name, part in table.groupby("dataset", sort=False):
        largest = part.kilobytes.max()
        verdict = "holds" if largest < 1000 else "fails"
        yield name, f"{largest:.0f} kB at most", len(part), part.seed.nunique(), "exact", verdict, "-"


#: claim, the paper's figure, the table that measures it, and what it says: (data set, text, n, ..., control)
CLAIMS: tuple[tuple[str, str, str, Callable], ...] = (
    ("larger embeddings are better", "by eye; 64 of 8 to 64", "03_embedding_size-summary", _sizes),
    ("more images are better", "by eye; 100 of 5 to 100", "04_sample_count-trend", _counts),
    ("low guidance looks most real", "by eye; 2 of 2, 5, 8", "05_guidance-low-or-high", _guidance),
    ("synthetic images raise the AUC", "prostate: 0.780 to 0.803", "06_auc_gain-gain", _gain),
    ("disease grows with its weight", "by eye, 5 weights", "07_interpolation-correlation", _interpolation),
    ("findings combine", "by eye", "08_composition-ratio", _composition),
    ("a lesion is painted where wanted", "by eye", "09_inpainting-summary", _inpainting),
    ("an embedding is under 1 MB", "262 kB", "02_textual_inversion", _sharing),
)


def main() -> int:
    """The command line."""
    results = ROOT / "results"
    text = claims(results).to_csv(index=False, lineterminator="\n")
    atomic_write(results / "claims.csv", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
