"""DICOM: grey as its window or table shows it, colour, patients, and what cannot be read."""

import io

import numpy as np
import pytest
from made_archives import write_dicom
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
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
    high = {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}
    window = {"WindowCenter": 300, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}
    for turned, tags in ((False, {}), (True, {}), (False, window), (True, window)):
        tags = tags | high | ({"PhotometricInterpretation": "MONOCHROME1"} if turned else {})
        found = read_image(write_dicom(tmp_path / "d.dcm", of_values(100, 200, 500, 4050), **tags), SIDE)
        want = np.array([0, 0.25, 1])
        assert np.abs(found[0, 0, ::2] - [*(1 - want if turned else want), 0]).max() < 1e-6


def test_padding_that_lost_its_sign(tmp_path):
    """As GE's scanners write it: US beside signed values."""
    file = write_dicom(tmp_path / "a.dcm", of_values(-2000, 100, 300, 500))
    header = dcmread(file)
    header.add_new("PixelPaddingValue", "US", 63536)
    header.save_as(file)
    assert np.abs(read_image(file, SIDE)[0, 0, ::2] - [0, 0, 0.5, 1]).max() < 1e-6


@pytest.mark.parametrize(
    "tags",
    [
        {"VOILUTFunction": ""},
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"PixelPaddingValue": -5, "PixelPaddingRangeLimit": None},
        {"WindowCenter": 1, "WindowWidth": 0},
        {"WindowCenter": 1, "WindowWidth": None},
    ],
)
def test_a_tag_that_says_nothing_costs_no_image(tmp_path, tags):
    found = read_image(write_dicom(tmp_path / "a.dcm", of_values(100, 200, 300, 500), **tags), SIDE)
    assert np.abs(found[0, 0, ::2] - [0, 0.25, 0.5, 1]).max() < 1e-6


def test_the_least_value_of_monochrome1_is_white(tmp_path):
    tags = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 2048, "WindowWidth": 4096}
    values = of_values(0, 4095, dtype=np.uint16)
    found = read_image(write_dicom(tmp_path / "a.dcm", values, BitsStored=12, HighBit=11, **tags), SIDE)
    assert (found[:, :, 0] == 1).all() and not found[:, :, -1].any()


@pytest.mark.parametrize(
    ("descriptor", "entries", "stored", "want"),
    [
        ([4, 10, 16], [0, 100, 400, 1000], (0, 11, 12, 99), (0, 0.1, 0.4, 1)),
        ([4096, 0, 8], np.arange(4096) // 16, (0, 256, 2048, 4095), (0, 16 / 255, 128 / 255, 1)),
        ([4096, 0, 12], np.arange(4096), (1000, 1100, 1500, 2000), np.array([1000, 1100, 1500, 2000]) / 4095),
    ],
)
def test_a_table_stands_in_for_a_window(tmp_path, descriptor, entries, stored, want):
    """Its own range is shown, not that of the image; of 8-bit entries there may be more than 256."""
    table = Dataset()
    table.LUTDescriptor, table.LUTData = descriptor, [int(entry) for entry in entries]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    values = of_values(*stored, dtype=np.uint16)
    found = read_image(write_dicom(tmp_path / "a.dcm", values, VOILUTSequence=[table]), SIDE)
    assert np.abs(found[0, 0, ::2] - want).max() < 1e-6


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


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")  # which is written on purpose
def test_what_cannot_be_read_says_why(tmp_path):
    grey, deep = of_values(0, 1), np.zeros((SIDE, SIDE, 3), np.uint16)
    cases = [
        (write_dicom(tmp_path / "frames.dcm", grey, NumberOfFrames=3), "3 frames"),
        (write_dicom(tmp_path / "deep.dcm", deep), "RGB of 16 bits"),
        (
            write_dicom(tmp_path / "l.dcm", grey, JPEGLossless, b"\xff\xd8\xff\xd9"),
            "JPEG Lossless",
        ),
        (write_dicom(tmp_path / "nan.dcm", grey, RescaleSlope="nan", RescaleIntercept=0), "not finite"),
        (write_dicom(tmp_path / "hsv.dcm", deep.astype(np.uint8), PhotometricInterpretation="HSV"), "HSV"),
        (
            write_dicom(tmp_path / "new.dcm", grey, SharedFunctionalGroupsSequence=[Dataset()]),
            "enhanced",
        ),
    ]
    deflated = write_dicom(tmp_path / "deflated.dcm", grey)
    header = dcmread(deflated)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(deflated)
    assert read_image(deflated, SIDE).any()
    deflated.write_bytes(deflated.read_bytes()[:-90])
    cases.append((deflated, "decompressing|stream|without an image"))
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


@pytest.mark.parametrize("name", ["ANONYMOUS", ""])
def test_files_that_name_no_patient_are_told_by_their_studies(tmp_path, name):
    """Forty studies of three images; and reports and a damaged file, which name nobody, beside them."""
    for study in range(40):
        for image in range(3):
            tags = {"PatientID": name, "StudyInstanceUID": f"1.2.{study}"}
            write_dicom(tmp_path / "tumour" / f"IM{study:02}{image}", of_values(0, study + 1), **tags)
    (tmp_path / "tumour" / "broken.dcm").write_bytes(b"")
    report = dcmread(write_dicom(tmp_path / "reports" / "SR1", of_values(0)))
    del report.PixelData, report.Rows, report.Columns
    report.save_as(tmp_path / "reports" / "SR1")
    source = FolderSource(str(tmp_path))
    assert source.classes == ("tumour",) and source.splits == ("train", "val", "test")
    assert source.skipped == [("reports/SR1", "DICOM without an image in it")]
    of = {}
    for candidate in source.candidates:
        of.setdefault(candidate.id[:-1], set()).add((candidate.patient, candidate.split))
    del of["tumour/broken.dc"]
    assert len(of) == 40 and all(len(where) == 1 for where in of.values())
    assert "of 41 patients" in source.rule


def test_the_studies_of_a_patients_folder_stay_together_where_files_name_nobody(tmp_path):
    for patient in range(40):
        for study in range(3):
            tags = {"PatientID": "ANON", "StudyInstanceUID": f"1.2.{patient}.{study}"}
            file = tmp_path / "tumour" / f"P{patient:02}" / f"study{study}" / "IM0"
            write_dicom(file, of_values(0, patient + 1), **tags)
    source, of = FolderSource(str(tmp_path)), {}
    for candidate in source.candidates:
        of.setdefault(candidate.id.split("/")[1], set()).add((candidate.patient, candidate.split))
    assert len(of) == 40 and all(len(where) == 1 for where in of.values())
    assert "of 40 patients" in source.rule


def test_all_of_a_patients_folder_is_of_whom_its_dicom_names(tmp_path):
    """An image beside the DICOM that it was exported from, and a file without its tag."""
    for patient in range(30):
        folder = tmp_path / "tumour" / f"P{patient:02}"
        write_dicom(folder / "a.dcm", of_values(0, patient + 1), PatientID=f"MRN-{patient}")
        write_dicom(folder / "b.dcm", of_values(0, patient + 1), PatientID="")
        Image.new("L", (SIDE, SIDE), patient).save(folder / "a.png")
    two = tmp_path / "tumour" / "both"  # of two patients: whose the third is nobody can say
    for patient in (0, 1):
        write_dicom(two / f"{patient}.dcm", of_values(0, 1), PatientID=f"MRN-{patient}")
    write_dicom(two / "blank.dcm", of_values(0, 1), PatientID="")
    of = {}
    for candidate in FolderSource(str(tmp_path)).candidates:
        of.setdefault(candidate.id.split("/")[1], set()).add((candidate.patient, candidate.split))
    both = {patient for patient, _ in of.pop("both")}
    assert all(len(where) == 1 for where in of.values()) and "both" in both and len(both) == 3
    assert len({patient for where in of.values() for patient, _ in where}) == 30


@pytest.mark.parametrize("name", ["{:02}.dcm", "1.2.840.113619.{}", "IM.{:04}"])
def test_files_that_name_nobody_are_told_by_their_own_names(tmp_path, name):
    names = [name.format(image) for image in range(30)]
    for image, own in enumerate(names):
        write_dicom(tmp_path / own, of_values(0, image + 1), PatientID="ANONYMOUS")
    found = {c.patient for c in FolderSource(str(tmp_path)).candidates}
    assert found == {own.removesuffix(".dcm") for own in names}


def test_patients_who_are_called_classes_are_refused(tmp_path):
    """As discs are written, a folder a patient: each would be learned, and files called by the name."""
    for patient in ("DOE_JANE", "POE_ANNE", "ROE_RICHARD"):
        write_dicom(tmp_path / patient / "IM0", of_values(0, 1), PatientID=patient)
    with pytest.raises(DatasetError, match="each of its 3 subfolders is of one patient"):
        FolderSource(str(tmp_path))
    write_dicom(tmp_path / "ROE_RICHARD" / "IM1", of_values(0, 2), PatientID="")
    with pytest.raises(DatasetError, match="each of its 3 subfolders is of one patient"):
        FolderSource(str(tmp_path))
    write_dicom(tmp_path / "POE_ANNE" / "IM1", of_values(0, 2), PatientID="another")
    assert len(FolderSource(str(tmp_path)).classes) == 3


def test_a_patient_to_whom_two_splits_are_linked_is_one(tmp_path):
    for patient in (1, 2, 3):
        write_dicom(tmp_path / "disc" / f"D{patient}" / "IM0", of_values(0, 1), PatientID=f"MRN-{patient}")
    for split, own in (("train", 1), ("test", 2)):
        folder = tmp_path / "mine" / split / "tumour"
        folder.mkdir(parents=True)
        for disc in (own, 3):
            (folder / f"{split}{disc}").symlink_to(tmp_path / "disc" / f"D{disc}")
    source = FolderSource(str(tmp_path / "mine"))
    assert len({candidate.patient for candidate in source.candidates}) == 3 and len(source.candidates) == 4
    assert source.rule == "split as the folders are; patients in more than one: 1"


def test_patients_in_more_than_one_given_split_are_counted(tmp_path):
    for split, patients in (("train", (1, 2, 3)), ("test", (3, 4))):
        for patient in patients:
            write_dicom(tmp_path / split / f"{patient}.dcm", of_values(0, 1), PatientID=f"MRN-{patient}")
    assert FolderSource(str(tmp_path)).rule == "split as the folders are; patients in more than one: 1"


def test_a_folder_without_images_names_dicom(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DatasetError, match="bmp, dcm, jpeg"):
        load_images(str(tmp_path))
