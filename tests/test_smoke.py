"""The default notebooks run from the command line on the smoke profile, and their numbers are sane."""

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.run_all import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The folder in which one smoke run of the default notebooks left figures/ and results/."""
    place = tmp_path_factory.mktemp("smoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MDB_RUNS", str(place / "runs"))
        assert main(["--profile", "smoke", "-p", "output", str(place)]) == 0
        yield place


def warnings_of(path):
    """What an executed notebook's cells wrote to stderr."""
    outputs = [o for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", ())]
    return [o.text for o in outputs if o.get("name") == "stderr"]


def test_each_figure_is_there_twice_and_not_blank(smoke):
    pictures = sorted((smoke / "figures").glob("*.png"))
    assert {p.stem[:2] for p in pictures} == {f"{i:02}" for i in range(12)}
    for picture in pictures:
        assert picture.with_suffix(".pdf").stat().st_size > 1000
        with Image.open(picture) as image:
            assert image.width > 300 and np.asarray(image.convert("L")).std() > 5, picture


def test_the_base_is_made_anew_by_its_notebook(tmp_path, monkeypatch):
    """99, which is not among the default ones."""
    monkeypatch.setenv("MDB_RUNS", str(tmp_path / "runs"))
    assert main(["--profile", "smoke", "--only", "99", "-p", "output", str(tmp_path)]) == 0
    assert len(list((tmp_path / "figures").glob("99_*.png"))) == 2
    (executed,) = (tmp_path / "runs" / "executed").rglob("99_*.ipynb")
    assert warnings_of(executed) == []


def test_no_notebook_shows_a_warning(smoke):
    executed = sorted((smoke / "runs" / "executed").rglob("*.ipynb"))
    assert len(executed) == 12
    for path in executed:
        assert warnings_of(path) == [], path


def test_every_class_has_its_embedding_far_below_a_megabyte(smoke):
    table = pd.read_csv(smoke / "results" / "02_textual_inversion.csv")
    assert len(table) == 8 and (table.kilobytes < 1000).all() and (table.vectors == 64).all()
    files = list((smoke / "runs" / "embeddings").glob("*/*.safetensors"))
    assert files and all(f.stat().st_size < 1e6 for f in files)


def test_the_inversion_gap_has_every_condition(smoke):
    gap = pd.read_csv(smoke / "results" / "02_textual_inversion-gap.csv")
    conditions = {"empty", "caption", "1 vectors", "4 vectors", "fine-tuned"}
    assert gap.groupby("dataset").condition.agg(set).eq(conditions).all()
    floors, empty = (gap[gap.condition == c].groupby("dataset").loss.mean() for c in ("fine-tuned", "empty"))
    assert (floors <= empty + 0.01).all()  # it keeps the best of what it is stopped on, where the base is one


@pytest.mark.parametrize("stem, by", [("03_embedding_size", "vectors"), ("04_sample_count", "n_train")])
def test_fidelity_stands_beside_its_floor_and_its_control(smoke, stem, by):
    table = pd.read_csv(smoke / "results" / f"{stem}.csv")
    assert table.groupby("dataset").condition.agg(set).eq({"real", "untrained", "embedding"}).all()
    drawn = table[table.condition == "embedding"]
    assert drawn.groupby("dataset")[by].nunique().max() > 1 and (drawn.seconds > 0).all()
    assert table[["n_real", "n_fake", "kid_low", "kid_high"]].notna().all(axis=None)
    trend = pd.read_csv(smoke / "results" / f"{stem}-trend.csv")
    assert set(trend.metric) == {"kid", "fid", "precision", "recall", "density", "coverage"}


def test_every_way_of_drawing_has_its_price(smoke):
    table = pd.read_csv(smoke / "results" / "05_guidance.csv")
    drawn = table[table.condition == "embedding"]
    assert (drawn.seconds_an_image > 0).all() and set(drawn.sampler) == {"ddim", "euler_a", "dpm++"}
    assert {"real", "untrained"} <= set(table.condition) and drawn.guidance.nunique() > 2
    assert len(pd.read_csv(smoke / "results" / "05_guidance-frontier.csv")) >= 3


def test_the_gain_has_the_papers_rows_and_its_control(smoke):
    summary = pd.read_csv(smoke / "results" / "06_auc_gain-summary.csv")
    kinds = {"real", "real + synthetic", "real + synthetic, halves", "synthetic", "shuffled labels"}
    assert summary.groupby("dataset").kind.agg(set).ge(kinds).all() and summary.dataset.nunique() == 3
    assert "synthetic, few" in set(summary[summary.dataset == "prostate"].kind)
    gains = pd.read_csv(smoke / "results" / "06_auc_gain-gain.csv")
    assert gains.low.le(gains.gain).all() and gains.gain.le(gains.high).all()


def test_interpolation_is_measured_at_each_weight_both_ways(smoke):
    table = pd.read_csv(smoke / "results" / "07_interpolation.csv")
    assert table.groupby("dataset").way.agg(set).eq({"AND", "vectors"}).all() and table.dataset.nunique() == 3
    assert (table.groupby(["dataset", "way", "noise"]).weight.nunique() == 3).all()
    grid = table.pivot(index=["dataset", "noise"], columns=["way", "weight"], values="intensity")
    assert (grid["AND"][0.0] != grid["AND"][1.0]).all()
    for end in (0.0, 1.0):  # one embedding alone, either way
        assert np.allclose(grid["AND"][end], grid["vectors"][end], atol=1e-4)


def test_composition_asks_for_every_subset_beside_the_truth(smoke):
    table = pd.read_csv(smoke / "results" / "08_composition.csv")
    chest = table[table.dataset == "chest"]
    assert set(chest.way) == {"sum", "mean", "difference", "alone", "phantom"}
    assert chest[chest.way == "phantom"].asked_for.nunique() == 8
    assert chest.present.between(chest.low - 1e-9, chest.high + 1e-9).all()


def test_inpainting_has_its_control_and_spares_the_rest(smoke):
    table = pd.read_csv(smoke / "results" / "09_inpainting.csv")
    groups = table.groupby(["dataset", "shape", "emphasis"]).condition.agg(set).unstack()
    assert len(groups) == 6 and (groups[3.0] == {"diseased", "healthy"}).all()
    assert (groups[1.0] == {"original", "diseased", "healthy"}).all()
    assert table.equal_outside.all()


def test_captions_are_judged_against_chance(smoke):
    table = pd.read_csv(smoke / "results" / "01_data-captions.csv")
    assert set(table.attribute) == {"object", "colour", "row", "column", "size"}
    assert (table.ceiling > table.chance).all() and table.hits.between(table.low, table.high).all()
