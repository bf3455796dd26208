"""The diagnostic classifier: augmentation, training, the best kept, resumption, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.auc import auc
from lib.classify import Cases, ClassifierSettings, ClassifyError, Training, diagnose
from lib.resnet import Classifier, augment

TINY = ClassifierSettings(
    width=8, steps=12, batch_size=8, learning_rate=3e-3, validate_every=4, checkpoint_every=4
)


def blobs(n, seed, side=32, contrast=0.5):
    """n noisy images, half of them with a bright disc somewhere."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    images = 0.3 + 0.05 * rng.standard_normal((n, 3, side, side))
    for image in images[n // 2 :]:
        cx, cy = rng.uniform(side / 3, 2 * side / 3, 2)
        image += contrast * ((x - cx) ** 2 + (y - cy) ** 2 < (side / 6) ** 2)
    images = images.clip(0, 1).astype(np.float32)
    return Cases.of(images[: n // 2], images[n // 2 :])


def run(cases, validation, settings, **more):
    training = Training(cases, validation, settings, **more)
    return list(training), training


@pytest.fixture(scope="module")
def learned():
    settings = replace(TINY, steps=40, batch_size=16, validate_every=5)
    return run(blobs(80, 0, contrast=0.15), blobs(40, 1, contrast=0.15), settings)


def test_it_learns_what_can_be_seen(learned):
    records, training = learned
    test = blobs(60, 2, contrast=0.15)
    assert auc(test.labels, training.best.scores(test.images)) > 0.9
    assert records[-1].loss < records[0].loss


def test_the_best_on_validation_is_kept(learned):
    records, training = learned
    validation = blobs(40, 1, contrast=0.15)
    found = [r.validation_auc for r in records]
    assert records[-1].best_auc == max(found)
    assert records[-1].best_step == records[int(np.argmax(found))].step
    kept = auc(validation.labels, training.best.scores(validation.images))
    assert kept == pytest.approx(records[-1].best_auc)


def test_a_seed_is_a_training():
    cases, validation = blobs(24, 0), blobs(16, 1)
    one, again, other = (run(cases, validation, replace(TINY, seed=s))[1].best for s in (0, 0, 1))
    images = validation.images
    assert (one.scores(images) == again.scores(images)).all()
    assert not np.allclose(one.scores(images), other.scores(images))


def test_half_of_each_batch_comes_of_the_first_cases(monkeypatch):
    """However few they are among the rest; drawn alike, they are as rare as they are."""
    few, many, validation = blobs(4, 0), blobs(196, 1), blobs(16, 2)
    marked = Cases(np.ones_like(few.images), few.labels) + Cases(many.images * 0.5, many.labels)
    seen = []
    monkeypatch.setattr("lib.classify.augment", lambda images, *_: seen.append(images) or images)
    for first, share in ((4, 0.5), (None, 0.02)):
        seen.clear()
        run(marked, validation, replace(TINY, batch_size=9), first=first)
        ones = [int((images == 1).flatten(1).all(1).sum()) for images in seen]
        assert len(ones) == TINY.steps and np.mean(ones) / 9 == pytest.approx(share, abs=0.06)
        assert first is None or set(ones) == {4}
    with pytest.raises(ClassifyError, match="some of them, and not all"):
        Training(few, validation, TINY, first=4)


def test_building_one_leaves_torchs_generator_alone():
    before = torch.random.get_rng_state()
    Training(blobs(8, 0), blobs(8, 1), TINY)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("stop", [1, 2])
def test_a_killed_training_ends_where_it_would_have(tmp_path, stop):
    cases, validation, path = blobs(24, 0), blobs(16, 1), tmp_path / "checkpoint.pt"
    records, whole = run(cases, validation, TINY)
    for i, _ in enumerate(Training(cases, validation, TINY, checkpoint=path), 1):
        if i == stop:
            break
    resumed, training = run(cases, validation, TINY, checkpoint=path)
    assert [r.loss for r in resumed] == [r.loss for r in records]
    assert [r.validation_auc for r in resumed] == [r.validation_auc for r in records]
    images = validation.images
    assert (training.best.scores(images) == whole.best.scores(images)).all()


def test_a_diagnosis_is_made_once(runs_folder):
    real, synthetic, validation, test = blobs(16, 0), blobs(16, 1), blobs(16, 2), blobs(20, 3)
    first = diagnose(real, synthetic, validation, test, TINY, (8, 16))
    assert first.scores.shape == (20,) and list(first.records.step) == [4, 8, 12]
    started = {path: path.stat().st_mtime_ns for path in runs_folder.rglob("*.npy")}
    again = diagnose(real, synthetic, validation, test, TINY, (8, 16))
    assert (again.scores == first.scores).all()
    assert started == {path: path.stat().st_mtime_ns for path in runs_folder.rglob("*.npy")}
    assert (diagnose(real, synthetic, validation, test, TINY, (16, 0)).scores != first.scores).any()
    with pytest.raises(ClassifyError, match="none are given"):
        diagnose(real, None, validation, test, TINY, (8, 8))


def test_test_labels_choose_nothing(runs_folder):
    real, validation, test = blobs(16, 0), blobs(16, 2), blobs(20, 3)
    swapped = Cases(test.images, ~test.labels)
    one, other = (diagnose(real, None, validation, t, TINY, (16, 0)).scores for t in (test, swapped))
    assert (one == other).all() and len(list((runs_folder / "classifiers").glob("[0-9a-f]*"))) == 1


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    list(Training(blobs(24, 0), blobs(16, 1), TINY, checkpoint=path))
    with pytest.raises(ClassifyError, match="other cases or settings"):
        Training(blobs(24, 5), blobs(16, 1), TINY, checkpoint=path)


def test_scores_do_not_depend_on_the_batch():
    classifier = Classifier(TINY)
    images = blobs(10, 0).images
    assert classifier.scores(images, 3) == pytest.approx(classifier.scores(images), abs=1e-4)
    assert classifier.training  # left as it was


def test_images_are_resized_where_a_side_is_named():
    small = Classifier(replace(TINY, side=24))
    assert small.scores(blobs(4, 0, side=48).images).shape == (4,)


class TestAugmentation:
    def images(self):
        return torch.from_numpy(blobs(6, 0).images)

    def test_at_zero_it_changes_nothing(self):
        still = replace(TINY, rotation=0, scale=0, translation=0, intensity=0, noise=0)
        images = self.images()
        assert torch.allclose(augment(images, still, np.random.default_rng(0)), images, atol=1e-5)

    def test_it_never_mirrors_unless_asked(self):
        side = torch.linspace(0, 1, 32).expand(6, 3, 32, 32).contiguous()  # brighter to the right
        slope = lambda images: images[..., 20:].mean((1, 2, 3)) - images[..., :12].mean((1, 2, 3))  # noqa: E731
        rngs = [np.random.default_rng(seed) for seed in range(8)]
        assert all((slope(augment(side, TINY, rng)) > 0).all() for rng in rngs)
        mirrored = [(slope(augment(side, replace(TINY, flip=True), rng)) < 0).float().mean() for rng in rngs]
        assert 0.2 < float(np.mean(mirrored)) < 0.8

    def test_it_turns_scales_and_shifts_as_far_as_it_says(self):
        """A disc at (1/4, 0) from the middle, in shares of the side, ends where the parameters allow."""
        y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
        disc = ((x - 0.5) ** 2 + y**2 < 0.01).float().expand(200, 3, 64, 64).contiguous()

        def centres(**settings):
            chosen = replace(
                TINY, **{"rotation": 0, "scale": 0, "translation": 0, "intensity": 0, "noise": 0} | settings
            )
            moved = augment(disc, chosen, np.random.default_rng(0))[:, 0]
            weight = moved.sum((1, 2))
            return (moved * x).sum((1, 2)) / weight, (moved * y).sum((1, 2)) / weight

        cx, cy = centres(rotation=20.0)
        angle = torch.rad2deg(torch.atan2(cy, cx))
        assert 17 < angle.max() < 21 and -21 < angle.min() < -17
        cx, _ = centres(scale=0.2)
        assert 0.58 < cx.max() < 0.62 and 0.38 < cx.min() < 0.42
        cx, cy = centres(translation=0.1)
        assert 0.17 < (cx - 0.5).max() < 0.21 and 0.17 < cy.max() < 0.21

    def test_it_stays_in_range_and_tones(self):
        images = self.images()
        toned = augment(images, replace(TINY, rotation=0, scale=0, translation=0), np.random.default_rng(0))
        assert toned.min() >= 0 and toned.max() <= 1
        assert (toned.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs().max() > 0.03


def test_cases_are_taken_in_order_and_balanced():
    cases = blobs(20, 0)
    some = cases.take(8)
    assert some.labels.sum() == 4 and len(some) == 8
    assert (some.images == np.concatenate([cases.images[:4], cases.images[10:14]])).all()
    both = some + cases.take(0)
    assert len(both) == 8 and both.digest == some.digest
    assert len(some + cases) == 28 and some.digest != cases.digest


def test_a_training_that_runs_away_is_stopped():
    settings = replace(TINY, learning_rate=1e30)
    with pytest.raises(ClassifyError, match="lower learning_rate"):
        list(Training(blobs(24, 0), blobs(16, 1), settings))


def test_it_is_a_resnet_18():
    with torch.device("meta"):
        network = Classifier(ClassifierSettings()).network
    assert sum(p.numel() for p in network.parameters()) == 11_177_538  # He et al. 2016, with two classes
