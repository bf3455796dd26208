"""Charts of the privacy audit and of embeddings' angles. As lib.figures: no torch, no computation."""

import numpy as np
import seaborn as sns
from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

from lib.figures import COLOURS, panels

_RATIOS = {"pixels": "pixels", "base": "the base's view", "classifier": "a classifier's"}
_ATTACKS = {"loss": "loss", "shadow": "loss less shadow's", "pictures": "generated images"}


def audit_chart(table):
    """Left, distance ratios (1: no nearer than held-out ones); right, AUC of each attack (0.5: a guess).

    One line an audit, one marker a data set and space or attack. The bar of a ratio is what chance gives, the
    marker lies on it or not; that of an AUC is its 95 % interval.
    """
    names = list(dict.fromkeys(_name(row) for row in table.itertuples()))
    fig, axes = panels(1, 2, 6.9, 0.9 + 0.24 * len(names))
    for ax, prefix, reach, what, neutral in (
        (axes[0, 0], "ratio", "chance", _RATIOS, 1.0),
        (axes[0, 1], "auc", "auc", _ATTACKS, 0.5),
    ):
        datasets = list(table.dataset.unique())
        for i, (key, label) in enumerate(what.items()):
            if f"{prefix}_{key}" not in table:
                continue
            for k, dataset in enumerate(datasets):
                part = table[table.dataset == dataset].dropna(subset=f"{prefix}_{key}")
                y = np.array([names.index(_name(row)) for row in part.itertuples()])
                shift = 0.12 * (k - (len(datasets) - 1) / 2) + 0.03 * i
                value = part[f"{prefix}_{key}"]
                colour = COLOURS.get(dataset, "#0072B2")
                ends = part[f"{reach}_{key}_low"], part[f"{reach}_{key}_high"]
                ax.hlines(y + shift, *ends, color=colour, lw=0.7)
                style = {"marker": "os^"[i], "ms": 3, "color": colour, "mfc": None if i else "white", "lw": 0}
                ax.plot(
                    value, y + shift, label=f"{dataset}, {label}" if len(datasets) > 1 else label, **style
                )
        ax.axvline(neutral, color="0.5", lw=0.8, ls="--")
        ax.set_yticks(range(len(names)), names if prefix == "ratio" else [""] * len(names), fontsize=6)
        ax.invert_yaxis()
        where = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "columnspacing": 0.8}
        ax.legend(fontsize=4.5, ncols=3, handletextpad=0.2, **where)
    axes[0, 0].set_xscale("log")
    axes[0, 0].xaxis.set_major_locator(FixedLocator([0.8, 0.9, 1.0, 1.1, 1.2]))
    axes[0, 0].xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes[0, 0].xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].set_xlabel("distance to the nearest training / held-out image")
    axes[0, 1].set_xlabel("AUC of telling training from held-out images")
    axes[0, 1].set_xlim(0, 1.02)
    return fig


def _name(row):
    if row.kind == "embedding":
        return f"K = {row.vectors}, n = {row.n_train}, {row.steps} updates"
    return f"{row.kind} (n = {row.n_train})" if row.n_train and row.steps else row.kind


def cosine_chart(tables):
    """A matrix of cosines each: name -> square table, as lib.geometry.between gives it."""
    widest = max(map(len, tables.values()))
    fig, axes = panels(1, len(tables), 6.9 if len(tables) > 1 else 3.35, 1.2 + 0.25 * widest)
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        style = {"annot": True, "fmt": ".2f", "annot_kws": {"size": 5}, "cbar": False, "linewidths": 0.5}
        sns.heatmap(table, vmin=-1, vmax=1, cmap="RdBu_r", ax=ax, **style)
        ax.grid(False)
        ax.set_title(f"cosines, {name}")
        ax.tick_params(length=0, labelsize=5)
        ax.tick_params(axis="x", rotation=60)
        ax.tick_params(axis="y", rotation=0)
    return fig
