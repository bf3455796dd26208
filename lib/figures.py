"""The look of every figure: style, panels, captions and files. No torch, no computation.

Plotting functions take an `ax` and return it, as in rliable; images are float arrays [n, 3, H, W] in
[0, 1]. Colours are those of Okabe and Ito (2008), one a condition everywhere.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from lib.config import ROOT

#: condition -> colour, wherever that condition appears.
COLOURS = {
    "real": "#000000",
    "generated": "#0072B2",
    "caption": "#999999",
    "empty": "#D0D0D0",
    "fine-tuned": "#009E73",
    "healthy": "#0072B2",
    "normal": "#0072B2",
    "tumour": "#D55E00",
    "cardiomegaly": "#E69F00",
    "effusion": "#56B4E9",
    "pneumonia": "#CC79A7",
    "prostate": "#0072B2",
    "chest": "#E69F00",
    "histology": "#CC79A7",
    "real + synthetic": "#009E73",
    "real + synthetic, halves": "#CC79A7",
    "synthetic": "#0072B2",
    "synthetic, few": "#56B4E9",
    "shuffled labels": "#999999",
    "ddim": "#0072B2",
    "euler_a": "#D55E00",
    "dpm++": "#009E73",
}

#: Profiles whose pictures mean nothing: half of the resolution, since figures were a fifth of their time.
PROOFS = ("smoke", "rehearsal")


def use_style(profile: str = ""):
    """Applies figures/paper.mplstyle to every figure made from here on; those of PROOFS are saved coarser."""
    plt.style.use(ROOT / "figures" / "paper.mplstyle")
    if profile in PROOFS:
        plt.rcParams["savefig.dpi"] /= 2


def tile(images, columns=None, gap=1, background=1.0):
    """Puts images [n, 3, H, W] side by side into one array [rows * H, columns * W, 3]."""
    images = np.asarray(images, dtype=np.float32)
    n, channels, height, width = images.shape
    columns = columns or n
    rows = -(-n // columns)
    sheet = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, channels),
        background,
        np.float32,
    )
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return np.clip(sheet, 0, 1)


def show_images(ax, images, columns=None, title=None, colour="black"):
    """An uncurated sheet of images on bare axes."""
    ax.imshow(tile(images, columns))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title, color=colour)
    return ax


def image_rows(rows, title=None, width=6.9, label_share=0.17):
    """One figure of labelled rows: [(label, images [n, 3, H, W]), ...], every row equally long.

    width: inches; an image is an inch wide at most, so that few of them make no tower of many rows.
    """
    columns = max(len(images) for _, images in rows)
    side = min(1.0, width * (1 - label_share) / columns)
    fig, axes = plt.subplots(
        len(rows), 1, figsize=(width, side * len(rows) + (0.25 if title else 0.05)), squeeze=False
    )
    for ax, (label, images) in zip(axes[:, 0], rows, strict=True):
        show_images(ax, images, columns)
        ax.set_anchor("W")
        ax.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=4)
    if title:
        fig.suptitle(title, x=0.01, ha="left", fontsize=8)
    return fig


def image_blocks(rows, headings, width=6.9):
    """Sheets side by side: rows [(label, [images, images, ...]), ...] under one heading a column."""
    shape = np.asarray(rows[0][1][0]).shape
    side = width * 0.85 / (len(headings) * shape[0])
    size = (width, side * len(rows) + 0.25)
    fig, axes = plt.subplots(len(rows), len(headings), figsize=size, squeeze=False, layout="compressed")
    for i, (label, blocks) in enumerate(rows):
        for ax, images, heading in zip(axes[i], blocks, headings, strict=True):
            show_images(ax, images, title=heading if i == 0 else None)
        axes[i, 0].set_ylabel(label, rotation=0, ha="right", va="center")
    return fig


def panel(width=3.35, height=2.2):
    """(figure, ax) of one panel, in inches."""
    return plt.subplots(figsize=(width, height))


def panels(rows, columns, width=6.9, height=2.2):
    """(figure, axes [rows, columns]), in inches."""
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False)


def loss_chart(curves):
    """Held-out loss of each training against its first update's, one panel a data set.

    curves: (data set, class) -> records, a DataFrame with step and validation_loss.
    """
    names = list(dict.fromkeys(name for name, _ in curves))
    fig, axes = panels(1, len(names), 6.9 if len(names) > 1 else 3.35, 2.1)
    for (name, label), records in curves.items():
        ax = axes[0, names.index(name)]
        seen = records.dropna(subset="validation_loss")
        relative = seen.validation_loss / seen.validation_loss.iloc[0]
        ax.plot(seen.step, relative, "o-", label=label, color=COLOURS.get(label))
        ax.set(title=name, xlabel="updates")
        ax.legend()
    axes[0, 0].set_ylabel("held-out loss / that at the start")
    return fig


def gap_chart(gap):
    """Loss of each condition, one panel a data set: seeds as dots, their mean as a dash.

    gap: a DataFrame with dataset, class, condition and loss, as lib.gap.gap_table gives it.
    """
    gap = gap.replace({"condition": {"1 vectors": "1 vector"}})
    groups = list(gap.groupby(["dataset", "class"], sort=False))
    palette = {c: COLOURS.get(c, COLOURS["generated"]) for c in gap.condition.unique()}
    fig, axes = panels(1, len(groups), 6.9, 2.1)
    for ax, ((name, label), rows) in zip(axes[0], groups, strict=True):
        shared = {"data": rows, "x": "condition", "y": "loss", "hue": "condition", "legend": False, "ax": ax}
        sns.pointplot(**shared, palette=palette, errorbar=None, linestyle="none", marker="_", ms=12, mew=2)
        sns.stripplot(**shared, palette=dict.fromkeys(palette, "black"), size=2.5, jitter=False)
        ax.tick_params(axis="x", rotation=45)
        ax.set(title=f"{name}, {label}", xlabel="", ylabel="")
    axes[0, 0].set_ylabel("held-out denoising loss")
    return fig


def fidelity_chart(rows, by, label):
    """Each metric against `by` on a logarithmic axis: seeds as dots, their mean as a line, floors dashed.

    rows: a DataFrame as lib.fidelity.fidelity_rows gives it, one colour a data set. The cross on the left
    is the control, vectors that were never trained; the band about the dashed floor is its interval.
    """
    metrics = [m for m in ("kid", "fid", "precision", "recall", "density", "coverage") if m in rows]
    fig, axes = panels(2, 3, 6.9, 3.7)
    values = sorted(rows[rows.condition == "embedding"][by].unique())
    apart = values[1] / values[0] if len(values) > 1 else 1
    left = values[0] / max(4, apart) ** 0.5  # of the control: near, and far enough for two labels
    for ax, metric in zip(axes.flat, metrics, strict=True):
        for name, part in rows.groupby("dataset", sort=False):
            colour = COLOURS.get(name, COLOURS["generated"])
            runs = part[part.condition == "embedding"]
            ax.plot(runs[by], runs[metric], "o", color=colour, ms=2.5, alpha=0.6, mew=0)
            means = runs.groupby(by)[metric].mean()
            ax.plot(means.index, means, color=colour, label=name, lw=1.2)
            floor = part[part.condition == "real"].iloc[0]
            ax.axhline(floor[metric], color=colour, ls="--", lw=0.8)
            ax.axhspan(floor[f"{metric}_low"], floor[f"{metric}_high"], color=colour, alpha=0.08, lw=0)
            control = part[part.condition == "untrained"]
            ax.plot([left] * len(control), control[metric], "x", color=colour, ms=4, mew=1)
        ax.set_xscale("log", base=2)
        ax.set_xticks([left, *values], ["none", *(str(v) for v in values)])
        ax.minorticks_off()
        ax.set_title(metric.upper() if metric in ("kid", "fid") else metric)
    axes[0, 0].set_yscale("symlog", linthresh=0.1)  # a floor near 0, embeddings near 1, the control far above
    axes[0, 0].yaxis.set_major_formatter("{x:g}")
    axes[0, 0].set_ylim(-0.1, 2 * rows.kid.max() + 0.1)
    for ax in axes[1]:
        ax.set_xlabel(label)
    n = rows[rows.condition == "embedding"].iloc[0]
    axes[0, 1].set_title(f"FID (n = {n.n_real} real, {n.n_fake} drawn)")
    axes[0, 1].legend(fontsize=6, loc="upper right")
    return fig


def save(fig, name, folder=None, close=True):
    """Writes name.png and name.pdf without dates, so that equal figures are equal bytes.

    The layout is solved once, for the first. Returns the two paths. `folder` is figures/ unless named.
    """
    folder = Path(folder) if folder else ROOT / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    fig.savefig(paths[0], metadata={"Software": None})
    fig.set_layout_engine("none")
    fig.savefig(paths[1], metadata={"CreationDate": None, "Producer": None, "Creator": None})
    if close:
        plt.close(fig)
    return paths
