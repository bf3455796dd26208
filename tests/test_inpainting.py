"""Masks: where they lie, how large they are, and that a free-form one is no disc."""

import numpy as np
import pytest

from lib.datasets import load_images
from lib.inpainting import SHAPES, mask_of, masks_for


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
