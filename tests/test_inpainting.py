"""Masks: where they lie, how large they are, and that a free-form one is no disc."""

import numpy as np
import pytest

from lib.datasets import load_images
from lib.inpainting import SHAPES, contrast, mask_of, masks_for, untouched


def mask(shape, seed):
    return mask_of(shape, 64, 0.12, (30, 34), np.random.default_rng(seed))


def reach(mask):
    """How far the farthest point lies, in radii of a disc as large."""
    y, x = np.nonzero(mask)
    return np.hypot(y - 30, x - 34).max() / np.sqrt(mask.sum() / np.pi)


def test_a_free_form_mask_is_about_as_large_as_a_disc_and_is_none():
    disc, blobs = mask("disc", 0), [mask("free-form", seed) for seed in range(50)]
    assert disc.sum() == pytest.approx(np.pi * (0.12 * 64) ** 2, rel=0.05) and reach(disc) < 1.05
    assert all(0.75 < blob.sum() / disc.sum() < 1.5 for blob in blobs)
    assert np.mean([reach(blob) for blob in blobs]) > 1.25
    assert len({blob.tobytes() for blob in blobs}) == len(blobs)


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_lie_in_the_organ(shape):
    images = load_images("phantom:chest/healthy", 20)
    masks = masks_for("chest", images, shape, 0.12, 0)
    inside = [organ[mask].mean() for organ, mask in zip(images.truth["lungs"], masks, strict=True)]
    assert np.mean(inside) > 0.8


@pytest.mark.parametrize(
    "modality, inside, sign",
    [
        ("prostate", (0.2, 0.2, 0.8), 1),  # dark on T2W and ADC, bright on DWI
        ("prostate", (0.8, 0.8, 0.2), -1),
        ("chest", (0.8, 0.8, 0.8), 1),
        ("", (0.8, 0.8, 0.8), 1),
        ("", (0.2, 0.2, 0.2), -1),
        ("histology", (0.35, 0.2, 0.5), 1),  # blue: more of the nuclear stain
        ("histology", (0.9, 0.9, 0.9), -1),
    ],
)
def test_a_contrast_has_the_sign_of_a_lesion(modality, inside, sign):
    masks = mask("disc", 0)[None]
    image = np.full((1, 3, 64, 64), 0.5)
    image[0, :, masks[0]] = inside
    assert sign * contrast(modality, image, masks)[0] > 0.1


def test_a_pixel_that_is_touched_far_from_the_mask_is_seen():
    image, where = np.random.default_rng(0).random((3, 64, 64)), mask("disc", 0)
    painted = np.where(where, 0.0, image)
    assert untouched(image, painted, where, 1.0)
    painted[1, 60, 60] += 1e-6
    assert not untouched(image, painted, where, 1.0)
