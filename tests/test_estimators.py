"""The estimators: how well they read held-out phantoms, and that they read pixels alone."""

import numpy as np
import pytest

from lib.descriptors import haematoxylin, mask_contrast
from lib.estimators import (
    FINDINGS,
    QUANTITIES,
    EstimatorError,
    _phantoms,
    groups,
    is_fitted,
    reader,
    validation,
)
from lib.phantoms import MODALITIES, draw

#: Fitted on few phantoms, to be quick; readers of the full size do better.
SIZES = {"prostate": 400, "chest": 800, "histology": 240}
LEAST_R = {
    "prostate": {"conspicuity": 0.5},
    "chest": {"ctr": 0.85, "effusion_right": 0.8, "effusion_left": 0.8, "effusion": 0.75, "opacity": 0.5},
    "histology": {"count": 0.93, "area": 0.85, "pleomorphism": 0.7, "tumour_share": 0.75},
}
LEAST_AUC = {"tumour": 0.75, "cardiomegaly": 0.82, "effusion": 0.85, "pneumonia": 0.75}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """One runs/ for all of these tests: a reader is fitted once and read again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MDB_RUNS", str(tmp_path_factory.mktemp("readers")))
        yield


@pytest.fixture(scope="module", params=MODALITIES)
def fitted(request, kept):
    return reader(request.param, SIZES[request.param])


@pytest.mark.slow
class TestReader:
    def test_held_out_phantoms_are_read(self, fitted):
        read = validation(fitted.modality, 240, fitted=fitted).set_index(["measure", "what"])
        table, found = read.loc["r"], read.loc["AUC"]
        for quantity, least in LEAST_R[fitted.modality].items():
            assert table.value[quantity] > least, quantity
            assert table.error[quantity] < table.truth_sd[quantity], quantity
        for finding in FINDINGS[fitted.modality]:
            row = found.loc[finding]
            assert row.value > LEAST_AUC[finding] and row.low < row.value < row.high
            assert row.specificity_high > 0.92 and row.sensitivity > 3 * (1 - row.specificity)

    def test_it_reads_pixels_alone(self, fitted):
        images, truth, _ = _phantoms(fitted.modality, 16, 64, seed=5)
        values = fitted.read(images)
        shuffled = np.random.default_rng(0).permutation(len(images))
        again = fitted.read(images[shuffled])
        for quantity in QUANTITIES[fitted.modality]:
            assert values[quantity].shape == (len(images),) and np.isfinite(values[quantity]).all()
            assert again[quantity] == pytest.approx(values[quantity][shuffled])

    def test_nonsense_is_read_as_a_number(self, fitted):
        for images in (np.zeros((2, 3, 64, 64)), np.random.default_rng(0).random((2, 3, 64, 64))):
            assert all(np.isfinite(v).all() for v in fitted.read(images).values())


@pytest.mark.slow
def test_the_chest_reader_follows_what_is_turned_alone(kept):
    """The same patient with a larger heart, more fluid or a denser patch: only that reading rises."""
    fitted = reader("chest", SIZES["chest"])
    series = {
        "ctr": ("ctr", (0.42, 0.52, 0.62)),
        "effusion_left": ("effusion_left", (0.0, 0.2, 0.4)),
        "opacity": ("opacity", (0.0, 0.4, 0.8)),
    }
    for quantity, (override, values) in series.items():
        read = [
            {k: v.mean() for k, v in fitted.read(draw("chest", "healthy", 12, 3, **{override: v})[0]).items()}
            for v in values
        ]
        assert read[0][quantity] < read[1][quantity] < read[2][quantity], quantity
        moved = {q: abs(read[2][q] - read[0][q]) / (series[q][1][2] - series[q][1][0]) for q in series}
        assert moved[quantity] > 2 * max(v for q, v in moved.items() if q != quantity), moved


def test_groups_hold_every_combination():
    assert groups("prostate") == ("normal", "tumour")
    assert len(groups("chest")) == len(set(groups("chest"))) == 8
    assert "cardiomegaly+effusion+pneumonia" in groups("chest") and "healthy" in groups("chest")


def test_what_cannot_be_read_is_named():
    with pytest.raises(EstimatorError, match="prostate, chest, histology"):
        reader("knee")


def test_contrast_in_the_lesion_follows_its_conspicuity():
    strengths = np.linspace(0.05, 1, 40)
    images, truth = draw("prostate", "tumour", 40, seed=12, conspicuity=strengths.tolist())
    inside = mask_contrast(images, truth["lesion"])
    assert np.corrcoef(inside, strengths)[0, 1] > 0.75
    healthy = draw("prostate", "normal", 40, seed=12, mimics=0)[0]
    assert np.median(inside[strengths > 0.4]) > 3 * np.median(np.abs(mask_contrast(healthy, truth["lesion"])))


def test_mask_contrast_by_hand():
    image, mask = np.zeros((1, 3, 32, 32)), np.zeros((1, 32, 32), bool)
    mask[0, 10:20, 10:20] = True
    image[0, 0][mask[0]], image[0, 1][mask[0]], image[0, 2][mask[0]] = -0.3, -0.6, 0.9
    assert mask_contrast(image, mask)[0] == pytest.approx(0.6)
    assert np.isnan(mask_contrast(image, np.zeros_like(mask))[0])


def test_the_nuclear_stain_lies_where_nuclei_do():
    images, truth = draw("histology", "tumour", 10, seed=13)
    stain = haematoxylin(images)
    assert all(s[m].mean() > s[~m].mean() + 0.2 for s, m in zip(stain, truth["nuclei"], strict=True))


@pytest.mark.slow
def test_larger_pictures_are_read_by_the_same_reader(kept):
    """Of 128 pixels, which no phantom that it was fitted on had."""
    fitted = reader("chest", SIZES["chest"], 128)
    assert is_fitted("chest", SIZES["chest"], 64) and is_fitted("chest", SIZES["chest"], 512)
    table = validation("chest", 160, 128, fitted).set_index("what").value
    assert table["ctr"] > 0.8 and table["effusion_right"] > 0.7 and table["opacity"] > 0.4
