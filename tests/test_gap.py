"""The inversion gap, what it is measured on, and what is remembered of it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lib.artefacts import _run_of, batches, remembered, sampled, trained, trained_all, trained_together
from lib.base import load_base
from lib.captions import CAPTIONS, PLAINEST, best_caption
from lib.datasets import load_images
from lib.denoising import validation_loss
from lib.embedding import check_token
from lib.gap import fine_tune, floor_loss, gap_table, share_closed, summarise
from lib.inversion import InversionSettings, Job, train_many
from lib.starts import told_by_tiles
from lib.tasks import gap_sets, token_of, training_sets
from lib.world import COLOURS

SETTINGS = InversionSettings("<x>", vectors=2, steps=2, batch_size=2, record_every=1, validate_every=2)


def few(split, n=6):
    return load_images("phantom:prostate/tumour", n, split)


def test_the_share_closed_is_of_the_way_to_the_floor():
    assert share_closed(1.0, 0.7, 0.5) == pytest.approx(0.6)
    shares = share_closed([1.0, 1.0, 0.5], [1.0, 0.4, 0.4], [0.5, 0.5, 0.5])
    assert shares[:2] == pytest.approx([0.0, 1.2]) and np.isnan(shares[2])


def test_one_row_a_condition_and_seed(base, runs_folder):
    sets = [("prostate", "tumour", few("train"), few("val"), few("test"))]
    captions = {"tumour": "plain red"}
    table = gap_table(base, sets, captions, SETTINGS, (1, 2), (0, 1), 2)
    assert list(table.condition) == [
        "empty", "caption", "1 vectors", "2 vectors", "1 vectors", "2 vectors", "fine-tuned",
    ]  # fmt: skip
    assert table.loss.between(0, 5).all() and table.loss[:6].nunique() == 6
    assert table.loss[0] == pytest.approx(validation_loss(base, few("test"), ""))
    again = gap_table(base, sets, captions, SETTINGS, (1, 2), (0, 1), 2)
    pd.testing.assert_frame_equal(again, table)


def test_what_is_learned_already_is_not_trained_again(base, runs_folder):
    sets = [("prostate", "tumour", few("train"), few("val"), few("test"))]
    there = trained(base, few("train"), SETTINGS).embedding
    learned = {("prostate", "tumour"): there}
    captions = {"tumour": "plain red"}
    table = gap_table(base, sets, captions, SETTINGS, (1, SETTINGS.vectors), (0, 1), 2, learned)
    losses = table[table.vectors == SETTINGS.vectors].set_index("seed").loss
    assert losses[0] == pytest.approx(validation_loss(base, few("test"), there)) != losses[1]
    made = (list(done.parent.glob("*.safetensors")) for done in runs_folder.glob("embeddings/*/done.json"))
    assert sorted(map(len, made)) == [1, 1, 2]  # the one that was there, of seed 0 the other size, of 1 both


def test_the_summary_takes_the_mean_over_seeds():
    losses = {"empty": [0.5], "caption": [0.45], "8 vectors": [0.3, 0.4], "fine-tuned": [0.25]}
    table = pd.DataFrame(
        {"dataset": "a", "class": "b", "condition": c, "seed": s, "loss": loss, "n_test": 9}
        | {"vectors": 8 if c == "8 vectors" else 0}
        for c, values in losses.items()
        for s, loss in enumerate(values, 3 if c == "8 vectors" else 0)
    )
    share = summarise(table).iloc[0]
    assert share.share_8 == pytest.approx((0.5 - 0.35) / 0.25) and share.sd_8 == pytest.approx(
        0.0707, abs=1e-4
    )
    assert (share.n_test, share.seeds) == (9, 2)


def test_no_sizes_no_gap(base):
    sets = [("prostate", "tumour", few("train"), None, few("test"))]
    assert not len(gap_table(base, sets, {}, SETTINGS, (), (0,), 1))


def test_the_floor_is_measured_on_the_test_images(base, runs_folder):
    """Of no updates it is the base: its loss on those, and not on what it learns or is stopped on."""
    learn, halt, test = (few(split) for split in ("train", "val", "test"))
    assert floor_loss(base, learn, halt, test, 0, 0) == [pytest.approx(validation_loss(base, test, ""))]
    assert validation_loss(base, halt, "") != pytest.approx(validation_loss(base, test, ""))


def test_the_floor_is_stopped_at_its_last_update_too(base, pictures):
    tuned = fine_tune(base, pictures[:4], pictures[:4], steps=3, batch_size=2, every=40)
    assert any(
        not torch.equal(a, b) for a, b in zip(tuned.unet.parameters(), base.unet.parameters(), strict=True)
    )


def test_the_floor_learns_and_leaves_the_base_alone(base, pictures):
    before = {name: p.clone() for name, p in base.unet.state_dict().items()}
    tuned = fine_tune(base, pictures[:8], pictures[8:], steps=12, batch_size=4, every=4)
    assert all(torch.equal(p, before[name]) for name, p in base.unet.state_dict().items())
    assert not any(p.requires_grad for p in base.unet.parameters())
    assert validation_loss(tuned, pictures[8:], "") < validation_loss(base, pictures[8:], "")


def test_the_floor_of_a_base_in_half_precision_is_about_as_low_and_as_the_base_is(base, pictures):
    half, learn, held = load_base("models/mini", "cpu", "bfloat16"), pictures[:8], pictures[8:]
    tuned = [fine_tune(b, learn, held, steps=12, batch_size=4, every=4) for b in (base, half)]
    assert tuned[1].dtype == half.dtype and not torch.equal(
        tuned[1].unet.conv_in.weight, half.unet.conv_in.weight
    )
    gained = [
        validation_loss(b, held, "") - validation_loss(t, held, "")
        for b, t in zip((base, half), tuned, strict=True)
    ]
    assert gained[0] > 0 and gained[1] == pytest.approx(gained[0], rel=0.3)


def test_the_floor_is_never_worse_than_the_base_where_it_is_stopped(base, pictures):
    ruined = fine_tune(base, pictures[:8], pictures[8:], steps=4, batch_size=4, every=2, rate=1.0)
    assert validation_loss(ruined, pictures[8:], "") <= validation_loss(base, pictures[8:], "") + 1e-6


def test_an_embedding_is_trained_once(base, runs_folder):
    first = trained(base, few("train"), SETTINGS, few("val"))
    again = trained(base, few("train"), SETTINGS, few("val"))
    assert first.seconds == again.seconds and torch.equal(first.embedding.vectors, again.embedding.vectors)
    assert list(first.records.step) == [1, 2] and first.records.validation_loss.notna().all()
    other = trained(base, few("train", 5), SETTINGS)
    assert other.path != first.path


def test_samples_are_drawn_once_and_remembered_apart(base, runs_folder):
    red = sampled(base, "plain red", 2, steps=2, seed=0)
    made = sorted(runs_folder.rglob("images.npy"))
    assert np.array_equal(red, sampled(base, "plain red", 2, steps=2, seed=0))
    assert sorted(runs_folder.rglob("images.npy")) == made and len(made) == 1
    assert not np.array_equal(red, sampled(base, "plain red", 2, steps=2, seed=1))


def test_what_is_remembered_is_not_computed_again(runs_folder):
    calls = []
    for _ in range(2):
        assert remembered("sums", {"a": 1}, ("lib.gap",), lambda: calls.append(1) or {"b": 2.5}) == {"b": 2.5}
    assert len(calls) == 1


def test_a_mosaic_tells_the_mean_image():
    tiles = np.array(list(COLOURS.values()))[np.arange(49).reshape(7, 7) % len(COLOURS)]
    image = np.kron(tiles.transpose(2, 0, 1), np.ones((1, 10, 10))).astype(np.float32)
    names = list(COLOURS)
    rows = [" ".join(names[(7 * r + c) % len(names)] for c in range(7)) for r in range(7)]
    assert told_by_tiles(image[None]) == [
        " , ".join([ground, *rows]) for ground in ("mosaic smooth", "a picture")
    ]


def test_the_best_caption_is_the_users_or_has_the_lowest_loss(base, runs_folder):
    images = few("train")
    assert best_caption(base, "prostate", "tumour", images, {"tumour": "mine"}) == "mine"
    candidates = [*CAPTIONS["prostate"], *PLAINEST, *told_by_tiles(images.images)]
    losses = {told: validation_loss(base, images, told, draws=2) for told in candidates}
    assert best_caption(base, "prostate", "tumour", images, {}) == min(losses, key=losses.get)


def test_tokens_are_of_data_set_and_class():
    assert token_of("nih-chest-xray", "no finding") == "<nih-chest-xray-no-finding>"
    for name in ("MRI, 2021", "T2W,ADC", "a" * 200, "\u0645\u06cc\u200c\u0634\u0648\u062f", "x"):
        for label in ("\u0130yi huylu", "tumour"):
            check_token(token_of(name, label), "here")


def test_no_image_is_trained_and_tested_on():
    parts = {s: t for *_, train, stop, test in gap_sets(None, 6, 32, 0, 5, 4) for s, t in
             [("train", train), ("stop", stop), ("test", test)]}  # fmt: skip
    assert [len(part) for part in parts.values()] == [6, 4, 5]
    kept = [{image.tobytes() for image in part.images} for part in parts.values()]
    assert not kept[0] & kept[1] and not kept[0] & kept[2] and not kept[1] & kept[2]


def test_training_has_every_class_of_every_phantom():
    found = [(name, label, len(images), len(held)) for name, label, images, held in
             training_sets(None, 3, 2, 32, 0)]  # fmt: skip
    assert len(found) == 8 and {row[2:] for row in found} == {(3, 2)}
    only = list(training_sets("phantom:chest/effusion", 3, 2, 32, 0))
    assert [row[:2] for row in only] == [("chest", "effusion")]


@pytest.mark.parametrize("steps, watched", [(8, [1, 2, 4, 6, 8]), (2, [1, 2])])
def test_the_held_out_loss_of_a_class_is_watched_in_each_quarter_of_its_training(
    steps, watched, base, runs_folder
):
    parts = [("prostate", "tumour", few("train", 2), few("val", 2))]
    (run,) = trained_all(base, parts, replace(SETTINGS, steps=steps, vectors=1, validate_every=100))
    assert list(run.records.dropna(subset="validation_loss").step) == watched
    assert run.embedding.token == "<prostate-tumour>"


def test_a_training_begun_on_another_device_is_begun_anew(base, runs_folder, monkeypatch):
    """It encodes the images with other last bits, so that its checkpoint is of no use here."""
    jobs, encode = [Job(few("train"), SETTINGS)], type(base).encode

    def elsewhere(self, images):
        mean, std = encode(self, images)
        return mean * (1 + 1e-6), std

    monkeypatch.setattr(type(base), "encode", elsewhere)
    run = _run_of(base, jobs)
    list(train_many(base, jobs, run.scratch / "checkpoint.pt"))
    monkeypatch.undo()
    monkeypatch.setenv("MDB_RUNS", str(runs_folder))
    (found,) = trained_together(base, jobs)
    *_, (alone,) = train_many(base, jobs)
    assert torch.equal(found.embedding.vectors, alone.vectors) and not run.scratch.exists()


def test_concepts_go_together_as_far_as_an_update_of_them_is_small(base, monkeypatch):
    jobs = [Job(None, replace(SETTINGS, batch_size=8))] * 20
    assert [len(batch) for batch in batches(base, jobs)] == [20]
    monkeypatch.setattr(type(base), "image_side", 512)
    assert [len(batch) for batch in batches(base, jobs)] == [1] * 20
