"""PI-CAI: channels, slice, masks and skips, and files that are not what they should be."""

import numpy as np
import pytest
import SimpleITK as sitk
from made_archives import (
    BOSMA,
    GLAND,
    MARKSHEET,
    ORIGINAL,
    PICAI_HEADER,
    POOCH,
    RESAMPLED,
    MadePiCai,
    write_volume,
)

from lib.datasets import DatasetError, load_images, split_table


@pytest.fixture
def made(tmp_path):
    return MadePiCai(tmp_path)


def load(made, label=None, options="", **wanted):
    return load_images(made.close().spec + options, split="all", side=60, label=label, **wanted)


def pixel(x, y, side=60, field=150.0):
    """Row and column of a point [mm] from the middle of the crop."""
    return tuple(int((at / field + 0.5) * side) for at in (y, x))


def test_channels_slice_and_masks(made):
    made.study(1)
    made.study(2, tumour=True, place=(20, -30, 3.6))
    found = load(made)
    assert found.labels == ["normal", "tumour"] and found.patients == ["1", "2"]
    assert found.ids == ["1_1000001", "2_1000002"]
    assert found.images.shape == (2, 3, 60, 60) and found.images.dtype == np.float32
    assert found.images.min() >= 0 and found.images.max() <= 1
    assert {name: mask.shape for name, mask in found.truth.items()} == {
        "lesion": (2, 60, 60),
        "gland": (2, 60, 60),
    }
    assert not found.truth["lesion"][0].any() and found.truth["gland"].any((1, 2)).all()
    # Cancer: dark on ADC (green), bright on DWI (blue), under its mask and nowhere else.
    lesion = found.truth["lesion"][1]
    assert lesion[pixel(20, -30)] and not lesion[pixel(-20, 30)]
    assert abs(lesion.sum() * 2.5**2 / (np.pi * 6**2) - 1) < 0.25  # area of the ball's largest slice [mm2]
    _, adc, dwi = found.images[1]
    assert adc[lesion].mean() < 0.4 < 0.9 < adc[~lesion].mean()
    assert dwi[lesion].mean() > 0.6 > 0.1 > dwi[~lesion].mean()
    # The gland is bright on T2W (red) and stands in the middle.
    assert found.images[1][0][pixel(0, 0)] > 0.7 > 0.3 > found.images[1][0][pixel(-60, -60)]


def test_volumes_are_laid_onto_each_other_by_their_place_in_the_scanner(made):
    """ADC and DWI taken off centre show the lesion where T2W has it."""
    name = made.study(1, tumour=True, place=(6, -4, 3.6))
    for modality in ("adc", "hbv"):
        made.diffusion(name, modality, place=(6, -4, 3.6), centre=(9, 6, 0))
    found = load(made)
    lesion = found.truth["lesion"][0]
    assert found.images[0][1][lesion].mean() < 0.4 and found.images[0][2][lesion].mean() > 0.6


@pytest.mark.parametrize("folder", [POOCH, ORIGINAL])
def test_delineations_of_each_folder(made, folder):
    made.study(1, tumour=True, folder=folder)
    assert load(made).truth["lesion"].any()


def test_what_lacks_a_file_is_skipped_by_name_and_counted(made):
    made.study(1)
    made.study(2, tumour=True)
    made.study(3, gland=False)
    no_lesion = [made.study(i, tumour=True, lesion=False) for i in (4, 5)]
    by_ai = made.study(6, tumour=True, folder=BOSMA)
    no_volume = made.study(7)
    made.volume(no_volume, "hbv").unlink()
    found = load(made)
    assert found.patients == ["1", "2"]
    reasons = dict(found.skipped)
    assert reasons.keys() == {"3_1000003", *no_lesion, by_ai, no_volume}
    assert reasons["3_1000003"].startswith(f"no gland delineation: 3_1000003.nii.gz not in {GLAND}: update")
    assert "or take lesions=combined" in reasons[by_ai]
    assert reasons[no_volume].startswith(f"no volume: {no_volume}_hbv.mha under")
    assert "skipped 3 x no lesion delineation" in found.note
    assert "skipped 1 x no gland delineation" in found.note and "skipped 1 x no volume" in found.note
    combined = load(made, "tumour", "?lesions=combined")
    assert set(combined.patients) == {"2", "6"} and combined.truth["lesion"].any((1, 2)).all()


def test_patients_are_split_whole(made, monkeypatch):
    for patient in range(30):
        for study in (1, 2):
            made.study(patient, study=100 * patient + study, volumes=False)
    table = split_table(made.close().spec)
    assert len(table) == 60 and set(table.split) >= {"train", "test"}
    assert table.groupby("patient").split.nunique().eq(1).all()
    assert "split_seed 0" in table.rule[0]


def test_folds_and_added_columns(made):
    """The images as five folds beside each other; marksheet columns in another order, with new ones."""
    name = made.study(1)
    fold = made.images / "public_training_images_fold0"
    fold.mkdir()
    (made.images / "1").rename(fold / "1")
    made.rows = [["new", *row] for row in made.rows]
    made.close(["added", *PICAI_HEADER])
    assert load_images(made.spec, split="all", side=8).ids == [name]


def test_one_clear_line_for_a_damaged_volume_or_mask(made):
    made.study(1)
    broken = {
        "empty gland delineation: Bosma22b/{}.nii.gz has no voxel set": made.study(2),
        "not readable: {}_t2w.mha: download it again": made.study(3),
        "volumes disagree: {}_adc.mha (10 x 10 x 9 voxels, 30 x 30 x 32 mm) covers 4% of": made.study(4),
        "nothing in it: every voxel of {}_hbv.mha is 7: download it again": made.study(5),
        "not readable: {}.nii.gz: download it again": made.study(6),
        "lesion in a normal study: resampled/{}.nii.gz has voxels set": made.study(7, lesion=True),
        "not a volume: {}_t2w.mha is 80 x 80: take the file": made.study(8),
    }
    _, empty, cut, small, flat, gland, _, plane = made.names
    made.mask(GLAND, empty, np.zeros(made.T2W[0], np.uint8))
    for file in (made.volume(cut, "t2w"), made.labels / GLAND / f"{gland}.nii.gz"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    write_volume(made.volume(small, "adc"), np.arange(900, dtype=np.int16).reshape(9, 10, 10), (3, 3, 3.6))
    write_volume(made.volume(flat, "hbv"), np.full(made.DIFFUSION[0], 7, np.int16), made.DIFFUSION[1])
    sitk.WriteImage(sitk.GetImageFromArray(np.eye(80, dtype=np.int16)), str(made.volume(plane, "t2w")))
    found = load(made)
    assert found.patients == ["1"]
    reasons = dict(found.skipped)
    for text, name in broken.items():
        assert text.format(name) in reasons[name] and "\n" not in reasons[name]
    with pytest.raises(DatasetError, match="'normal' has 1 readable images .7 unreadable, such as"):
        load(made, n=2)


def test_a_lesion_mask_without_voxels_is_named(made):
    name = made.study(1, tumour=True)
    made.mask(RESAMPLED, name, np.zeros(made.T2W[0], np.uint8))
    with pytest.raises(DatasetError) as caught:
        load(made)
    line = str(caught.value)
    assert f"empty lesion delineation: resampled/{name}.nii.gz has no voxel set" in line
    assert "download it again, or remove it" in line and "\n" not in line


def test_one_clear_line_for_a_wrong_marksheet_or_folder(made, tmp_path):
    made.study(1)
    made.close([column if column != "case_csPCa" else "csPCa" for column in PICAI_HEADER])
    with pytest.raises(DatasetError, match=r"marksheet.csv: no column 'case_csPCa', only patient_id, "):
        load_images(made.spec)
    made.rows[0][PICAI_HEADER.index("case_csPCa")] = "MAYBE"
    with pytest.raises(DatasetError, match="marksheet.csv: line 2: patient 1, .* case_csPCa MAYBE: two"):
        load(made)
    (made.labels / MARKSHEET).unlink()
    with pytest.raises(DatasetError, match=r"marksheet.csv: no such file: is this the folder"):
        load_images(made.spec)
    with pytest.raises(DatasetError, match="name two folders with a comma between: IMAGES,LABELS"):
        load_images(f"picai:{made.images}")
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        load_images(f"picai:{made.images},{tmp_path / 'nowhere'}")
