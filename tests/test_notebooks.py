"""Notebooks told something else than the phantoms: folders, archives, demos; and what a bad folder says."""

import json

import numpy as np
import pandas as pd
import pytest
from made_archives import MadePiCai, write_chexpert, write_dicom, write_pcam, xray
from PIL import Image

from lib.run_all import main
from lib.specs import file_name_of

pytestmark = pytest.mark.slow


def test_a_folder_of_real_images_goes_the_same_way(tmp_path, monkeypatch):
    """As `./run_all.sh --only 02 -p dataset FOLDER`: a picture in the runs folder, numbers in results/.

    One class in DICOM. Without the gap, which test_rehearsal.py measures on a folder.
    """
    rng = np.random.default_rng(0)
    for label, tone in (("healthy", 90), ("sick", 160)):
        for split in ("train", "test"):
            folder = tmp_path / "scans" / split / label
            folder.mkdir(parents=True)
            for i in range(9):
                pixels = np.clip(rng.normal(tone, 30, (70, 60)), 0, 255).astype(np.uint8)
                if label == "sick":
                    write_dicom(folder / f"IM{i}", pixels, PatientID=f"MRN-{split}-{i}")
                else:
                    Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "scans" / "train" / "sick" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    monkeypatch.setenv("MDB_RUNS", str(tmp_path / "runs"))
    options = ["--profile", "smoke", "--only", "02", "-p", "output", str(tmp_path)]
    assert main([*options, "-p", "dataset", str(tmp_path / "scans"), "-p", "gap_vectors", "[]"]) == 0
    assert (tmp_path / "runs" / "real" / "scans" / "figures" / "02_textual_inversion.png").is_file()
    assert not (tmp_path / "figures").exists()
    table = pd.read_csv(tmp_path / "results" / "real-02_textual_inversion-scans.csv")
    assert list(table["class"]) == ["healthy", "sick"] and (table.images == 3).all()
    written = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(tmp_path / "scans")]
    assert written and not any(b"MRN-" in p.read_bytes() for p in written)


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
    """The README's command for each archive, without the gap; its split and what was skipped are written."""
    spec, names, remark = write(tmp_path / "archive")
    monkeypatch.setenv("MDB_RUNS", str(tmp_path / "runs"))
    options = ["--profile", "smoke", "--only", "02", "-p", "output", str(tmp_path)]
    assert main([*options, "-p", "dataset", spec, "-p", "gap_vectors", "[]"]) == 0
    table = pd.read_csv(tmp_path / "results" / f"real-02_textual_inversion-{file_name_of(spec)}.csv")
    assert list(table["class"]) == names and (table.images == 3).all()
    private = tmp_path / "runs" / "real" / file_name_of(spec)
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
def test_a_bad_folder_gets_one_line_and_no_kernel(tmp_path, monkeypatch, capsys, what):
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
    assert not (tmp_path / "runs").exists()
