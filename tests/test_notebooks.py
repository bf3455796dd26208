"""Every notebook runs from the command line on the smoke profile, and its numbers are sane."""

import json

import numpy as np
import pandas as pd
import pytest
from made_archives import MadePiCai, write_chexpert, write_pcam, xray
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


def test_each_figure_is_there_twice_and_not_blank(smoke):
    pictures = sorted((smoke / "figures").glob("*.png"))
    assert {p.stem[:2] for p in pictures} == {f"{i:02}" for i in range(12)}
    for picture in pictures:
        assert picture.with_suffix(".pdf").stat().st_size > 1000
        with Image.open(picture) as image:
            assert image.width > 300 and np.asarray(image.convert("L")).std() > 5, picture


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
    assert (floors <= empty + 1e-6).all()  # the floor starts from the base and keeps the best


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
    kinds = {"real", "real + synthetic", "synthetic", "shuffled labels"}
    assert summary.groupby("dataset").kind.agg(set).ge(kinds).all() and summary.dataset.nunique() == 3
    assert "synthetic, few" in set(summary[summary.dataset == "prostate"].kind)
    gains = pd.read_csv(smoke / "results" / "06_auc_gain-gain.csv")
    assert gains.low.le(gains.gain).all() and gains.gain.le(gains.high).all()


def test_interpolation_is_measured_at_each_weight_both_ways(smoke):
    table = pd.read_csv(smoke / "results" / "07_interpolation.csv")
    assert table.groupby("dataset").way.agg(set).eq({"AND", "vectors"}).all() and table.dataset.nunique() == 3
    assert (table.groupby(["dataset", "way", "noise"]).weight.nunique() == 3).all()
    ends = table[table.way == "AND"].groupby(["dataset", "weight"]).value.mean().unstack()
    assert (ends[0.0] != ends[1.0]).all()


def test_composition_asks_for_every_subset_beside_the_truth(smoke):
    table = pd.read_csv(smoke / "results" / "08_composition.csv")
    chest = table[table.dataset == "chest"]
    assert set(chest.way) == {"sum", "mean", "alone", "phantom"}
    assert chest[chest.way == "phantom"].asked_for.nunique() == 8
    assert chest.present.between(chest.low - 1e-9, chest.high + 1e-9).all()


def test_inpainting_has_its_control_and_spares_the_rest(smoke):
    table = pd.read_csv(smoke / "results" / "09_inpainting.csv")
    groups = table.groupby(["dataset", "shape"]).condition.agg(set)
    assert len(groups) == 6 and groups.eq({"original", "diseased", "healthy"}).all()
    assert table.equal_outside.all()


def test_captions_are_judged_against_chance(smoke):
    table = pd.read_csv(smoke / "results" / "01_data-captions.csv")
    assert set(table.attribute) == {"object", "colour", "row", "column", "size"}
    assert (table.ceiling > table.chance).all() and table.hits.between(table.low, table.high).all()


def test_a_folder_of_real_images_goes_the_same_way(tmp_path, monkeypatch):
    """As `./run_all.sh --only 02 -p dataset FOLDER`: a picture in the runs folder, numbers in results/."""
    rng = np.random.default_rng(0)
    for label, tone in (("healthy", 90), ("sick", 160)):
        for split in ("train", "test"):
            folder = tmp_path / "scans" / split / label
            folder.mkdir(parents=True)
            for i in range(9):
                pixels = np.clip(rng.normal(tone, 30, (70, 60)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "scans" / "train" / "sick" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    monkeypatch.setenv("MDB_RUNS", str(tmp_path / "runs"))
    options = ["--profile", "smoke", "--only", "02", "-p", "output", str(tmp_path)]
    assert main([*options, "-p", "dataset", str(tmp_path / "scans")]) == 0
    assert (tmp_path / "runs" / "real" / "scans" / "figures" / "02_textual_inversion.png").is_file()
    assert not (tmp_path / "figures").exists()
    table = pd.read_csv(tmp_path / "results" / "real-02_textual_inversion-scans.csv")
    assert list(table["class"]) == ["healthy", "sick"]


def chexpert(place):
    """`chexpert:DIR`, its two classes, and what the note says of a scan that was left out."""
    findings = ("No_Finding", "Cardiomegaly")
    rows = [xray(100 * i + j, **{f: "1.0"}) for i, f in enumerate(findings) for j in range(60)]
    rows.append(xray(999, Cardiomegaly="-1.0"))
    options = "?classes=healthy,cardiomegaly"
    spec = f"chexpert:{write_chexpert(place / 'CheXpert-v1.0-small', rows)}{options}"
    return spec, ["healthy", "cardiomegaly"], "left out 1 images with an uncertain label"


def picai(place):
    """`picai:IMAGES,LABELS`, likewise."""
    made = MadePiCai(place)
    for patient in range(1, 49):
        made.study(patient, tumour=patient % 2 == 1, lesion=patient % 2 == 1 and patient > 1)
    return made.close().spec, ["normal", "tumour"], "skipped 1 x no lesion delineation"


def pcam(place):
    """`pcam:DIR`, likewise."""
    return f"pcam:{write_pcam(place)}", ["normal", "tumour"], "each patch of train counts as a patient"


@pytest.mark.parametrize("write", [chexpert, picai, pcam])
def test_an_archive_goes_the_same_way(tmp_path, monkeypatch, write):
    """The README's command for each archive; its split and what was skipped are written down."""
    spec, names, remark = write(tmp_path / "archive")
    monkeypatch.setenv("MDB_RUNS", str(tmp_path / "runs"))
    options = ["--profile", "smoke", "--only", "02", "-p", "output", str(tmp_path)]
    assert main([*options, "-p", "dataset", spec]) == 0
    table = pd.read_csv(tmp_path / "results" / f"real-02_textual_inversion-{write.__name__}.csv")
    assert list(table["class"]) == names and (table.images == 8).all()
    private = tmp_path / "runs" / "real" / write.__name__
    split = pd.read_csv(private / "results" / "02_textual_inversion-split.csv")
    assert set(split.label) == set(names) and split.groupby("patient").split.nunique().eq(1).all()
    assert split.rule.str.contains("seed").all()
    assert (private / "results" / "02_textual_inversion-skipped.csv").is_file()
    assert (private / "figures" / "02_textual_inversion.png").is_file()
    executed = next((tmp_path / "runs").rglob("02_textual_inversion.ipynb")).read_text(encoding="utf-8")
    assert remark in executed


def test_the_demos_run_without_a_front_end_and_become_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MDB_RUNS", str(tmp_path / "runs"))
    options = ["--profile", "smoke", "--only", "90", "--html", "-p", "modalities", "[prostate]"]
    assert main([*options, "-p", "output", str(tmp_path)]) == 0
    names = {p.stem.partition("-")[2] for p in (tmp_path / "figures").glob("90_explore-*.png")}
    assert names == {"interpolation", "composition", "inpainting", "prompt", "training"}
    (executed,) = (tmp_path / "runs" / "executed").glob("*/90_explore.ipynb")
    assert "widgets" not in json.loads(executed.read_text())["metadata"]
    (page,) = (tmp_path / "runs" / "html").glob("*/90_explore.html")
    assert page.read_text().count("data:image/png;base64") >= 5
    assert f"pages: {page.parent / 'index.html'}" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["missing", "empty", "imageless"])
def test_a_bad_folder_gets_one_line(tmp_path, monkeypatch, capsys, what):
    folder = tmp_path / what
    if what != "missing":
        folder.mkdir()
    if what == "imageless":
        (folder / "notes.txt").write_text("no image")
    monkeypatch.setenv("MDB_RUNS", str(tmp_path / "runs"))
    options = ["--profile", "smoke", "--only", "02", "-p", "output", str(tmp_path)]
    assert main([*options, "-p", "dataset", str(folder)]) == 1
    shown = "".join(capsys.readouterr())
    assert str(folder) in shown and "Traceback" not in shown
