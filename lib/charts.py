"""Charts of interpolation, composition and inpainting. As lib.figures: no torch, no computation but means."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.patches import Rectangle

from lib.figures import COLOURS, panels

_WAYS = {"AND": ("#0072B2", "predictions combined"), "vectors": ("#D55E00", "vectors mixed")}
_QUANTITIES = {
    "ctr": "cardiothoracic ratio",
    "area": "nucleus area,\nshare of the picture",
    "conspicuity": "lesion conspicuity",
}
_CONDITIONS = {
    "original": COLOURS["real"],
    "diseased": "#E69F00",
    "healthy": "#56B4E9",
    "diseased, emphasised": COLOURS["tumour"],
    "healthy, emphasised": COLOURS["healthy"],
}


def interpolation_chart(table, levels):
    """The quantity against the weight, one panel a data set: noises thin, their mean with its 95 % band.

    levels: data set -> its means in the classes' own images, as of lib.interpolation.class_levels, dotted.
    """
    groups = list(table.groupby(["dataset", "class", "quantity"], sort=False))
    fig, axes = panels(1, len(groups), 2.3 * len(groups), 2.1)
    for ax, ((name, label, quantity), part) in zip(axes[0], groups, strict=True):
        for way, (colour, told) in _WAYS.items():
            rows = part[part.way == way]
            grid = rows.pivot(index="weight", columns="noise", values="value")
            ax.plot(grid.index, grid, color=colour, lw=0.3, alpha=0.15)
            sns.lineplot(rows, x="weight", y="value", color=colour, label=told, seed=0, ax=ax, legend=False)
        for level, text in zip(levels[name], ("healthy", label), strict=True):
            ax.axhline(level, color="0.3", ls=":", lw=1)
            at = {"xytext": (2, 2), "textcoords": "offset points"}
            ax.annotate(f"images: {text}", (0, level), **at, size=5, color="0.3")
        n = part.noise.nunique()
        ax.set(title=f"{name}, {label} (n = {n})", xlabel="weight of the disease")
        ax.set_ylabel(_QUANTITIES.get(quantity, quantity))
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def presence_chart(table):
    """How often each finding (columns) is read from each combination (rows), in percent; a panel a way."""
    ways = list(table.way.unique())
    table = table.assign(asked_for=table.dataset + ": " + table.asked_for)
    rows = list(dict.fromkeys(table.asked_for))
    fig, axes = panels(1, len(ways), 6.9, 0.6 + 0.24 * len(rows))
    for i, (ax, way) in enumerate(zip(axes[0], ways, strict=True)):
        part = table[table.way == way]
        wide = part.pivot(index="asked_for", columns="finding", values="present")
        wide = wide.reindex(index=rows, columns=list(dict.fromkeys(table.finding)))
        style = {"annot": True, "fmt": ".0f", "annot_kws": {"size": 6}, "cbar": False, "yticklabels": i == 0}
        sns.heatmap(100 * wide, vmin=0, vmax=100, cmap="Blues", ax=ax, linewidths=0.5, **style)
        asked = part.pivot(index="asked_for", columns="finding", values="asked").reindex_like(wide)
        for y, x in np.argwhere(asked.to_numpy() == True):  # noqa: E712
            ax.add_patch(_frame(x, y))
        ax.grid(False)
        ax.set(xlabel="", ylabel="", title=way)
        ax.tick_params(axis="x", length=0)
        plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
        ax.tick_params(axis="y", rotation=0, length=0)
    fig.supxlabel(
        f"% of n = {table.n.iloc[0]} pictures in which a finding is read; framed: asked for", size="medium"
    )
    return fig


def _frame(x, y):
    return Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, fill=False, ec=COLOURS["tumour"], lw=1)


def contrast_chart(table, summary):
    """Contrast in the mask, one panel a data set: images as dots, their mean as a bar, the limits dashed."""
    how = np.where(table.emphasis > 1, ", emphasised", "")
    groups = list(table.assign(condition=table.condition + how).groupby(["dataset", "class"], sort=False))
    fig, axes = panels(1, len(groups), 2.3 * len(groups), 2.1)
    apart = 0.8 * (1 - 1 / len(_CONDITIONS))  # as far as the swarms lie
    for ax, ((name, label), part) in zip(axes[0], groups, strict=True):
        shared = {"data": part, "x": "shape", "y": "contrast", "hue": "condition", "ax": ax}
        shared |= {"hue_order": list(_CONDITIONS), "palette": _CONDITIONS}
        # beside each other by their values alone: a random jitter would give other bytes each time
        sns.swarmplot(**shared, dodge=True, size=2, alpha=0.6, warn_thresh=1, legend=ax is axes[0, 0])
        sns.pointplot(
            **shared, dodge=apart, linestyle="none", marker="_", markersize=10, legend=False, seed=0
        )
        limits = summary[summary.dataset == name].drop_duplicates("shape").set_index("shape").limit
        for at, shape in enumerate(part["shape"].unique()):
            ax.hlines(limits[shape], at - 0.45, at + 0.45, color="0.4", ls="--", lw=0.8)
        n = part.image.nunique()
        ax.set(title=f"{name}, {label} (n = {n})", xlabel="")
        ax.set_ylabel(f"contrast in the mask,\n{part.unit.iloc[0]}")
    dots, names = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].get_legend().remove()
    fig.legend(dots, names, loc="outside lower center", ncols=len(names))
    return fig
