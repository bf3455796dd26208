"""PatchCamelyon: patches read lazily, slides that stay together, and HDF5 files cut short."""

import h5py
import numpy as np
import pytest
from made_archives import write_pcam

from lib.datasets import DatasetError, classes, load_images, split_table, splits


@pytest.fixture
def root(tmp_path):
    return write_pcam(tmp_path / "pcam")


def test_patches_labels_and_splits(root):
    spec = f"pcam:{root}"
    assert classes(spec) == ("normal", "tumour") and splits(spec) == ("train", "val", "test")
    found = load_images(spec, n=5, side=96)
    assert found.images.shape == (10, 3, 96, 96) and found.labels == ["normal"] * 5 + ["tumour"] * 5
    for name, label, image in zip(found.ids, found.labels, found.images, strict=True):
        row = int(name.removeprefix("train/"))
        assert (row % 2 == 1) == (label == "tumour")
        assert np.allclose(image[1] * 255, row, atol=1e-3)
        assert image[0, 48, 48] * 255 == pytest.approx(250 if label == "tumour" else row, abs=1e-3)
    held = load_images(spec, split="val", side=8)
    assert len(held) == 8 and all(name.startswith("val/") for name in held.ids)
    assert held.note.startswith("split as the files are; no seed")
    assert load_images(spec, n=3, side=96, label="tumour").ids == found.of("tumour").ids[:3]
    assert len(load_images(spec, split="all", side=4)) == 40
    assert load_images(f"{spec}?classes=tumour", n=2).classes == ("tumour",)


def test_only_the_chosen_rows_are_read(root, monkeypatch):
    """262,144 patches must not be read to pick 100."""
    read = []
    whole = h5py.Dataset.__getitem__

    def spy(self, key, *rest):
        if self.name == "/x":
            read.append(key)
        return whole(self, key, *rest)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    found = load_images(f"pcam:{root}", n=3)
    assert sorted(read) == sorted(int(name.removeprefix("train/")) for name in found.ids)


def test_a_slide_stays_in_one_split_and_the_note_says_without_a_table(tmp_path):
    slides = {"train": ["a"] * 10 + ["b"] * 10 + ["c"] * 4, "valid": ["d"] * 8, "test": ["c", "e"] * 4}
    spec = f"pcam:{write_pcam(tmp_path, slides=slides)}"
    train = load_images(spec, side=4)
    assert set(train.patients) == {"a", "b"} and len(train) == 20
    assert [name for name, _ in train.skipped] == ["c"]
    assert "skipped 1 x slide of a later split too" in train.note
    table = split_table(spec)
    assert table.groupby("patient").split.nunique().eq(1).all() and len(table) == 36
    (tmp_path / "camelyonpatch_level_2_split_train_meta.csv").unlink()
    bare = load_images(spec, side=4)
    assert len(bare) == 24 and bare.patients == bare.ids
    assert "split_train_meta.csv: each patch of train counts as a patient" in bare.note


def test_a_damaged_chunk_costs_its_patches(tmp_path):
    root = write_pcam(tmp_path, chunks=(1, 96, 96, 3), compression="gzip")
    file = root / "camelyonpatch_level_2_split_train_x.h5"
    with h5py.File(file) as opened:
        place = opened["x"].id.get_chunk_info_by_coord((4, 0, 0, 0))
    with file.open("r+b") as stream:
        stream.seek(place.byte_offset)
        stream.write(b"\xff" * place.size)
    found = load_images(f"pcam:{root}", side=4)
    assert len(found) == 23 and [name for name, _ in found.skipped] == ["train/000004"]
    assert "row 4 of camelyonpatch_level_2_split_train_x.h5: download" in found.skipped[0][1]


def test_one_clear_line_for_what_is_wrong(root, tmp_path):
    stem = "camelyonpatch_level_2_split_"

    def raises(message, **wanted):
        with pytest.raises(DatasetError) as caught:
            load_images(f"pcam:{root}", **wanted)
        assert message in str(caught.value) and "\n" not in str(caught.value)

    file = root / f"{stem}train_x.h5"
    kept = file.read_bytes()
    file.write_bytes(kept[: len(kept) // 2])
    raises(f"{stem}train_x.h5: damaged or cut short")
    raises("download it again and compare its checksum")
    assert len(load_images(f"pcam:{root}", split="test", side=4)) == 8  # the other splits can be read
    file.rename(root / f"{stem}train_x.h5.gz")
    raises(f"{stem}train_x.h5: no such file: gunzip {stem}train_x.h5.gz")
    file.write_bytes(kept)

    def rewrite(name, key, values):
        with h5py.File(root / f"{stem}{name}.h5", "w") as opened:
            opened.create_dataset(key, data=values)

    rewrite("test_y", "y", np.full((8, 1, 1, 1), 3, np.uint8))
    raises("test_y.h5: label 3 in row 0, neither 0 nor 1", split="test")
    rewrite("test_y", "z", np.zeros(8, np.uint8))
    raises("test_y.h5: no data set 'y', only z", split="test")
    rewrite("valid_y", "y", np.zeros((5, 1, 1, 1), np.uint8))
    raises("valid_x.h5: x is uint8 (8, 96, 96, 3), not uint8 (5, 96, 96, 3)", split="val")
    (root / f"{stem}train_meta.csv").write_text("wsi\na\n")
    raises("train_meta.csv: 1 rows for 24 patches")
    (root / f"{stem}train_meta.csv").write_text("slide\na\n")
    raises("train_meta.csv: no column 'wsi', only slide")
    with pytest.raises(DatasetError, match="no camelyonpatch_level_2_split_train_x.h5 in it"):
        load_images(f"pcam:{tmp_path}")
