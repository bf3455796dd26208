"""Writes the tables of README.md from results/*.csv, so that no number in them is typed by hand.

python -m lib.readme            # rewrites README.md
python -m lib.readme --check    # exits with 1 if it is out of date
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lib.claims import MISSING, OURS, claims
from lib.config import ROOT
from lib.runs import atomic_write

AIMS = {"phantom": 0.7, "real": 0.5}  # shares of the inversion gap that were meant to be closed


def captions(results: Path) -> str:
    """How the base obeys captions that it has never seen."""
    table = pd.read_csv(results / "01_data-captions.csv")
    rows = [
        (
            r.attribute,
            f"{r.hits:.0%} ({r.low:.0%} to {r.high:.0%})",
            f"{r.chance:.0%}",
            f"{r.ceiling:.0%}",
            r.n,
        )
        for r in table.itertuples()
    ]
    return markdown(("attribute", "read back (95 % interval)", "chance", "ceiling", "captions"), rows)


def gap(results: Path) -> str:
    """The inversion gap on phantoms and, where they were measured, on real images.

    After as many updates as `full` has, and after others, in folders of their own: `updates-200` for example.
    """
    stem, rows = "02_textual_inversion", []
    for folder in (results, *sorted(results.glob("updates-*"))):
        shares = [folder / f"{stem}-share.csv", *sorted(folder.glob(f"real-{stem}-share-*.csv"))]
        for path in filter(Path.is_file, shares):
            runs = pd.read_csv(folder / path.name.replace("-share", ""))
            kind = "real" if path.name.startswith("real-") else "phantom"
            for _, r in pd.read_csv(path).iterrows():
                conditions = ("empty", "caption", *(f"{k} vectors" for k in (1, 8, 64)), "fine-tuned")
                losses = [f"{r[c]:.4f}" if c in r else "-" for c in conditions]
                closed = (_share(r), f"{AIMS[kind]:.0%}") if "share_64" in r else ("-", "-")
                numbers = int(r["n_test"]), int(r["seeds"])
                name = f"{r['dataset']}, {r['class']} ({kind})"
                rows.append((name, runs.steps.iloc[0], *losses, *closed, *numbers))
    first = [row[0] for row in rows]
    rows.sort(key=lambda row: (first.index(row[0]), row[1]))
    names = ("empty prompt", "best caption", "1 vector", "8 vectors", "64 vectors", "fine-tuned U-Net")
    return markdown(("images", "updates", *names, "share closed by 64", "aim", "n", "seeds"), rows)


def _share(row) -> str:
    """The share that 64 vectors close, with its standard deviation over seeds where there are several."""
    spread = row.get("sd_64", np.nan) / (row["empty"] - row["fine-tuned"])
    return f"{row.share_64:.0%}" + (f" (sd {100 * spread:.1f} points)" if np.isfinite(spread) else "")


def updates(results: Path) -> str:
    """What this project's recipe reaches, and in how many updates, beside the paper's trainer."""
    rows = []
    for table in _everywhere(results, "11_training_dynamics-reached", "preset_updates"):
        for _, r in table[table.recipe == "ours"].iterrows():
            there = "not reached" if np.isnan(r.updates) else f"{r.updates:.0f} ({r.share:.1%})"
            rows.append(
                (
                    f"{r['dataset']}, {r['class']}",
                    f"{r.preset:.4f} after {r.preset_updates:.0f}",
                    f"{r.best:.4f} after {r.best_updates:.0f}",
                    there,
                    f"{r.preset_kid:.2f}",
                    f"{r.best_kid:.2f}",
                    int(r.seeds),
                )
            )
    names = ("the paper's trainer: loss", "ours: loss", "updates to that loss", "its KID", "our KID", "seeds")
    return markdown(("images", *names), rows)


def embeddings(results: Path) -> str:
    """What one embedding costs and weighs."""
    table = pd.read_csv(results / "02_textual_inversion.csv")
    rows = [
        (
            f"{r['dataset']}, {r['class']}",
            r["images"],
            r["vectors"],
            f"{r['kilobytes']:.0f} kB",
            r["steps"],
            f"{r['seconds']:.0f}",
        )
        for _, r in table.iterrows()
    ]
    return markdown(("class", "images", "vectors", "file", "updates", "seconds"), rows)


def difficulty(results: Path) -> str:
    """How hard the phantoms are for a simple classifier."""
    table = pd.read_csv(results / "01_data-difficulty.csv")
    rows = [
        (r.dataset, r.against, f"{r.auc:.3f} ({r.low:.3f} to {r.high:.3f})", r.n_train, r.n_test)
        for r in table.itertuples()
    ]
    return markdown(("phantom", "classes", "AUC (95 % interval)", "trained on", "tested on"), rows)


def gain(results: Path) -> str:
    """AUC of the classifiers of the paper's table, and of one whose labels were shuffled."""
    both = "real + synthetic", "real + synthetic, halves"
    kinds = ("real", *both, "synthetic", "synthetic, few", "shuffled labels")
    rows = []
    for table in _everywhere(results, "06_auc_gain-summary", "in_table"):
        for (name, label), part in table[table.in_table].groupby(["dataset", "class"], sort=False):
            found = {r.kind: r for r in part.itertuples()}
            cells = [
                _span(found[k].auc, found[k].low, found[k].high, 3) if k in found else "-" for k in kinds
            ]
            real, mixed = found["real"], found["real + synthetic"]
            numbers = real.n_real, mixed.n_synthetic, real.n_test, real.seeds
            rows.append((f"{name}, {label}", *cells, *map(int, numbers)))
    names = ("real", *both, "synthetic alone", "synthetic, of 10 images", "shuffled labels")
    return markdown(("images", *names, "real cases", "synthetic", "test cases", "seeds"), rows)


def evidence(results: Path) -> str:
    """How well two embeddings' losses alone tell healthy from diseased, and those of two whole U-Nets."""
    rows = []
    for table in _everywhere(results, "06_auc_gain-evidence", "draws"):
        for _, r in table.iterrows():
            whole = "-"
            if r.get("floor_steps"):
                whole = _span(r.floor_auc, r.floor_low, r.floor_high, 3)
            rows.append((f"{r.dataset}, {r['class']}", _span(r.auc, r.low, r.high, 3), whole, r.n_test))
    return markdown(("images", "AUC by embeddings", "AUC by fine-tuned U-Nets", "test cases"), rows)


#: What is told of an audit, and what stands in brackets after it: its interval, or what chance gives.
_ATTACKS = {
    "auc_shadow": "auc_shadow",
    "null_shadow": "null_shadow",
    "auc_pictures": "auc_pictures",
    "ratio_base": "chance_base",
}


def privacy(results: Path) -> str:
    """What tells training images from others, beside a second real sample and a U-Net that memorised."""
    rows = []
    for table in _everywhere(results, "10_sharing_and_privacy", "auc_shadow"):
        nothing = table.kind == "real images"
        full = table[(table.auc_shadow.notna() | nothing) & table.vectors.isin((0, table.vectors.max()))]
        for _, r in full.drop_duplicates(["dataset", "kind", "n_train"]).iterrows():
            what = f"{r.vectors} vectors" if r.vectors else r.kind
            parts = [(name, f"{reach}_low", f"{reach}_high") for name, reach in _ATTACKS.items()]
            cells = [_span(*(r.get(part, np.nan) for part in found), 2) for found in parts]
            rows.append((f"{r.dataset}, {r['class']}", what, r.n_train, *cells, r.n_held))
    names = (
        "AUC by loss less a shadow's",
        "the same of images that it did not see",
        "AUC by generated images",
        "distance, training / held-out (by chance)",
    )
    return markdown(("images", "trained", "images seen", *names, "held out"), rows)


def _everywhere(results, stem, column):
    """The table of the phantoms, then those of real images, of the tables of that name with that column."""
    paths = (results / f"{stem}.csv", *sorted(results.glob(f"real-{stem}-*.csv")))
    tables = [pd.read_csv(p) for p in paths if p.is_file()]
    return [t for t in tables if column in t]


def _span(value, low, high, digits):
    if np.isnan(value):
        return "-"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


#: (benchmark, row, unit, aim) of README's table of speed.
SPEED = (
    *(
        ("against_diffusers", f"fp32, {steps} steps: {what}", unit, aim)
        for steps in (40, 200)
        for what, unit, aim in (
            ("ours / the script, once under way", "1", "at least 2"),
            ("ours / the script, reading and encoding of 100 images included", "1", "-"),
            ("script", "held-out loss", "-"),
            ("ours", "held-out loss", "no higher"),
            ("script", "MB", "-"),
            ("ours", "MB", "-"),
        )
    ),
    ("training", "square matrix product, torch's", "GFLOP/s", "-"),
    ("training", "square matrix product, oneDNN's", "GFLOP/s", "above torch's"),
    ("training", "update, batch 4", "ms", "-"),
    ("training", "update, batch 16", "ms", "-"),
    ("training", "update, batch 16: with torch's products / with oneDNN's", "1", "above 1"),
    ("training", "update, batch 16: operations", "GFLOP", "-"),
    ("training", "update, batch 16: share of that product's speed", "1", "0.45, on a GPU"),
    ("training", "eight concepts at batch 1: one after the other / at once", "1", "at least 2"),
    ("training", "one training, 50 updates", "s", "-"),
    ("training", "one training, 400 updates", "s", "eight times as long"),
    ("training", "8 trainings in turn, 50 updates", "s", "eight times as long"),
    ("training", "update, 10 images", "ms", "-"),
    ("training", "update, 10000 images", "ms", "as with 10"),
    ("training", "memory beside the images, 10000 of them", "MB", "246, of their latents"),
    ("precision", "update, batch 16: float32 / bfloat16", "1", "above 1"),
    ("precision", "8 pictures at once: float32 / bfloat16", "1", "above 1"),
    ("precision", "trained in float32", "held-out loss", "-"),
    ("precision", "trained in bfloat16", "held-out loss", "as in float32"),
    ("sampling", "1 at once, 20 steps: diffusers' pipeline / ours", "1", "at least 1.2"),
    ("sampling", "8 at once, 20 steps: diffusers' pipeline / ours", "1", "at least 1.2"),
    ("sampling", "32 at once, 20 steps: diffusers' pipeline / ours", "1", "at least 1.2"),
    ("sampling", "largest difference of a pixel from diffusers' pictures", "of 1", "float tolerance"),
    ("against_diffusers-gpu", "bf16: ours / the script, once under way", "1", "at least 1.8"),
    ("against_diffusers-gpu", "bf16: ours / the script, encoding of images included", "1", "-"),
    ("against_diffusers-gpu", "bf16: ours", "steps/s", "-"),
    ("against_diffusers-gpu", "bf16: ours", "MB", "at most 8,000"),
    ("against_diffusers-gpu", "bf16: script", "MB", "-"),
    ("sampling-gpu", "1 at once, 20 steps: diffusers' pipeline / ours", "1", "at least 1.5"),
    ("sampling-gpu", "8 at once, 20 steps: diffusers' pipeline / ours", "1", "at least 1.5"),
    ("sampling-gpu", "largest difference of a pixel from diffusers' pictures", "of 1", "-"),
    ("slider", "slider to picture, 64 px, 16 steps", "s", "at most 1"),
    ("neighbour", "one job: threads that spin / that sleep", "1", "about 1"),
    ("neighbour", "two jobs at once: threads that spin / that sleep", "1", "above 1"),
    ("run_all-mini", "mini, from nothing", "minutes", "at most 40"),
    ("run_all-mini", "mini, unchanged, again", "minutes", "at most 2"),
    ("run_all-smoke", "smoke, from nothing", "minutes", "at most 5"),
)


def speed(results: Path) -> str:
    """What each benchmark was made to find out, beside its aim; the other rows stay in results/."""
    rows = []
    for name, what, unit, aim in SPEED:
        path = results / f"benchmark-{name}.csv"
        table = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["what", "unit"])
        for r in table[(table.what == what) & (table.unit == unit)].itertuples():
            low, value, high = (f"{v:,.0f}" if v >= 1000 else f"{v:.3g}" for v in (r.low, r.value, r.high))
            span = f" ({low} to {high})" if r.n > 1 else ""
            shown = f"{value}{span}" + ("" if unit == "1" else f" {unit}")
            rows.append((name.replace("_", " ").replace("-", ", "), what, shown, aim, r.n, r.machine, r.date))
    return markdown(("benchmark", "what", "median (range)", "aim", "n", "machine", "date"), rows)


def scorecard(results: Path) -> str:
    """The paper's claims beside ours."""
    table = claims(results)
    return markdown(tuple(table.columns), table.itertuples(index=False))


def glance(results: Path) -> str:
    """A verdict a claim and data set; of several, how many hold, or do in part. Our ways stand apart."""
    table = claims(results)
    where = table.phantoms.where(table.phantoms != MISSING, table.real)
    ours = where.str.extract(OURS)[0]
    table["claim"] += (", " + ours + " (ours)").fillna("")
    sets = where.str.split("[:,]").str[0]  # "prostate, tumour: 1.4 times as often" -> "prostate"
    names = [name for name in dict.fromkeys(sets) if name != MISSING]
    rows = []
    for claim, part in table.groupby("claim", sort=False):
        cells = (_verdict(part.verdict[sets == name]) for name in names)
        rows.append((claim, *cells))
    kinds = (" (real)" if (sets == name)[table.real != MISSING].any() else "" for name in names)
    return markdown(("claim", *(name + kind for name, kind in zip(names, kinds, strict=True))), rows)


def _verdict(verdicts):
    distinct = list(dict.fromkeys(verdicts))
    for verdict, told in (("holds", "hold"), ("in part", "in part")):
        if verdict in distinct and len(distinct) > 1:
            return f"{(verdicts == verdict).sum()} of {len(verdicts)} {told}"
    return " or ".join(distinct) or "-"


TABLES: dict[str, Callable[[Path], str]] = {
    "captions": captions,
    "gap": gap,
    "updates": updates,
    "embeddings": embeddings,
    "difficulty": difficulty,
    "gain": gain,
    "evidence": evidence,
    "privacy": privacy,
    "speed": speed,
    "glance": glance,
    "claims": scorecard,
}


def markdown(header, rows) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def filled(text: str, results: Path) -> str:
    """`text` with each block between `<!-- name -->` and `<!-- end -->` made anew."""

    def block(match):
        return f"<!-- {match[1]} -->\n{TABLES[match[1]](results)}\n<!-- end -->"

    names = "|".join(TABLES)
    return re.sub(rf"<!-- ({names}) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Writes the tables of README.md from results/.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if out of date")
    check = parser.parse_args().check
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = filled(old, ROOT / "results")
    if not check:
        atomic_write(path, new)
    return int(check and old != new)


if __name__ == "__main__":
    sys.exit(main())
