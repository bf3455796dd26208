"""DICOM: grey as its window or table shows it, colour, patients, and what cannot be read."""

import io

import numpy as np
import pytest
from made_archives import write_dicom
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    RLELossless,
)

from lib.datasets import DatasetError, load_images
from lib.folders import FolderSource
from lib.imagesets import UnreadableError
from lib.pixels import read_image

SIDE = 8


def of_values(*values, dtype=np.int16):
    """[SIDE, SIDE]: the values in columns of equal width."""
    return np.repeat(np.array(values, dtype), SIDE // len(values))[None].repeat(SIDE, 0)


def test_a_window_is_that_of_the_file_in_the_units_of_the_modality(tmp_path):
    """CT: stored values and 1024 less are Hounsfield units; the first of two windows, by PS3.3 C.11.2.1.2."""
    units = np.array([-1024, -100, 0, 40, 100, 200, 240, 3000])
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    tags |= {"WindowCenter": [40, -600], "WindowWidth": [400, 1500]}
    found = read_image(write_dicom(tmp_path / "a.dcm", of_values(*(units + 1024)), **tags), SIDE)
    assert found.shape == (3, SIDE, SIDE) and found.dtype == np.float32
    want = ((units - 39.5) / 399 + 0.5).clip(0, 1)
    assert np.abs(found - want).max() < 1e-6
    exact = {"WindowCenter": 0.5, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"}
    found = read_image(write_dicom(tmp_path / "b.dcm", of_values(0, 1, dtype=np.uint16), **exact), SIDE)
    assert not found[:, :, : SIDE // 2].any() and (found[:, :, SIDE // 2 :] == 1).all()
    soft = {"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "SIGMOID"}
    found = read_image(write_dicom(tmp_path / "c.dcm", of_values(0, 90, 100, 400), **soft), SIDE)
    want = 1 / (1 + np.exp(-4 * (np.array([0, 90, 100, 400]) - 100) / 50))
    assert np.abs(found[0, 0, ::2] - want).max() < 1e-6


def test_without_a_window_values_fill_the_range_and_padding_is_black(tmp_path):
    values = of_values(-2000, 100, 300, 500)
    found = read_image(write_dicom(tmp_path / "a.dcm", values, PixelPaddingValue=-2000), SIDE)
    assert np.abs(found[0, 0, ::2] - [0, 0, 0.5, 1]).max() < 1e-6
    empty = {"WindowCenter": None, "WindowWidth": None}
    found = read_image(write_dicom(tmp_path / "b.dcm", values, **empty), SIDE)
    assert np.abs(found[0, 0, ::2] - [0, 0.84, 0.92, 1]).max() < 1e-6
    assert not read_image(write_dicom(tmp_path / "c.dcm", of_values(7)), SIDE).any()


def test_the_least_value_of_monochrome1_is_white(tmp_path):
    tags = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 2048, "WindowWidth": 4096}
    values = of_values(0, 4095, dtype=np.uint16)
    found = read_image(write_dicom(tmp_path / "a.dcm", values, BitsStored=12, HighBit=11, **tags), SIDE)
    assert (found[:, :, 0] == 1).all() and not found[:, :, -1].any()


def test_a_table_stands_in_for_a_window(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 10, 16], [0, 100, 400, 1000]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    values = of_values(0, 11, 12, 99, dtype=np.uint16)
    found = read_image(write_dicom(tmp_path / "a.dcm", values, VOILUTSequence=[table]), SIDE)
    assert np.abs(found[0, 0, ::2] - [0, 0.1, 0.4, 1]).max() < 1e-6


def test_colour(tmp_path):
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:, : SIDE // 2] = 200, 30, 90
    found = read_image(write_dicom(tmp_path / "a.dcm", pixels), SIDE)
    assert np.abs(found[:, :, 0] - np.array([[200], [30], [90]]) / 255).max() < 1e-6
    assert not found[:, :, -1].any()
    other = np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    found = read_image(write_dicom(tmp_path / "b.dcm", other, PhotometricInterpretation="YBR_FULL"), SIDE)
    assert np.abs(found[:, :, 0] - np.array([[200], [30], [90]]) / 255).max() < 0.01


@pytest.mark.parametrize(("syntax", "kind"), [(JPEGBaseline8Bit, "JPEG"), (JPEG2000Lossless, "JPEG2000")])
def test_compressed(tmp_path, syntax, kind):
    pixels, stream = of_values(20, 220, dtype=np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    window = {"WindowCenter": 128, "WindowWidth": 256}
    file = write_dicom(tmp_path / "a.dcm", pixels, syntax, stream.getvalue(), **window)
    assert np.abs(read_image(file, SIDE) - pixels / 255).max() < 0.02


def test_run_lengths(tmp_path):
    header = dcmread(write_dicom(tmp_path / "a.dcm", of_values(100, 300, 500, 900)))
    header.compress(RLELossless)
    header.save_as(tmp_path / "a.dcm")
    assert np.abs(read_image(tmp_path / "a.dcm", SIDE)[0, 0, ::2] - [0, 0.25, 0.5, 1]).max() < 1e-6


def test_what_cannot_be_read_says_why(tmp_path):
    grey, deep = of_values(0, 1), np.zeros((SIDE, SIDE, 3), np.uint16)
    cases = [
        (write_dicom(tmp_path / "frames.dcm", grey, NumberOfFrames=3), "3 frames"),
        (write_dicom(tmp_path / "deep.dcm", deep), "RGB of 16 bits"),
        (
            write_dicom(tmp_path / "l.dcm", grey, JPEGLossless, b"\xff\xd8\xff\xd9"),
            "JPEG Lossless",
        ),
        (write_dicom(tmp_path / "w.dcm", grey, WindowCenter=1, WindowWidth=0), "Window Width"),
    ]
    whole = write_dicom(tmp_path / "whole.dcm", grey).read_bytes()
    for name, data, why in (
        ("cut.dcm", whole[:-40], "bytes"),
        ("header.dcm", whole[:200], "without an image"),
        ("empty.dcm", b"", "DICOM"),
        ("text.dcm", b"hello " * 99, "not a DICOM file"),
    ):
        (tmp_path / name).write_bytes(data)
        cases.append((tmp_path / name, why))
    report = write_dicom(tmp_path / "report.dcm", grey)
    header = dcmread(report)
    del header.PixelData
    header.save_as(report)
    cases.append((report, "without an image"))
    for file, why in cases:
        with pytest.raises(UnreadableError, match=why) as raised:
            read_image(file, SIDE)
        assert "\n" not in str(raised.value)
    found = load_images(str(tmp_path), split="all", side=SIDE)
    assert found.ids == [f"{tmp_path.name}/whole.dcm"] and len(found.skipped) == len(cases)


def test_images_of_a_patient_stay_together_and_nobody_is_named(tmp_path):
    """Files as scanners name them, under numbers; three of each of forty patients."""
    for patient in range(40):
        for image in range(3):
            pixels = of_values(0, patient + 1, image + 50, 99)
            write_dicom(tmp_path / "tumour" / f"IM{patient:02}{image}", pixels, PatientID=f"MRN-{patient}")
    write_dicom(tmp_path / "tumour" / "DICOMDIR", of_values(0))
    (tmp_path / "tumour" / "README").write_text("no image")
    source = FolderSource(str(tmp_path))
    assert len(source.candidates) == 120 and source.skipped == []
    of = {}
    for candidate in source.candidates:
        of.setdefault(candidate.id[:-1], set()).add((candidate.patient, candidate.split))
    assert len(of) == 40 and all(len(where) == 1 for where in of.values())
    assert len({patient for where in of.values() for patient, _ in where}) == 40
    assert len({split for where in of.values() for _, split in where}) == 3
    found = load_images(str(tmp_path), split="all", side=SIDE)
    assert "MRN" not in repr(found.patients) + repr(found.ids)


def test_files_that_all_name_one_patient_are_told_by_their_names(tmp_path):
    for image in range(30):
        write_dicom(tmp_path / f"{image:02}.dcm", of_values(0, image + 1), PatientID="ANONYMOUS")
    assert {c.patient for c in FolderSource(str(tmp_path)).candidates} == {f"{i:02}" for i in range(30)}


def test_a_folder_without_images_names_dicom(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DatasetError, match="bmp, dcm, jpeg"):
        load_images(str(tmp_path))
