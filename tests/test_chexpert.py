"""CheXpert: classes, views, uncertain labels, patients, and CSV files that are not what they should be."""

import numpy as np
import pytest
from made_archives import CHEXPERT_HEADER, write_chexpert, xray
from PIL import Image

from lib.datasets import DatasetError, check, classes, load_images, split_table, splits

PAPER = ("healthy", "cardiomegaly", "pneumonia", "pleural_effusion")  # as the columns are
COLUMNS = dict(zip(PAPER, ("No_Finding", "Cardiomegaly", "Pneumonia", "Pleural_Effusion"), strict=True))


@pytest.fixture
def many(tmp_path):
    """Of each class of the paper 40 patients with two studies each; a few in valid.csv."""
    rows, valid = [], []
    for place, column in enumerate(COLUMNS.values()):
        for i in range(40):
            number = 1 + 40 * place + i
            rows += [xray(number, study=study, **{column: "1.0"}) for study in (1, 2)]
        valid.append(xray(64541 + place, split="valid", **{column: "1.0"}))
    return write_chexpert(tmp_path / "CheXpert-v1.0-small", rows, valid)


@pytest.fixture
def mixed(tmp_path):
    """One row of each kind."""
    rows = [
        xray(1, No_Finding="1.0", Support_Devices="1.0"),
        xray(2, side="PA", No_Finding="1.0"),
        xray(3, view="lateral", No_Finding="1.0"),
        xray(4, Cardiomegaly="1.0", Edema="1.0"),
        xray(5, Cardiomegaly="1.0", Pleural_Effusion="1.0"),
        xray(6, Cardiomegaly="-1.0", Pneumonia="0.0"),
        xray(7, Pneumonia="1.0", Cardiomegaly="-1.0"),
        xray(8, Pneumonia="1.0"),
        xray(9, Pleural_Effusion="1", Fracture="-1"),
        xray(10, Edema="1.0"),
    ]
    return write_chexpert(tmp_path / "scans", rows)


def patients(spec, label=None):
    found = load_images(spec, split="all", side=8, label=label)
    return {p: found.labels[i] for i, p in enumerate(int(name[7:]) for name in found.patients)}


def test_images_classes_and_patients(many):
    found = load_images(f"chexpert:{many}", n=5, side=16)
    assert found.images.shape == (20, 3, 16, 16) and found.images.dtype == np.float32
    assert found.classes == PAPER == classes(f"chexpert:{many}")
    assert splits(f"chexpert:{many}") == ("train", "val", "test")
    assert all(name.startswith("train/patient") and name.endswith("view1_frontal.jpg") for name in found.ids)
    assert [p in name for p, name in zip(found.patients, found.ids, strict=True)] == [True] * 20
    grey = [round(float(image.mean()) * 255) for image in found.images]
    assert np.abs(np.subtract(grey, [int(p[7:]) % 256 for p in found.patients])).max() <= 1
    assert found.truth == {} and found.skipped == []
    # One class alone is chosen as among all; its name may be that of the column.
    for name in ("pleural_effusion", "Pleural Effusion"):
        one = load_images(f"chexpert:{many}", n=5, side=16, label=name)
        assert one.ids == found.of("pleural_effusion").ids
    assert load_images(f"chexpert:{many}", n=2, label="No Finding").classes == ("healthy",)


def test_patients_are_split_once_and_for_all_and_it_is_written_down(many):
    spec = f"chexpert:{many}"
    parts = {split: load_images(spec, split=split, side=4) for split in splits(spec)}
    assert sum(map(len, parts.values())) == 4 * 81
    assert len(set.union(*(set(p.patients) for p in parts.values()))) == 4 * 41
    assert sum(len(set(p.patients)) for p in parts.values()) == 4 * 41
    assert len(parts["train"]) > 200 and min(len(parts["val"]), len(parts["test"])) > 10
    assert "80/10/10 % of the patients, split_seed 0" in parts["val"].note
    assert "chosen with seed 0" in parts["val"].note
    assert set(load_images(spec, side=4, seed=7).ids) == set(parts["train"].ids)

    table = split_table(spec)
    assert list(table.columns) == ["id", "patient", "label", "split", "rule"]
    for split, images in parts.items():
        assert set(table[table.split == split].id) == set(images.ids)
    assert table.rule.unique().tolist() == [parts["val"].note.partition(";")[0]]
    other = split_table(f"{spec}?split_seed=5")
    assert (other.id == table.id).all() and (other.split != table.split).sum() > 20
    assert other.groupby("patient").split.nunique().eq(1).all() and "split_seed 5" in other.rule[0]


def test_the_files_own_split(many):
    spec = f"chexpert:{many}?splits=files"
    assert splits(spec) == ("train", "val", "test")
    held = load_images(spec, split="test", side=4)
    assert sorted(held.patients) == [f"patient{64541 + i}" for i in range(4)]
    assert "valid.csv is test" in held.note and "split_seed 0" in held.note
    train, val = (set(load_images(spec, split=part, side=4).patients) for part in ("train", "val"))
    assert len(train | val) == 160 and not train & val and 8 <= len(val) <= 24


def test_what_was_not_unpacked_is_no_data_set(many):
    """The full release has the patients in folders of their own, beside that of the CSV files."""
    (many / "train").rename(many.parent / "batch 2 (train 1)")
    with pytest.raises(DatasetError, match="train.csv: names train/patient00001.* put the patients of all"):
        load_images(f"chexpert:{many}", n=5, side=4, fewer=True)


def test_one_of_two_releases_must_be_named(many):
    (many.parent / "CheXpert-v1.0").mkdir()
    (many.parent / "CheXpert-v1.0" / "train.csv").write_text("")
    with pytest.raises(DatasetError, match="name one of CheXpert-v1.0, CheXpert-v1.0-small"):
        check(f"chexpert:{many.parent}")


def test_a_patient_of_both_files_is_not_trained_on(tmp_path):
    rows = [xray(i, No_Finding="1.0") for i in (1, 2)]
    spec = (
        f"chexpert:{write_chexpert(tmp_path, rows, [xray(2, split='valid', No_Finding='1.0')])}?splits=files"
    )
    found = load_images(spec, side=4)
    assert found.patients == ["patient00001"]
    assert [name for name, _ in found.skipped] == ["patient00002"]
    assert "skipped 1 x patient of valid.csv too" in found.note


def test_one_class_an_image_frontal_only_uncertain_left_out(mixed):
    spec = f"chexpert:{mixed}"
    assert patients(spec) == {
        1: "healthy",
        2: "healthy",
        4: "cardiomegaly",
        8: "pneumonia",
        9: "pleural_effusion",
    }
    note = load_images(spec, split="all", side=8).note
    assert "left out 2 images with an uncertain label" in note
    assert "left out 1 images of more than one of these classes" in note


def test_uncertain_labels_are_treated_as_told(mixed):
    positive = patients(f"chexpert:{mixed}?uncertain=positive")
    assert positive[6] == "cardiomegaly" and 7 not in positive  # 7 has two findings now
    negative = patients(f"chexpert:{mixed}?uncertain=negative")
    assert 6 not in negative and negative[7] == "pneumonia"


def test_views(mixed):
    healthy = {
        view: set(patients(f"chexpert:{mixed}?view={view}", "healthy")) for view in ("frontal", "pa", "all")
    }
    assert healthy == {"frontal": {1, 2}, "pa": {2}, "all": {1, 2, 3}}
    assert set(patients(f"chexpert:{mixed}?view=lateral")) == {3}
    assert set(patients(f"chexpert:{mixed}?view=ap", "healthy")) == {1}


def test_other_findings_as_classes(mixed):
    spec = f"chexpert:{mixed}?classes=edema,No Finding&uncertain=positive"
    assert classes(spec) == ("healthy", "edema")
    assert patients(spec) == {1: "healthy", 2: "healthy", 4: "edema", 10: "edema"}
    with pytest.raises(DatasetError, match="no images of lung_lesion"):
        classes(f"chexpert:{mixed}?classes=lung_lesion")


def test_wherever_it_was_unpacked(many, tmp_path, monkeypatch):
    ids = load_images(f"chexpert:{many}", n=3).ids
    assert load_images(f"chexpert:{tmp_path}", n=3).ids == ids  # the folder above
    renamed = many.rename(tmp_path / "what, is this?")
    assert load_images(f"chexpert:{renamed}", n=3).ids == ids
    assert load_images(f"chexpert:{renamed}?view=ap", n=3).ids == ids
    monkeypatch.chdir(tmp_path)
    assert load_images("chexpert:what, is this?", n=3).ids == ids
    inside = tmp_path / "flat"
    (inside / "CheXpert-v1.0-small").mkdir(parents=True)
    for item in renamed.iterdir():
        item.rename(inside / ("" if item.suffix else "CheXpert-v1.0-small") / item.name)
    assert len(load_images(f"chexpert:{inside}", n=3)) == 12  # the files beside the images' folder


def test_a_missing_or_broken_image_costs_itself(many):
    spec = f"chexpert:{many}"
    first, second = load_images(spec, n=2, side=4, label="pneumonia").ids
    (many / first).unlink()
    (many / second).write_bytes((many / second).read_bytes()[:80])
    found = load_images(spec, n=2, side=4, label="pneumonia")
    assert len(found) == 2 and [name for name, _ in found.skipped] == [first, second]
    assert "No such file" in dict(found.skipped)[first]


def test_fewer_than_asked_for(mixed):
    with pytest.raises(DatasetError, match="'healthy' has 2 readable images, 5 asked for"):
        load_images(f"chexpert:{mixed}", n=5, split="all")
    assert len(load_images(f"chexpert:{mixed}", n=5, split="all", fewer=True)) == 5


def test_one_clear_line_for_what_is_wrong(tmp_path, mixed):
    good = [xray(1, No_Finding="1.0"), xray(2, Cardiomegaly="1.0")]

    def broken(name, change, header=CHEXPERT_HEADER):
        rows = [list(row) for row in good]
        change(rows)
        return write_chexpert(tmp_path / name, rows, header=header)

    def cut(rows):
        for row in rows:
            del row[7]

    header = [name for name in CHEXPERT_HEADER if name != "Cardiomegaly"]
    column = broken("column", cut, header)
    label = broken("label", lambda rows: rows[1].__setitem__(9, "2.0"))
    word = broken("word", lambda rows: rows[0].__setitem__(5, "yes"))
    nobody = broken("nobody", lambda rows: rows[0].__setitem__(0, "CheXpert-v1.0-small/train/x/y/1.jpg"))
    empty = broken("empty", lambda rows: None)
    (empty / "train.csv").write_text("")
    (empty / "valid.csv").unlink()
    binary = broken("binary", lambda rows: None)
    (binary / "train.csv").write_bytes(b"\xff\xfe\x00\x80" * 9)
    cases = {
        f"{column}": "train.csv: no column 'Cardiomegaly', only Path, Sex",
        f"{label}": "train.csv: line 3: Lung Lesion is '2.0', none of 1, 0, -1 and blank: take",
        f"{word}": "train.csv: line 2: No Finding is 'yes', none of",
        f"{nobody}": "train.csv: line 2: Path 'CheXpert-v1.0-small/train/x/y/1.jpg' names no patient",
        f"{empty}": "train.csv: cannot be read as CSV",
        f"{binary}": "train.csv: cannot be read as CSV",
        f"{tmp_path / 'nowhere'}": "nowhere: no such folder",
        f"{mixed / 'train'}": "train: neither train.csv nor valid.csv in it: name the folder that CheXpert",
        f"{mixed}?uncertain=maybe": "uncertain='maybe' must be one of ignore, positive, negative",
        f"{mixed}?views=pa": "no option 'views': there are classes=healthy | ",
        f"{mixed}?view": "options 'view' are not written as ?name=value&name=value",
        f"{mixed}?view=pa&view=ap": "an option is given twice",
        f"{mixed}?split_seed=-1": "split_seed='-1' must be a whole number from 0 up",
        f"{mixed}?classes=cyst": "no class 'cyst': there are healthy, ",
    }
    for rest, message in cases.items():
        with pytest.raises(DatasetError) as caught:
            load_images(f"chexpert:{rest}", split="all")
        assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="names its patients itself"):
        load_images(f"chexpert:{mixed}", patient_pattern="x")
    with pytest.raises(DatasetError, match="no class 'edema': there are healthy, cardiomegaly, pn"):
        load_images(f"chexpert:{mixed}", label="edema")


def test_colour_depth_and_shape_of_the_real_files(tmp_path):
    """The small release holds 8-bit grey JPEGs of about 390 x 320; the full one goes to 12 bits in PNG."""
    root = write_chexpert(tmp_path, [xray(1, No_Finding="1.0")])
    file = next(root.rglob("*.jpg"))
    ramp = np.tile(np.linspace(0, 255, 320, dtype=np.uint8), (390, 1))
    Image.fromarray(ramp).save(file, quality=95)
    image = load_images(f"chexpert:{root}", split="all", side=64).images[0]
    assert np.allclose(image[0], image[2]) and (np.diff(image[0].mean(0)) > 0).all()
