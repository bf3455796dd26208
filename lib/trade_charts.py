"""Charts of what a choice costs and gains: guidance, steps and solvers; synthetic images for a classifier.

As lib.figures: no torch, no computation but means; colours are those of the conditions there.
"""

from textwrap import fill

import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from lib.figures import COLOURS, panels

_TOLD = {"a1111": "the paper's trainer", "ours": "this project's recipe"}
_METRICS = {"kid": "KID", "precision": "precision (looks real)", "coverage": "coverage (shows all)"}


def guidance_chart(by_guidance, by_steps):
    """Above, metrics against guidance, one colour a data set; below, of the first one, solvers and steps.

    by_guidance: rows of lib.guidance at one solver and number of steps, with floor and control; by_steps:
    those at one guidance. Dots are trainings, lines their means; dashed, the floor with its interval;
    crosses, the control; the last panel sets KID against the seconds that an image takes.
    """
    fig, axes = panels(2, 3, 6.9, 3.9)
    for ax, (metric, title) in zip(axes[0], _METRICS.items(), strict=True):
        for name, part in by_guidance.groupby("dataset", sort=False):
            colour = COLOURS.get(name, COLOURS["generated"])
            _lines(ax, part[part.condition == "embedding"], "guidance", metric, colour, name)
            _floor(ax, part, metric, colour)
            control = part[part.condition == "untrained"]
            ax.plot(control.guidance, control[metric], "x", color=colour, ms=4, mew=1)
        ax.set(title=title, xlabel="guidance scale")
    axes[0, 0].set_yscale("symlog", linthresh=1)
    first = by_steps[by_steps.dataset == by_steps.dataset.iloc[0]]
    drawn = first[first.condition == "embedding"]
    for ax, (x, metric) in zip(
        axes[1], (("steps", "kid"), ("steps", "coverage"), ("seconds_an_image", "kid")), strict=True
    ):
        for sampler, part in drawn.groupby("sampler", sort=False):
            _lines(ax, part, x, metric, COLOURS[sampler], sampler)
        _floor(ax, first, metric, COLOURS["real"])
        ax.set_xscale("log")
        ax.set_title(f"{first.dataset.iloc[0]}: {_METRICS[metric]}{', by its cost' if x != 'steps' else ''}")
        ax.set_xlabel({"steps": "steps"}.get(x, "seconds an image"))
    for ax in axes[1, :2]:
        counts = sorted(drawn.steps.unique())
        ax.set_xticks(counts, [str(n) for n in counts])
        ax.minorticks_off()
    _widen(axes[1, 2])
    seconds = axes[1, 2].xaxis
    seconds.set_major_locator(LogLocator(subs=(1, 2, 5)))
    seconds.set_major_formatter(StrMethodFormatter("{x:g}"))
    seconds.set_minor_formatter(NullFormatter())
    control = Line2D([], [], color="0.3", ls="none", marker="x", ms=4, mew=1, label="untrained vectors")
    floor = Line2D([], [], color="0.3", ls="--", lw=0.8, label="real images")
    shown = [*axes[0, 0].get_legend_handles_labels()[0], control, floor]
    below = {"loc": "lower right", "bbox_to_anchor": (1, 0.08)}  # of the lines, above that of real images
    axes[0, 0].legend(handles=shown, fontsize=5, ncols=2, **below)
    axes[1, 0].legend(fontsize=6)
    n = drawn.iloc[0]
    axes[0, 0].set_title(f"KID (n = {n.n_real} real, {n.n_fake} drawn)")
    return fig


def _widen(ax):
    """A logarithmic axis to its next ticks, where fewer than two of 1, 2, 5, 10, ... lie on it."""
    ticks = np.array([m * 10.0**e for e in range(-6, 6) for m in (1, 2, 5)])
    low, high = ax.get_xlim()
    if ((low <= ticks) & (ticks <= high)).sum() < 2:
        ax.set_xlim(ticks[ticks <= low].max(), ticks[ticks >= high].min())


def guidance_grid(rows):
    """Each metric at every guidance (rows) and number of steps (columns), means over seeds: one data set."""
    fig, axes = panels(1, 3, 6.9, 0.7 + 0.22 * rows.guidance.nunique())
    for ax, (metric, title) in zip(axes[0], _METRICS.items(), strict=True):
        wide = rows.pivot_table(index="guidance", columns="steps", values=metric)
        # a share is coloured by what it is of 1: three in a hundred look like nothing, as they should
        scale = {"cmap": "Blues_r"} if metric == "kid" else {"cmap": "Blues", "vmin": 0, "vmax": 1}
        style = {"annot": True, "fmt": ".2f", "annot_kws": {"size": 6}, "cbar": False, "linewidths": 0.5}
        sns.heatmap(wide, ax=ax, **scale, **style)
        ax.grid(False)
        ax.set(title=title, xlabel="steps", ylabel="")
        ax.tick_params(length=0, rotation=0)
    axes[0, 0].set_ylabel("guidance scale")
    return fig


def auc_chart(rows, summary):
    """The paper's table, one panel a data set: trainings as dots, their mean with its interval.

    rows, summary: of lib.gain_tables, the table's conditions alone. Diamonds: the paper's mean and deviation.
    """
    groups = list(summary.groupby("dataset", sort=False))
    fig, axes = panels(1, len(groups), max(3.35, 2.3 * len(groups)), 2.7)
    for ax, (name, part) in zip(axes[0], groups, strict=True):
        part = part.reset_index(drop=True)
        runs = rows[rows.dataset == name].groupby("kind", sort=False).auc
        for i, r in part.iterrows():
            colour, found = COLOURS[r.kind], runs.get_group(r.kind)
            ax.plot(
                np.linspace(-0.12, 0.12, len(found)) + i, found, "o", color=colour, ms=2.5, alpha=0.7, mew=0
            )
            ax.errorbar(i + 0.26, r.auc, [[r.auc - r.low], [r.high - r.auc]], fmt="_", color=colour, ms=7)
            if np.isfinite(r.paper):
                style = {"fmt": "D", "color": "0.45", "mfc": "white", "ms": 3, "lw": 0.8}
                ax.errorbar(i - 0.3, r.paper, r.paper_sd, label="the paper" if i == 0 else None, **style)
        ax.axhline(0.5, color="0.6", lw=0.6, ls=":")
        ax.set_xticks(
            range(len(part)), part.kind, rotation=35, ha="right", rotation_mode="anchor", fontsize=6
        )
        ax.set_title(f"{name}, {part['class'][0]} (n = {part.n_test[0]}, {_seeds(part.seeds[0])})")
        ax.grid(axis="x", visible=False)
        if part.paper.notna().any():
            ax.legend(fontsize=6, loc="lower left")
    axes[0, 0].set_ylabel("AUC on test images")
    low = min(ax.get_ylim()[0] for ax in axes[0])
    high = max(ax.get_ylim()[1] for ax in axes[0])
    for ax in axes[0]:
        ax.set_ylim(low, high)
    return fig


def roc_chart(curves):
    """ROC curves, one panel a data set: mean over trainings, and from the lowest to the highest of them.

    curves: of lib.gain_tables.curves.
    """
    groups = list(curves.groupby("dataset", sort=False))
    fig, axes = panels(1, len(groups), max(2.6, 2.3 * len(groups)), 3.1)
    for ax, (name, part) in zip(axes[0], groups, strict=True):
        for kind, line in part.groupby("kind", sort=False):
            label = f"{kind}: {line.n_real.iloc[0]} + {line.n_synthetic.iloc[0]}"
            ax.plot(line.false, line.true, color=COLOURS[kind], label=label)
            ax.fill_between(line.false, line.low, line.high, color=COLOURS[kind], alpha=0.12, lw=0)
        ax.plot([0, 1], [0, 1], color="0.6", lw=0.6, ls=":")
        ax.set(title=f"{name}, {part['class'].iloc[0]}", xlabel="false positive rate", aspect="equal")
        ax.legend(fontsize=6, loc="upper left", bbox_to_anchor=(-0.05, -0.22))
    axes[0, 0].set_ylabel("true positive rate")
    return fig


def dose_chart(summary):
    """AUC against the number of synthetic cases, and against that of real ones where it varies.

    One colour a data set; open squares: half of each batch real. summary: of lib.gain_tables. Bars are 95 %
    intervals over patients and trainings.
    """
    halves = summary[summary.kind == "real + synthetic, halves"].set_index("dataset")
    summary = summary[summary.kind.isin(("real", "real + synthetic"))]
    reals = summary[summary.kind == "real"].groupby("dataset").n_real
    full, vary = reals.max(), reals.nunique().max() > 1
    fig, axes = panels(1, 1 + vary, 6.9 if vary else 3.45, 2.6)
    apart = summary.n_synthetic.max() / 160  # so that bars of one number do not hide each other
    for k, (name, part) in enumerate(summary.groupby("dataset", sort=False)):
        colour = COLOURS.get(name, COLOURS["generated"])
        real, both = (part[part.kind == kind] for kind in ("real", "real + synthetic"))
        grown = part[part.n_real == full[name]]
        label = f"{name} (n = {part.n_test.iloc[0]}, {_seeds(part.seeds.iloc[0])})"
        _bars(axes[0, 0], grown.sort_values("n_synthetic"), "n_synthetic", colour, label, apart * k)
        beside = apart * (k + 3)
        _bars(axes[0, 0], halves.loc[[name]], "n_synthetic", colour, None, beside, "", "s", mfc="white")
        most = both[both.n_synthetic == both.n_synthetic.max()]
        for line, style, what in ((real, "--", "real alone"), (most, "-", "with synthetic")):
            if line.n_real.nunique() > 1:
                label = f"{name}, {what}"
                _bars(axes[0, 1], line.sort_values("n_real"), "n_real", colour, label, 1.5 * k, style)
    axes[0, 0].set(xlabel="synthetic cases, beside all real ones", ylabel="AUC on test images")
    if vary:
        axes[0, 1].set(xlabel="real cases")
    for ax in axes[0]:
        ax.set_ylim(summary.low.min() - 0.2, 1)  # room for the legends
        ax.legend(fontsize=6, loc="lower left")
    axes[0, 0].set_title("squares: half of each batch real")
    return fig


def _lines(ax, part, x, metric, colour, label):
    """Trainings as dots, and the line of their means at each setting."""
    ax.plot(part[x], part[metric], "o", color=colour, ms=2.5, alpha=0.6, mew=0)
    means = (
        part.groupby(["sampler", "guidance", "steps"]).mean(numeric_only=True).reset_index().sort_values(x)
    )
    ax.plot(means[x], means[metric], color=colour, label=label, lw=1.2)


def _floor(ax, part, metric, colour):
    floor = part[part.condition == "real"].iloc[0]
    ax.axhline(floor[metric], color=colour, ls="--", lw=0.8)
    ax.axhspan(floor[f"{metric}_low"], floor[f"{metric}_high"], color=colour, alpha=0.08, lw=0)


def _bars(ax, part, x, colour, label, shift, style="-", marker="o", **looks):
    """Means with their intervals, a little beside each other."""
    reach = [part.auc - part.low, part.high - part.auc]
    looks = {"fmt": marker + style, "color": colour, "label": label, "lw": 1, "ms": 2.5} | looks
    ax.errorbar(part[x] + shift, part.auc, reach, **looks)


def dynamics_chart(curves, rate):
    """Loss and KID at the end of each training, a row a recipe; beside them norms, and those of a walk.

    curves: of lib.dynamics, the preset first. Small dots are trainings, large ones means, one colour a
    length; dashed, the preset's mean. rate: of the preset, whose walk of rate * sqrt(updates) is dashed too.
    """
    recipes = list(curves.recipe.unique())
    preset, places = recipes[0], {recipe: i for i, recipe in enumerate(recipes)}
    fig, axes = panels(1, 3, 6.9, max(2.1, 1.0 + 0.19 * len(recipes)))
    final = curves[curves["last"]]
    lengths = sorted(final.length.unique())
    palette = dict(zip(lengths, sns.color_palette("viridis_r", len(lengths)), strict=True))
    told = {recipe: _TOLD.get(recipe, recipe) for recipe in recipes}
    for ax, column, text, names in (
        (axes[0, 0], "validation_loss", "validation loss", [fill(name, 28) for name in told.values()]),
        (axes[0, 1], "kid", "KID", []),
    ):
        for length, part in final.groupby("length"):
            ax.plot(part[column], part.recipe.map(places), "o", color=palette[length], ms=2, mew=0, alpha=0.7)
            means = part.groupby("recipe", sort=False)[column].mean()
            rows = means.index.map(places)
            ax.plot(means, rows, "o", color=palette[length], ms=4.5, mew=0, label=f"{length:,} updates")
        ax.axvline(final[final.recipe == preset][column].mean(), color="0.4", ls="--", lw=0.8)
        ax.set_yticks(range(len(recipes)), names)
        ax.set(xlabel=text, ylim=(len(recipes) - 0.5, -0.5))
        ax.xaxis.set_major_locator(MaxNLocator(4))
    axes[0, 0].set_title(f"{curves.dataset.iloc[0]} ({_seeds(final.seed.nunique())})")
    colours = dict(zip(recipes, ("0.15", sns.color_palette("colorblind")[0]), strict=False))  # the first two
    for recipe, part in curves[curves.seed == curves.seed.min()].groupby("recipe", sort=False):
        part = part[part.length == part.length.max()]
        look = {"color": colours[recipe], "label": told[recipe], "zorder": 3} if recipe in colours else {}
        axes[0, 2].plot(part.step, part.vector_rms, **({"color": "0.75", "lw": 0.8} | look))
    steps = np.geomspace(1, curves.length.max(), 50)
    axes[0, 2].plot(steps, rate * np.sqrt(steps), color="0.4", ls="--", lw=0.8, label="rate x sqrt(updates)")
    axes[0, 2].set(xlabel="updates", ylabel="RMS of the vectors", xscale="log", yscale="log")
    axes[0, 2].legend(fontsize=6, loc="lower right")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=6)
    return fig


def _seeds(n):
    return f"{n} seed{'' if n == 1 else 's'}"
