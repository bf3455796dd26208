"""The phantoms: the same for ever, true to their ground truth, and not too easy to tell apart."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from lib.phantoms import MODALITIES, PhantomError, draw, parameters

CLASSES = [(modality, label) for modality, labels in MODALITIES.items() for label in labels]
N = 40


@pytest.fixture(scope="module")
def drawn():
    """N images of each class with their truth: (modality, class) -> (images, truth)."""
    return {key: draw(*key, N, seed=3) for key in CLASSES}


@pytest.mark.parametrize(("modality", "label"), CLASSES)
def test_an_image_depends_on_its_place_and_seed_alone(modality, label):
    images, truth = draw(modality, label, 3, seed=5)
    more, _ = draw(modality, label, 5, seed=5)
    later, later_truth = draw(modality, label, 1, seed=5, start=2)
    assert np.array_equal(images, more[:3]) and np.array_equal(images[2:], later)
    assert all(np.array_equal(truth[key][2:], later_truth[key]) for key in truth)
    assert not np.array_equal(images, draw(modality, label, 3, seed=6)[0])


@pytest.mark.parametrize("modality", MODALITIES)
def test_images_do_not_depend_on_the_number_of_threads(modality):
    label, drawn = MODALITIES[modality][-1], []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            drawn.append(draw(modality, label, 8, seed=5)[0])
    assert np.array_equal(*drawn)


@pytest.mark.parametrize(("modality", "label"), CLASSES)
def test_images_are_rgb_in_range_and_truth_has_one_entry_each(drawn, modality, label):
    images, truth = drawn[modality, label]
    assert images.shape == (N, 3, 64, 64) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.05
    assert all(len(values) == N for values in truth.values())
    assert all(v.shape == (N, 64, 64) for v in truth.values() if v.ndim > 1)
    assert all(v.dtype == bool for v in truth.values() if v.ndim > 1)


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_class_of_a_modality_knows_the_same_truths(drawn, modality):
    assert len({frozenset(drawn[modality, label][1]) for label in MODALITIES[modality]}) == 1


@pytest.mark.parametrize(("modality", "label"), CLASSES)
def test_another_side_shows_the_same_anatomy(modality, label):
    small, _ = draw(modality, label, 4, seed=1, side=64)
    large, _ = draw(modality, label, 4, seed=1, side=128)
    halved = large.reshape(4, 3, 64, 2, 64, 2).mean((3, 5))
    blurred = [ndimage.gaussian_filter(x, (0, 0, 1.5, 1.5)) for x in (small, halved)]
    for a, b in zip(*blurred, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9


def test_a_tumour_is_dark_on_t2w_and_adc_and_bright_on_dwi(drawn):
    images, truth = drawn["prostate", "tumour"]
    contrasts = []
    for image, lesion, gland in zip(images, truth["lesion"], truth["gland"], strict=True):
        assert lesion.sum() > 4 and (lesion & gland).sum() > 0.5 * lesion.sum()
        contrasts.append(image[:, lesion].mean(1) - image[:, gland & ~lesion].mean(1))
    t2w, adc, dwi = np.mean(contrasts, 0)
    assert t2w < -0.03 and adc < -0.03 and dwi > 0.03
    # The conspicuous ones stand out more than the others.
    rank = np.argsort(truth["conspicuity"])
    assert np.mean([contrasts[i][2] for i in rank[-15:]]) > np.mean([contrasts[i][2] for i in rank[:15]])


def test_a_normal_prostate_has_no_lesion_but_may_have_what_looks_like_one(drawn):
    truth = drawn["prostate", "normal"][1]
    assert not truth["lesion"].any() and not truth["conspicuity"].any()
    assert 0.1 < (truth["mimic"] > 0.2).mean() < 1 and (truth["zone"] == "").all()


def width(mask):
    columns = np.flatnonzero(mask.any(0))
    return (columns[-1] - columns[0] + 1) / mask.shape[1]


@pytest.mark.parametrize("label", MODALITIES["chest"])
def test_the_cardiothoracic_ratio_is_that_of_the_masks(drawn, label):
    _, truth = drawn["chest", label]
    hearts = np.array([width(mask) for mask in truth["heart"]])
    assert np.abs(hearts / truth["thorax_width"] - truth["ctr"]).max() < 0.06


def test_the_heart_lies_to_the_right_of_the_picture_and_the_lungs_are_dark(drawn):
    images, truth = drawn["chest", "healthy"]
    columns = np.arange(64)
    for image, heart, lungs in zip(images, truth["heart"], truth["lungs"], strict=True):
        middle = (heart.sum(0) @ columns) / heart.sum() - (lungs.sum(0) @ columns) / lungs.sum()
        assert middle > 0
        assert image[:, lungs].mean() < image[:, heart & ~lungs].mean()


def test_each_finding_is_in_its_own_class_alone(drawn):
    truths = {label: drawn["chest", label][1] for label in MODALITIES["chest"]}
    height = {k: np.maximum(t["effusion_right"], t["effusion_left"]) for k, t in truths.items()}
    assert height["effusion"].min() > 0 and height["effusion"].mean() > 0.15
    assert max(height[k].max() for k in truths if k != "effusion") < 0.1  # a blunted angle, no more
    assert truths["pneumonia"]["opacity"].min() > 0 and truths["effusion"]["opacity"].max() == 0
    assert truths["cardiomegaly"]["ctr"].mean() > truths["healthy"]["ctr"].mean() + 0.05


@pytest.mark.parametrize(("label", "mask"), [("effusion", "effusion"), ("pneumonia", "consolidation")])
def test_fluid_and_consolidation_are_brighter_than_the_lung(drawn, label, mask):
    images, truth = drawn["chest", label]
    brighter = [
        image[:, found & lungs].mean() > image[:, lungs & ~found].mean()
        for image, found, lungs in zip(images, truth[mask], truth["lungs"], strict=True)
        if (found & lungs).any()
    ]
    assert len(brighter) > N // 2 and np.mean(brighter) > 0.9


def test_findings_of_the_chest_combine():
    both, truth = draw("chest", "effusion+cardiomegaly", 6, seed=2)
    assert np.array_equal(both, draw("chest", ("cardiomegaly", "effusion"), 6, seed=2)[0])
    assert (np.maximum(truth["effusion_right"], truth["effusion_left"]) > 0).all()


@pytest.mark.parametrize("label", MODALITIES["histology"])
def test_nuclei_are_dark_and_purple(drawn, label):
    images, truth = drawn["histology", label]
    nuclei = np.array([i[:, m].mean(1) for i, m in zip(images, truth["nuclei"], strict=True)])
    between = np.array([i[:, ~m].mean(1) for i, m in zip(images, truth["nuclei"], strict=True)])
    assert ((nuclei < between).mean(0) > 0.95).all()
    red, green, blue = nuclei.mean(0)
    assert green < red and green < blue


def test_nuclei_are_counted_rightly(drawn):
    counts, found = [], []
    for label in MODALITIES["histology"]:
        truth = drawn["histology", label][1]
        counts += list(truth["count"])
        found += list(truth["nuclei"].mean((1, 2)) / truth["area"])
    assert np.corrcoef(counts, found)[0, 1] > 0.8  # nuclei overlap, and the rim cuts some


def test_tumour_nuclei_are_larger_and_only_where_there_is_a_tumour(drawn):
    normal, tumour = (drawn["histology", label][1] for label in MODALITIES["histology"])
    assert not normal["tumour_nuclei"].any() and (tumour["tumour_share"] > 0).all()
    assert tumour["area"].mean() > 1.2 * normal["area"].mean()


@pytest.mark.parametrize(
    ("modality", "label", "quantity"),
    [("chest", "cardiomegaly", "ctr"), ("histology", "tumour", "area"), ("prostate", "tumour", "suspicion")],
)
def test_healthy_and_diseased_overlap_as_in_patients(modality, label, quantity):
    """Even who knew the truth of the sign could not tell all patients apart."""
    values = []
    for name in (MODALITIES[modality][0], label):
        truth = draw(modality, name, 100, seed=9)[1]
        truth["suspicion"] = np.maximum(truth.get("conspicuity", 0), truth.get("mimic", 0))
        values.append(truth[quantity])
    auc = roc_auc_score([0] * 100 + [1] * 100, np.concatenate(values))
    assert 0.6 < auc < 0.99


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_parameter_can_be_fixed_within_its_range(modality):
    label = {"prostate": "tumour", "chest": "effusion", "histology": "tumour"}[modality]
    for name, allowed in parameters(modality).items():
        first, last = (draw(modality, label, 3, seed=4, **{name: v})[0] for v in (allowed[0], allowed[-1]))
        assert not np.array_equal(first, last), name
        wrong = "nowhere" if isinstance(allowed[0], str) else allowed[-1] + 1
        with pytest.raises(PhantomError, match=name):
            draw(modality, label, 3, **{name: wrong})


def test_the_cardiothoracic_ratio_can_be_asked_for():
    _, truth = draw("chest", "healthy", 3, ctr=[0.4, 0.5, 0.6])
    assert truth["ctr"] == pytest.approx([0.4, 0.5, 0.6], abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("knee", "normal", 3), "no modality 'knee': there are prostate"),
        (("chest", "tumour", 3), "no class 'tumour': there are healthy"),
        (("prostate", "normal+tumour", 3), "only findings of the chest combine"),
        (("chest", "healthy", 0), "n=0 must be a whole number"),
        (("chest", "healthy", 3, -1), "seed=-1"),
        (("chest", "healthy", 3, 0, 4), "side=4"),
    ],
)
def test_what_does_not_exist_is_named(arguments, message):
    with pytest.raises(PhantomError, match=message):
        draw(*arguments)


def test_fat_may_hold_no_nucleus_at_all():
    images, truth = draw("histology", "normal", 20, seed=0, tissue="fat", density=0.3)
    empty = truth["count"] == 0
    assert empty.any() and np.isfinite(images).all()
    assert (truth["area"][empty] == 0).all() and (truth["tumour_share"][empty] == 0).all()
