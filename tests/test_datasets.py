"""Image sets: folders of every shape and file type, phantoms, splits, selection, bad input."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib import phantoms
from lib.datasets import READERS, DatasetError, classes, load_images, splits
from lib.fidelity import tasks
from lib.folders import FolderSource
from lib.imagesets import UnreadableError, assigned_split
from lib.pixels import read_image
from lib.specs import file_name_of, is_own, name_of
from lib.tasks import UPDATES, UPDATES_OWN, gap_sets, training_sets, updates

REAL = Path(__file__).parents[2] / "shared" / "data"


def save(path, value=0.5, side=12, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 3), round(value * 255), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def fill(folder, count, suffix=".png"):
    """`count` images; image i is grey at i / 255, so that pixels tell which image it is."""
    for i in range(count):
        save(folder / f"p{i:03d}_0{suffix}", i / 255)
    return folder


def greys(images):
    return [round(float(image.mean()) * 255) for image in images]


@pytest.fixture
def divided(tmp_path):
    """train/val/test above two classes, val under another accepted name."""
    root = tmp_path / "scans"
    for split, count in {"train": 6, "valid": 2, "Test": 4}.items():
        for label in ("normal", "tumour"):
            fill(root / split / label, count)
    return root


def test_options_are_part_of_what_an_archives_files_are_called():
    assert file_name_of("chexpert:my/data") == "chexpert" and file_name_of("my/images") == "images"
    spec = "chexpert:data?view=ap&classes=healthy,edema"
    assert file_name_of(spec) == "chexpert-view-ap-classes-healthy-edema" and name_of(spec) == "chexpert"


def test_images_of_ones_own_are_trained_on_for_longer_than_phantoms_unless_told():
    for dataset in ("my/images", "C:\\scans", "pcam:my/pcam"):
        assert is_own(dataset) and updates(None, dataset) == UPDATES_OWN
    for dataset in (None, "phantom:chest", "phantom:chest/healthy"):
        assert not is_own(dataset) and updates(None, dataset) == UPDATES < UPDATES_OWN
    assert updates(7, "my/images") == updates(7, None) == 7
    assert updates(0, None) == 0  # which settings then refuse


def test_names_of_files_are_those_of_the_folder_and_never_too_long(monkeypatch, tmp_path):
    (tmp_path / "here" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "notebooks")
    assert (name_of("."), name_of(".."), name_of("../images/")) == ("notebooks", "here", "images")
    labels = ",".join(f"finding{i:02}" for i in range(20))
    one, other = (file_name_of(f"chexpert:data?view={view}&classes={labels}&top=1") for view in ("ap", "pa"))
    assert one != other and max(map(len, (one, other))) < 130


def test_links_to_patients_are_followed_and_those_to_folders_above_are_not(tmp_path):
    fill(tmp_path / "mine" / "tumour" / "P00", 2)
    fill(tmp_path / "mine" / "normal", 3)
    fill(tmp_path / "far" / "P01", 2)
    (tmp_path / "mine" / "tumour" / "P01").symlink_to(tmp_path / "far" / "P01")
    (tmp_path / "mine" / "tumour" / "again").symlink_to(tmp_path / "far" / "P01")
    (tmp_path / "mine" / "tumour" / "P00" / "above").symlink_to(tmp_path / "mine")
    (tmp_path / "mine" / "tumour" / "P00" / "beside").symlink_to(tmp_path / "mine" / "normal")
    found = load_images(str(tmp_path / "mine"), split="all", side=8)
    assert [found.labels.count(label) for label in ("normal", "tumour")] == [3, 4]
    patients = {p for p, label in zip(found.patients, found.labels, strict=True) if label == "tumour"}
    assert patients == {"P00", "P01"}


def test_formats_that_are_not_read_are_named(tmp_path):
    fill(tmp_path / "tumour", 3)
    for name in ("a.gif", "b.NII.gz", "notes.txt"):
        (tmp_path / "tumour" / name).write_bytes(b"x")
    skipped = dict(load_images(str(tmp_path), split="all", side=8).skipped)
    assert set(skipped) == {"tumour/a.gif", "tumour/b.NII.gz"} and "not read" in skipped["tumour/a.gif"]


def test_patients_whom_subfolders_or_a_pattern_name_are_counted_where_splits_share_them(tmp_path):
    for split in ("train", "test"):
        for patient in ("P0", "P1", f"only-{split}"):
            save(tmp_path / "deep" / split / "tumour" / patient / "x.png")
            save(tmp_path / "flat" / split / "tumour" / f"{patient}_x.png")
    shared = "split as the folders are; patients in more than one: 2"
    assert FolderSource(str(tmp_path / "deep")).rule == shared
    assert FolderSource(str(tmp_path / "flat"), r"^(.+)_").rule == shared
    assert FolderSource(str(tmp_path / "flat")).rule == "split as the folders are"  # numbered anew, maybe


def test_a_class_called_healthy_is_the_first(tmp_path):
    for name in ("abnormal", "No Finding", "pneumonia"):
        fill(tmp_path / name, 2)
    found = load_images(tmp_path, split="all", side=8)
    assert classes(tmp_path) == found.classes == ("No Finding", "abnormal", "pneumonia")
    assert found.labels[:2] == ["No Finding"] * 2


def test_shape_range_and_names(divided):
    found = load_images(divided, side=8)
    assert found.images.shape == (12, 3, 8, 8)
    assert found.images.dtype == np.float32
    assert found.classes == ("normal", "tumour")
    assert found.labels == ["normal"] * 6 + ["tumour"] * 6
    assert sorted(found.ids)[0] == "train/normal/p000_0.png"
    assert len(set(found.ids)) == len(found) == 12
    assert found.patients == [name.split("/")[-1][:-4] for name in found.ids]
    assert found.truth == {} and found.skipped == []
    assert greys(found.images) == [int(name[-9:-6]) for name in found.ids]
    assert load_images(divided).images.shape[-1] == 64


def test_split_folders_are_taken_as_they_are(divided):
    assert splits(divided) == ("train", "val", "test")
    assert classes(divided) == ("normal", "tumour")
    for split, count in {"train": 6, "val": 2, "test": 4, "all": 12, None: 12}.items():
        assert len(load_images(divided, split=split, label="tumour")) == count
    one = load_images(divided / "tumour", split="test")
    assert one.ids == load_images(divided, split="test", label="tumour").ids
    assert one.classes == ("tumour",)
    direct = load_images(divided / "Test" / "tumour", split="test")
    assert direct.ids == one.ids and direct.digest == one.digest
    assert len(load_images(divided / "Test", split="all")) == 8


def test_a_path_into_one_split_never_gives_another(divided):
    with pytest.raises(DatasetError, match=r"is the split 'test', 'train' asked for.*split='test'"):
        load_images(divided / "Test" / "tumour")


def test_missing_split_is_named_with_those_there(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / split, 2)
    assert splits(tmp_path) == ("train", "test")
    with pytest.raises(DatasetError, match="no split 'val': there are train, test"):
        load_images(tmp_path, split="val")
    assert load_images(tmp_path).classes == (tmp_path.name,)


def test_plain_folder_is_split_by_patient_once_and_for_all(tmp_path):
    for label in ("a", "b"):
        fill(tmp_path / label, 150)
    by = {split: load_images(tmp_path, split=split, side=4) for split in splits(tmp_path)}
    assert sum(map(len, by.values())) == 300
    assert 200 < len(by["train"]) < 280 and len(by["val"]) > 10 and len(by["test"]) > 10
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not set(by[one].patients) & set(by[other].patients)
    # The same for another seed, for one class alone, and when other files are gone.
    assert set(load_images(tmp_path, seed=9, side=4).ids) == set(by["train"].ids)
    alone = load_images(tmp_path / "a", side=4)
    assert alone.ids == by["train"].of("a").ids
    for file in list((tmp_path / "a").iterdir())[:70]:
        file.unlink()
    kept = set(load_images(tmp_path, side=4, split="test").ids)
    assert kept < set(by["test"].ids) and kept > set(by["test"].of("b").ids)
    assert "80/10/10" in by["val"].note
    assert len(load_images(tmp_path, n=80, split="all", side=4)) == 160


def test_a_hundred_images_are_enough_for_the_notebooks(tmp_path):
    """They ask for a hundred to train on; the split leaves some eighty."""
    fill(tmp_path / "rarity", 100)
    ((name, _, images, held_out),) = training_sets(str(tmp_path / "rarity"), 100, 50, 8, 0)
    (task,) = tasks(str(tmp_path / "rarity"), 100, 50, 8, 0)
    assert name == "rarity" and 70 < len(images) < 90 and len(held_out)
    assert len(task.train) == len(images) and len(task.real)
    with pytest.raises(DatasetError):  # who names a number in Python means it
        load_images(tmp_path / "rarity", 100, "train")


def test_few_images_are_all_compared_with_and_too_few_are_told(tmp_path):
    for n in (20, 40, 60):
        folder = tmp_path / f"of {n}"
        fill(folder, n)
        held = [load_images(folder, split=s, side=8) for s in splits(str(folder)) if s != "train"]
        total = sum(map(len, held))
        if total < 8:
            with pytest.raises(DatasetError, match=f"{total} images of class .* at least 4"):
                list(tasks(str(folder), 100, 50, 8, 0))
            continue
        (task,) = tasks(str(folder), 100, 50, 8, 0)
        assert min(len(task.real), len(task.second)) >= 4
        assert not {*task.train.ids} & {*task.real.ids, *task.second.ids}
        assert not {*task.real.ids} & {*task.second.ids}


def test_a_class_without_validation_images_is_watched_on_test(tmp_path):
    for split, count in {"train": 4, "val": 2, "test": 3}.items():
        for label in ("normal", "tumour"):
            if (split, label) != ("val", "tumour"):
                fill(tmp_path / split / label, count)
    held = {label: images.split for _, label, _, images in training_sets(str(tmp_path), 9, 9, 8, 0)}
    assert held == {"normal": "val", "tumour": "test"}


def test_a_floor_of_a_class_without_validation_images_is_stopped_on_none_of_val(tmp_path):
    for split, labels in {"train": "ab", "val": "a", "test": "ab"}.items():
        for label in labels:
            fill(tmp_path / split / label, 2)
    ((_, label, train, stop, test),) = gap_sets(str(tmp_path), 2, 8, 0)
    assert (label, len(train), stop, len(test)) == ("b", 2, None, 2)


def test_all_images_are_not_read_where_they_would_fill_the_memory(tmp_path, monkeypatch):
    fill(tmp_path, 6)
    monkeypatch.setattr("lib.imagesets.MEMORY", 5 * 3 * 8 * 8 * 4)
    with pytest.raises(DatasetError, match="6 images of 8 pixels take .* GB of memory: give n"):
        load_images(tmp_path, split="all", side=8)
    assert len(load_images(tmp_path, n=6, split="all", side=8)) == 6


def test_folders_of_patients_are_not_learned_one_by_one(tmp_path):
    for patient in range(21):
        fill(tmp_path / "tumour" / f"P{patient:02d}", 2)
    for sets in (training_sets, tasks):
        with pytest.raises(DatasetError, match=r"21 classes \(P00, P01, P02, \.\.\.\).* are patients"):
            list(sets(str(tmp_path / "tumour"), 9, 9, 8, 0))
    ((_, label, images, _),) = training_sets(str(tmp_path), 100, 9, 8, 0)  # as the line advises
    assert label == "tumour" and len(set(images.patients)) == len(images) // 2 > 9


def test_classes_that_would_share_a_file_are_refused(tmp_path):
    for label in ("healthy", "GGO 3", "ggo-3"):
        fill(tmp_path / label, 2)
    for sets in (training_sets, gap_sets, tasks):
        with pytest.raises(DatasetError, match="'GGO 3' and 'ggo-3' would share a token and a file: rename"):
            list(sets(str(tmp_path), 9, 9, 8, 0))


def test_images_of_one_patient_stay_together(tmp_path):
    for patient in range(40):
        for scan in range(3):
            save(tmp_path / f"{patient:08d}_{scan:03d}.png")
    named = {
        split: set(load_images(tmp_path, split=split, patient_pattern=r"^(\d+)_").patients)
        for split in ("train", "val", "test")
    }
    assert sum(map(len, named.values())) == 40 == len(set.union(*named.values()))
    with pytest.raises(DatasetError, match="no regular expression"):
        load_images(tmp_path, patient_pattern="(")
    with pytest.raises(DatasetError, match="'nobody' matches no file"):
        load_images(tmp_path, patient_pattern="nobody")


@pytest.mark.parametrize("pattern", [None, r"(P\d+)/"])
def test_a_subfolder_of_a_class_is_a_patient(tmp_path, pattern):
    for label in ("normal", "tumour"):
        for patient in range(30):
            fill(tmp_path / label / f"P{patient:02d}", 3)
    named = {}
    for split in ("train", "val", "test"):
        found = load_images(tmp_path, split=split, side=4, patient_pattern=pattern)
        named[split] = set(found.patients)
        assert found.classes == ("normal", "tumour")
    assert sum(map(len, named.values())) == 30 == len(set.union(*named.values()))


def test_assigned_split_does_not_drift():
    # Fixed: a change would move patients between the splits of every user's finished runs.
    found = "".join(assigned_split(f"patient{i}")[1] for i in range(12))  # tRain, vAl, tEst
    assert found == "eerrrrrrerra"


def test_choice_is_seeded_nested_and_blind_to_the_order_of_files(tmp_path, monkeypatch):
    fill(tmp_path / "x", 30)
    few = load_images(tmp_path, n=5, split="all", seed=3)
    many = load_images(tmp_path, n=20, split="all", seed=3)
    assert many.ids[:5] == few.ids and many.subset(slice(5)).digest == few.digest
    other = load_images(tmp_path, n=5, split="all", seed=4)
    assert set(other.ids) != set(few.ids) and other.digest != few.digest
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *a, **k: ((t, d, f[::-1]) for t, d, f in walk(*a, **k)))
    assert load_images(tmp_path, n=5, split="all", seed=3).ids == few.ids


def test_subset_of_and_digest(divided):
    found = load_images(divided, side=4)
    part = found.subset([3, 0])
    assert part.ids == [found.ids[3], found.ids[0]]
    assert np.array_equal(part.images, found.images[[3, 0]])
    mask = np.array(found.labels) == "tumour"
    assert found.subset(mask).ids == found.of("tumour").ids
    assert found.digest == load_images(divided, side=4).digest != part.digest
    with pytest.raises(DatasetError, match="no class 'cyst': there are normal, tumour"):
        found.of("cyst")


@pytest.mark.parametrize(
    ("name", "mode", "grey"),
    [
        ("a.png", "RGB", False),
        ("a.PNG", "L", True),
        ("a.png", "LA", True),
        ("a.png", "RGBA", False),
        ("a.png", "P", False),
        ("a.png", "1", True),
        ("a.tif", "L", True),
        ("a.tiff", "RGB", False),
        ("a.tiff", "CMYK", False),
        ("a.jpg", "RGB", False),
        ("a.JPEG", "L", True),
        ("a.bmp", "RGB", False),
        ("a.webp", "RGB", False),
    ],
)
def test_file_types(tmp_path, name, mode, grey):
    """Left half dark, right half light; red in the upper half of coloured ones."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, 20:] = 255
    if not grey:
        pixels[:20, :, 0] = 255
    Image.fromarray(pixels).convert(mode).save(tmp_path / name)
    found = read_image(tmp_path / name, 20)
    assert found.shape == (3, 20, 20) and found.dtype == np.float32
    want = np.asarray(Image.fromarray(pixels[1::2, 1::2]), np.float32).transpose(2, 0, 1) / 255
    inner = np.s_[:, [3, 16], 3::13]  # away from the edges, where the filter and JPEG blur
    assert np.abs(found - want)[inner].max() < 0.06
    assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_fill_the_range_whatever_the_scanner_used(tmp_path, suffix):
    ramp = np.tile(np.linspace(100, 4095, 32), (32, 1)).astype(np.uint16)  # 12 bits in 16
    Image.fromarray(ramp).save(tmp_path / f"a{suffix}")
    found = read_image(tmp_path / f"a{suffix}", 32)
    want = (ramp - 100.0) / (4095 - 100)
    assert np.abs(found - want).max() < 1e-3
    flat = np.full((8, 8), 700, np.uint16)
    Image.fromarray(flat).save(tmp_path / f"b{suffix}")
    assert not read_image(tmp_path / f"b{suffix}", 8).any()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_tiff_in_which_zero_is_white_is_turned(tmp_path, kind):
    ramp = np.arange(256).reshape(16, 16)
    Image.fromarray(ramp.astype(kind)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as file:
        assert file.tag_v2[262] == 0
    wanted = ramp if kind == np.uint8 else 255 - ramp  # of eight bits, Pillow turns what it writes too
    assert np.abs(read_image(tmp_path / "a.tif", 16)[0] * 255 - wanted).max() < 0.01


def test_float_tiff(tmp_path):
    ramp = np.tile(np.linspace(-3, 5, 16, dtype=np.float32), (16, 1))
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif", 16) - (ramp + 3) / 8).max() < 1e-5
    ramp[3, 3] = np.nan
    Image.fromarray(ramp).save(tmp_path / "b.tif")
    with pytest.raises(UnreadableError, match="not finite"):
        read_image(tmp_path / "b.tif", 16)


def test_centre_square_without_flip_or_aliasing(tmp_path):
    wide = np.zeros((40, 100), np.uint8)
    wide[:, :30] = 255  # outside the central square
    wide[:, 30:40] = 200  # its left quarter
    Image.fromarray(wide).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", 8)[0]
    assert np.allclose(found[:, 0], 200 / 255, atol=0.05) and np.abs(found[:, 4:]).max() < 0.05
    checks = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "b.png")
    assert np.abs(read_image(tmp_path / "b.png", 64)[:, 8:-8, 8:-8] - 0.5).max() < 0.02


def test_transparency_lies_on_black_and_exif_is_honoured(tmp_path):
    pixels = np.full((8, 8, 4), 255, np.uint8)
    pixels[:, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert not read_image(tmp_path / "a.png", 8).any()
    upper = np.zeros((16, 16), np.uint8)
    upper[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # half a turn
    Image.fromarray(upper).save(tmp_path / "b.jpg", exif=exif)
    found = read_image(tmp_path / "b.jpg", 16)[0]
    assert found[:6].max() < 0.1 and found[10:].min() > 0.9


def break_files(folder):
    """Seven kinds of unusable image, by name."""
    whole = save(folder / "whole.png", side=200).read_bytes()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    data = (folder / "noise.png").read_bytes()
    (folder / "truncated.png").write_bytes(data[: len(data) // 2])
    (folder / "noise.png").unlink()
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "flipped.png").write_bytes(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:])
    (folder / "deep.png").write_bytes(deep_colour(np.full((8, 8, 3), 1500)))
    page = Image.new("L", (8, 8))
    page.save(folder / "pages.tif", save_all=True, append_images=[page])
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + whole[33:])
    (folder / "whole.png").unlink()
    return {"truncated.png", "empty.png", "text.jpg", "flipped.png", "pages.tif", "bomb.png", "deep.png"}


def deep_colour(pixels):
    """The bytes of a PNG of 16 bits a channel."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_bad_files_cost_themselves_only(tmp_path):
    fill(tmp_path / "x", 9)
    bad = break_files(tmp_path / "x")
    found = load_images(tmp_path, split="all")
    assert len(found) == 9
    assert {name for name, _ in found.skipped} == {f"x/{name}" for name in bad}
    reasons = dict(found.skipped)
    assert all("\n" not in reason and reason for reason in reasons.values())
    assert "truncated" in reasons["x/truncated.png"]
    assert "decompression bomb" in reasons["x/bomb.png"]
    assert "2 pages" in reasons["x/pages.tif"]
    assert "16 bits" in reasons["x/deep.png"]  # Pillow keeps the upper byte, and 1500 is nearly black then
    assert len(load_images(tmp_path, n=9, split="all")) == 9
    with pytest.raises(DatasetError, match=r"'x' has 9 readable images \(7 unreadable, such as "):
        load_images(tmp_path, n=10, split="all")


def test_large_images_below_the_limit_of_an_error_are_bombs_too(tmp_path, monkeypatch):
    save(tmp_path / "x" / "large.png", side=20)
    fill(tmp_path / "x", 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # 400 only draws a warning from Pillow
    found = load_images(tmp_path, split="all")
    assert [name for name, _ in found.skipped] == ["x/large.png"] and len(found) == 1


def test_folder_of_bad_files_only(tmp_path):
    break_files(tmp_path)
    with pytest.raises(DatasetError, match=r"has 0 readable images \(7 unreadable, such as"):
        load_images(tmp_path, split="all")


def test_what_lies_beside_is_named_and_hidden_files_are_not(divided):
    fill(divided / "masks", 1)
    save(divided / "train" / "overview.png")
    save(divided / "train" / "tumour" / "._p000_0.png")
    save(divided / ".ipynb_checkpoints" / "p.png")
    found = load_images(divided)
    assert len(found) == 12
    assert dict(found.skipped) == {
        "masks/p000_0.png": "beside the split folders",
        "train/overview.png": "beside the class folders",
    }


def test_a_lone_folder_called_test_is_anyones(tmp_path):
    fill(tmp_path / "test" / "scans", 20)
    assert "hash" in load_images(tmp_path / "test" / "scans").note


def test_a_folder_may_have_a_colon_in_its_name(tmp_path, monkeypatch):
    fill(tmp_path / "scan:1", 2)
    monkeypatch.chdir(tmp_path)
    assert load_images("scan:1", split="all").classes == ("scan:1",)


def test_phantoms():
    found = load_images("phantom:prostate", n=3, side=32, seed=1)
    assert found.images.shape == (6, 3, 32, 32) and found.images.dtype == np.float32
    assert found.images.min() >= 0 and found.images.max() <= 1
    assert found.classes == phantoms.MODALITIES["prostate"] == classes("phantom:prostate")
    assert found.truth and all(len(values) == 6 for values in found.truth.values())
    assert len(set(found.ids)) == 6
    one = load_images("phantom:prostate/tumour", n=3, side=32, seed=1)
    assert one.digest == found.of("tumour").digest and one.ids == found.of("tumour").ids
    assert classes("phantom:prostate/tumour") == ("tumour",)
    assert load_images("phantom:prostate", label="tumour", n=3, side=32, seed=1).ids == one.ids
    assert len(found.subset([1, 4]).truth[next(iter(found.truth))]) == 2


@pytest.mark.parametrize("modality", phantoms.MODALITIES)
def test_every_phantom_of_a_modality_shares_its_truth(modality):
    found = load_images(f"phantom:{modality}", n=1, side=32)
    assert found.labels == list(phantoms.MODALITIES[modality])
    assert all(len(values) == len(found) for values in found.truth.values())


def test_phantoms_of_two_splits_or_seeds_share_no_image():
    seen = set()
    for seed in (0, 1, 2):
        for split in splits("phantom:chest"):
            found = load_images("phantom:chest/healthy", n=2, split=split, seed=seed, side=16)
            seen |= {image.tobytes() for image in found.images}
    assert len(seen) == 3 * 3 * 2


def test_a_reader_can_be_added(monkeypatch, tmp_path):
    class Mine(FolderSource):
        def __init__(self, rest, pattern):
            super().__init__(tmp_path / rest, pattern)

    fill(tmp_path / "some" / "x", 3)
    monkeypatch.setitem(READERS, "mine", Mine)
    found = load_images("mine:some", split="all", patient_pattern=r"^p(\d+)")
    assert sorted(found.patients) == ["000", "001", "002"] and found.spec == "mine:some"


@pytest.mark.skipif(not REAL.is_dir(), reason="no real images beside the repository")
@pytest.mark.parametrize("name", ["nih-chest-xray", "pcam", "picai-t2w"])
def test_real_images(name):
    train = load_images(REAL / name, n=20, side=32)
    test = load_images(REAL / name, n=20, split="test", side=32)
    assert len(train) == len(test) == 40 and not train.skipped
    assert not set(train.patients) & set(test.patients)
    assert train.images.std() > 0.05
    assert ("val" in splits(REAL / name)) == (name != "picai-t2w")
