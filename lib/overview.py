"""The front page: the method drawn as one figure, and the table of notebooks."""

import base64
import json
from html import escape
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

from lib.claims import CLAIMS, MISSING, NO_TRUTH, OURS, claims
from lib.figures import COLOURS, use_style
from lib.runs import timings

#: notebook -> what it is for, where lib.claims has no claim that it measures
PURPOSES = {
    "01_data": "the base knows the world, not the clinic",
    "10_sharing_and_privacy": "small files are shared, with fewer privacy concerns",
    "11_training_dynamics": "50,000 to 100,000 steps of batch 1",
    "90_explore": "the same by hand: interpolate, compose, inpaint, prompt and train in widgets",
    "99_pretrain_mini": "where the embedded base comes from",
}
#: notebook -> the figure that stands for it
PICTURES = {
    "00_overview": "00_overview",
    "01_data": "01_data",
    "02_textual_inversion": "02_textual_inversion-teaser",
    "03_embedding_size": "03_embedding_size-chest",
    "04_sample_count": "04_sample_count-chest",
    "05_guidance": "05_guidance-grid",
    "06_auc_gain": "06_auc_gain",
    "07_interpolation": "07_interpolation-chest",
    "08_composition": "08_composition-chest",
    "09_inpainting": "09_inpainting-chest",
    "10_sharing_and_privacy": "10_sharing_and_privacy",
    "11_training_dynamics": "11_training_dynamics",
    "90_explore": "90_explore-screen-interpolation",
    "99_pretrain_mini": "01_data-world",
}


def method_figure(base):
    """Textual inversion as a diagram, with the sizes of this base: what is frozen, what is trained."""
    use_style()
    fig, ax = plt.subplots(figsize=(6.9, 2.3))
    ax.set(xlim=(0, 100), ylim=(0, 34))
    ax.axis("off")
    frozen, learned, data = "#E8EEF4", "#FBE3D6", "#F2F2F2"
    c, h, w = base.latent_shape
    boxes = {
        "images": (1, 3, 15, 9, data, "about 100 images\nof one class"),
        "encoder": (21, 3, 15, 9, frozen, f"encoder\n{base.image_side} px to {c} x {h} x {w}"),
        "noise": (41, 3, 15, 9, data, "noise, at a\nrandom timestep"),
        "unet": (61, 3, 16, 9, frozen, f"U-Net\n{_millions(base.unet)} weights"),
        "loss": (83, 3, 15, 9, data, "squared error\nof the prediction"),
        "prompt": (1, 21, 15, 9, data, "prompt:\n<tumour>"),
        "vectors": (
            21,
            21,
            15,
            9,
            learned,
            f"K vectors of {base.token_width}:\nall that is trained",
        ),
        "text": (41, 21, 15, 9, frozen, f"text encoder\n{_millions(base.text_encoder)} weights"),
    }
    for x, y, width, height, colour, text in boxes.values():
        ax.add_patch(
            FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.4", fc=colour, ec="#666666", lw=0.6)
        )
        ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=7)
    right = lambda name: (boxes[name][0] + boxes[name][2] + 0.6, boxes[name][1] + 4.5)  # noqa: E731
    left = lambda name: (boxes[name][0] - 0.6, boxes[name][1] + 4.5)  # noqa: E731
    for start, end in (
        ("images", "encoder"),
        ("encoder", "noise"),
        ("noise", "unet"),
        ("unet", "loss"),
        ("prompt", "vectors"),
        ("vectors", "text"),
    ):
        ax.add_patch(
            FancyArrowPatch(
                right(start), left(end), arrowstyle="-|>", mutation_scale=7, lw=0.8, color="#333333"
            )
        )
    ax.add_patch(
        FancyArrowPatch(
            right("text"),
            (69, 12.6),
            arrowstyle="-|>",
            mutation_scale=7,
            lw=0.8,
            color="#333333",
            connectionstyle="angle,angleA=0,angleB=90,rad=4",
        )
    )
    back = {"ls": "--", "lw": 1.0, "color": COLOURS["tumour"]}
    ax.plot([90.5, 90.5, 28.5], [12.8, 16.2, 16.2], **back)
    ax.add_patch(
        FancyArrowPatch((28.5, 16.2), (28.5, 20.4), arrowstyle="-|>", mutation_scale=7, shrinkA=0, **back)
    )
    ax.text(52, 17.2, "gradient, to the vectors alone", color=COLOURS["tumour"], fontsize=7, ha="center")
    ax.text(99, 32, "blue: frozen   orange: trained", fontsize=6.5, ha="right", color="#666666")
    return fig


def _millions(module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M"


def notebook_table(folder: Path, results: Path, profile: str) -> pd.DataFrame:
    """One row a notebook in `folder`: stem, title, claim, how often it held, and the minutes of its last run.

    results: the folder of the tables that lib.claims reads
    """
    known, scorecard, rows = timings(), claims(results), []
    for notebook in sorted(Path(folder).glob("[0-9][0-9]_*.ipynb")):
        first = "".join(json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"])
        seconds = known.get(f"{profile}/{notebook.stem}")
        claim, paper = next((c[:2] for c in CLAIMS if c[2].startswith(notebook.stem)), (None, None))
        rows.append(
            {
                "notebook": notebook.stem,
                "title": first.splitlines()[0].lstrip("# "),
                "claim": f"{claim}: {paper}" if claim else PURPOSES.get(notebook.stem, "-"),
                "here": _held(scorecard[scorecard.claim == claim]) if claim else "-",
                "minutes": "-" if seconds is None else f"{seconds / 60:.1f}",
            }
        )
    return pd.DataFrame(rows)


def _held(rows: pd.DataFrame) -> str:
    """ "holds: 1 of 5 on phantoms, 0 of 3 on real images", of a claim's rows that have ground truth.

    Ours aside, which the paper does not claim.
    """
    counts = []
    for column, name in (("phantoms", "phantoms"), ("real", "real images")):
        claimed = (rows[column] != MISSING) & rows[column].str.extract(OURS)[0].isna()
        verdicts = rows[claimed & (rows.verdict != NO_TRUTH)].verdict
        counts += [f"{(verdicts == 'holds').sum()} of {len(verdicts)} on {name}"] if len(verdicts) else []
    return "holds: " + ", ".join(counts) if counts else MISSING


def gallery(table: pd.DataFrame, figures: Path, width: int = 240) -> str:
    """`notebook_table` as HTML: a picture of each notebook beside it, both leading there.

    figures: the folder of PNG files; one that is missing is left out. width: of a picture, in pixels
    """
    rows = []
    for row in table.itertuples():
        picture = figures / f"{PICTURES.get(row.notebook)}.png"
        shown = _thumbnail(picture, width, row.title) if picture.is_file() else ""
        link = f'<a href="{row.notebook}.ipynb">'
        cells = (f"{link}{shown}</a>", f"{link}{escape(row.title)}</a>", *map(escape, row[3:]))
        rows.append("<tr>" + "".join(f'<td style="text-align: left">{cell}</td>' for cell in cells) + "</tr>")
    names = ("", "notebook", "the paper, or what it leaves open", "here", "minutes")
    head = "".join(f'<th style="text-align: left">{name}</th>' for name in names)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _thumbnail(path, width, title):
    with Image.open(path) as image:
        small = image.convert("RGB").resize((width, round(width * image.height / image.width)), Image.LANCZOS)
    content = BytesIO()
    small.save(content, "PNG", optimize=True)
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(title)}" width="{width}">'
