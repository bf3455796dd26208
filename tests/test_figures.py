"""Figures are equal bytes, files go where they belong, and the README's numbers come from results/."""

import subprocess
import tarfile
from dataclasses import replace
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lib import figures, judge, readme
from lib.charts import contrast_chart
from lib.claims import MISSING
from lib.config import ROOT
from lib.embedding import Embedding
from lib.measures import difficulty_table, obedience_table, truth_table, wilson
from lib.output import Output
from lib.overview import PICTURES, gallery, method_figure, notebook_table
from lib.painting import render
from lib.tasks import image_sets

GAP = pd.DataFrame(
    [
        {"dataset": "prostate", "class": "tumour", "condition": c, "seed": s, "loss": loss + s / 100}
        for c, loss in (("empty", 0.4), ("caption", 0.38), ("64 vectors", 0.33), ("fine-tuned", 0.3))
        for s in range(3)
    ]
)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((6, 3, 8, 8), dtype=np.float32)


def drawings(images):
    figures.use_style()
    fig, ax = figures.panel()
    figures.show_images(ax, images, 3, "title")
    yield fig
    yield figures.image_rows([("a", images), ("b", images[:2])], "title")
    yield figures.image_blocks([("a", [images, images])], ("left", "right"))
    yield figures.gap_chart(GAP)


def test_equal_figures_are_equal_bytes(images, tmp_path):
    for i, pair in enumerate(zip(drawings(images), drawings(images), strict=True)):
        first, second = (figures.save(f, f"f{i}", tmp_path / str(j)) for j, f in enumerate(pair))
        for a, b in zip(first, second, strict=True):
            assert a.read_bytes() == b.read_bytes() and a.stat().st_size > 1000
    assert not plt.get_fignums()


def test_proofs_are_saved_at_half_of_the_resolution():
    figures.use_style("smoke")
    coarse = plt.rcParams["savefig.dpi"]
    figures.use_style("mini")
    assert plt.rcParams["savefig.dpi"] == 2 * coarse


def test_few_images_make_no_tower(images):
    figures.use_style()
    few, many = (figures.image_rows(24 * [("a", images[:n])]).get_size_inches() for n in (1, 6))
    assert few[1] < 26 and few[0] == many[0] and many[1] > 20
    plt.close("all")


def test_a_sheet_holds_every_image_in_reading_order(images):
    sheet = figures.tile(images, columns=3)
    assert sheet.shape == (2 * 8 + 1, 3 * 8 + 2, 3)
    np.testing.assert_array_equal(sheet[9:17, 18:26], images[5].transpose(1, 2, 0))


def test_every_seed_is_a_dot_in_the_gap_chart():
    figures.use_style()
    fig = figures.gap_chart(GAP)
    assert sum(len(c.get_offsets()) for c in fig.axes[0].collections) == len(GAP)
    dashes = [line for line in fig.axes[0].lines if line.get_marker() == "_"]
    assert fig.axes[0].get_ylabel() and sum(np.isfinite(line.get_ydata()).sum() for line in dashes) == 4
    plt.close(fig)


def test_the_dots_of_the_contrast_chart_lie_where_they_lay(tmp_path):
    rng, conditions = np.random.default_rng(0), [(c, e) for c in ("diseased", "healthy") for e in (1.0, 3.0)]
    conditions += [("original", 1.0)]
    rows = [(s, *c, i, rng.normal()) for s in ("disc", "free-form") for c in conditions for i in range(40)]
    table = pd.DataFrame(rows, columns=["shape", "condition", "emphasis", "image", "contrast"])
    table = table.assign(dataset="chest", unit="share of white", **{"class": "pneumonia"})
    summary = pd.DataFrame({"dataset": "chest", "shape": ["disc", "free-form"], "limit": [1.0, 2.0]})
    figures.use_style()
    one, two = (
        figures.save(contrast_chart(table, summary), "chart", tmp_path / name) for name in ("one", "two")
    )
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]


def test_the_method_figure_names_the_sizes_of_this_base(base):
    fig = method_figure(base)
    words = " ".join(text.get_text() for text in fig.axes[0].texts)
    assert f"{base.image_side} px" in words and f"vectors of {base.token_width}" in words
    plt.close(fig)


def test_every_notebook_is_in_the_front_pages_table():
    table = notebook_table(ROOT / "notebooks", ROOT / "results", "mini")
    numbered = sorted(p.stem for p in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert list(table.notebook) == list(PICTURES) == numbered
    assert (table.claim[1:] != "-").all()
    held = table.set_index("notebook").here
    assert held["03_embedding_size"].startswith("holds: ") and held["11_training_dynamics"] == "-"
    # the paper's own way alone, of three phantoms, and not ours beside it
    assert " of 3 on phantoms" in held["06_auc_gain"] and " of 3 on phantoms" in held["09_inpainting"]


def test_every_notebook_has_its_picture_and_leads_there():
    table = notebook_table(ROOT / "notebooks", ROOT / "results", "mini")
    page = gallery(table, ROOT / "figures", width=60)
    assert all(page.count(f'href="{stem}.ipynb"') == 2 for stem in table.notebook)
    assert page.count("data:image/png;base64,") == len(PICTURES)


def test_without_results_nothing_is_said_to_hold(tmp_path):
    assert set(notebook_table(ROOT / "notebooks", tmp_path, "mini").here) == {MISSING, "-"}


def test_what_shows_patients_stays_out_of_figures(tmp_path, runs_folder, images):
    figures.use_style()
    real, phantom = (Output(str(tmp_path), "02_x", d) for d in ("/data/hospital", "phantom:chest/healthy"))
    for output in (real, phantom):
        fig, ax = figures.panel()
        figures.show_images(ax, images)
        output.figure(fig)
        output.table(GAP, "gap")
        output.declare()
    assert {p.parent.name for p in tmp_path.rglob("02_x*.png")} == {"figures"}
    assert (
        not list((tmp_path / "figures").glob("*hospital*")) and len(list(runs_folder.rglob("02_x.png"))) == 1
    )
    names = {p.name for p in (tmp_path / "results").iterdir()}
    assert names == {"real-02_x-gap-hospital.csv", "02_x-gap.csv"}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "results" / "02_x-gap.csv"), GAP)


def test_two_data_sets_of_one_name_keep_their_own_files(tmp_path, runs_folder):
    def tables(dataset):
        return Output(str(tmp_path), "02_x", dataset).table(GAP).name

    sites = [tmp_path / site / "images" for site in ("north", "south")]
    specs = [*map(str, sites), f"pcam:{sites[0]}", f"pcam:{sites[1]}"]
    names = [tables(spec) for spec in specs]
    assert len({*names}) == 4 and names[0] == "real-02_x-images.csv" and names[2] == "real-02_x-pcam.csv"
    assert names == [tables(spec) for spec in specs]  # and again


def test_what_was_learned_lies_under_its_name(tmp_path, runs_folder):
    learned = Embedding(torch.randn(2, 8), "<x>")
    for dataset, name in ((None, "chest-big heart"), ("/data/hospital", "hospital-big heart")):
        path = Output(str(tmp_path), "02_x", dataset).embedding(learned, "chest", "big heart")
        assert path == tmp_path / "embeddings" / f"{name.replace(' ', '-')}.safetensors"
        assert Embedding.load(path).digest == learned.digest
        assert path.name in path.with_suffix(".md").read_text()


def test_a_folder_called_as_a_phantom_leaves_the_phantoms_files_alone(tmp_path, runs_folder):
    learned = Embedding(torch.randn(2, 8), "<x>")
    ours, theirs = (
        Output(str(tmp_path), "02_x", d).embedding(learned, "chest", "healthy") for d in (None, "/x/chest")
    )
    assert ours.name == "chest-healthy.safetensors" != theirs.name and theirs.name.startswith("chest-")


def test_a_file_that_is_gone_is_missed(tmp_path):
    output = Output(str(tmp_path), "02_x")
    output.table(GAP).unlink()
    with pytest.raises(Exception, match="02_x.csv"):
        output.declare()


def test_the_interval_of_a_proportion():
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)  # Newcombe 1998, table I
    low, high = wilson(0, 20)
    assert low == pytest.approx(0, abs=1e-9) and 0.1 < high < 0.2


def test_true_renderings_obey_and_others_do_not():
    scenes = judge.held_out_scenes(30)
    truth = np.stack([render(s) for s in scenes])
    own, swapped = (obedience_table(scenes, x, truth).set_index("attribute") for x in (truth, truth[::-1]))
    assert (own.hits == own.ceiling).all() and (own.hits > own.chance + 0.3).all()
    assert (swapped.hits < own.hits).all() and own.low.lt(own.hits).all() and own.high.ge(own.hits).all()


def test_truths_are_summarised_a_class(tmp_path):
    sets = image_sets(None, 5, 32, 0)
    table = truth_table(sets)
    chest = table[(table.dataset == "chest") & (table.quantity == "ctr")].set_index("class")["mean"]
    assert set(chest.index) == {"healthy", "cardiomegaly", "effusion", "pneumonia"}
    expected = sets[1][1].of("healthy").truth["ctr"].mean()
    assert chest["healthy"] == pytest.approx(expected, rel=1e-5)


def test_a_plain_sign_is_found_and_shuffled_labels_are_not():
    """The controls of the difficulty table: tumours drawn paler, then labels that mean nothing."""

    def paler(split):
        [(name, images)] = image_sets("phantom:histology", 80, 32, 0, split)
        sign = np.float32([0.7 if label == "tumour" else 1.0 for label in images.labels])
        return [(name, replace(images, images=images.images * sign[:, None, None, None]))]

    [(name, train)], unseen = paler("train"), paler("test")
    assert difficulty_table([(name, train)], unseen).auc[0] > 0.9
    labels = list(np.random.default_rng(0).permutation(train.labels))
    assert 0.3 < difficulty_table([(name, replace(train, labels=labels))], unseen).auc[0] < 0.7


def test_the_readmes_tables_are_made_anew_and_only_they(tmp_path):
    pd.DataFrame(
        [
            {
                "dataset": "chest",
                "against": "a / b",
                "auc": 0.8,
                "low": 0.7,
                "high": 0.9,
                "n_train": 3,
                "n_test": 4,
            }
        ]
    ).to_csv(tmp_path / "01_data-difficulty.csv", index=False)
    text = "before\n<!-- difficulty -->\nold\n<!-- end -->\nafter\n"
    new = readme.filled(text, tmp_path)
    assert new.startswith("before\n<!-- difficulty -->\n| phantom |") and new.endswith(
        "<!-- end -->\nafter\n"
    )
    assert "| chest | a / b | 0.800 (0.700 to 0.900) | 3 | 4 |" in new and "old" not in new
    assert readme.filled(new, tmp_path) == new


def test_the_readme_is_up_to_date(tmp_path):
    """With the committed tables: a run of the reader's own writes others into results/."""
    archive = ["git", "-C", str(ROOT), "archive", "HEAD", "README.md", "results"]
    committed = subprocess.run(archive, capture_output=True)
    if committed.returncode:
        pytest.skip(f"no committed tables to compare with: {committed.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(committed.stdout)) as files:
        files.extractall(tmp_path, filter="data")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert readme.filled(text, tmp_path / "results") == text
    assert set(readme.TABLES) <= {line[5:-4] for line in text.splitlines() if line.startswith("<!-- ")}
