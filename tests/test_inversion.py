"""Textual inversion: the step against diffusers' own modules, resuming, and what is trained."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from torch.nn import functional as F

from lib import rehearsal
from lib.base import Base, load_base
from lib.config import ROOT
from lib.denoising import denoising_loss, image_losses, min_snr_weights, noised, validation_loss
from lib.embedding import Embedding
from lib.inversion import InversionError, InversionSettings, Job, invert, invert_many, train, train_many
from lib.starts import best_start, initial_vectors, knows_the_world, told_by_tiles
from lib.training import Concept

SMALL = {
    "vectors": 4,
    "batch_size": 4,
    "record_every": 2,
    "validate_every": 4,
    "checkpoint_every": 4,
}


def as_type(base, prediction_type):
    """The base, read as a model of another prediction type."""
    scheduler = copy.deepcopy(base.scheduler)
    scheduler.register_to_config(prediction_type=prediction_type)
    return Base(base.unet, base.vae, base.text_encoder, base.tokenizer, scheduler, base.device, base.digest)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_has_the_gradient_of_single_in_float32_vectors(base, pictures, dtype):
    settings = InversionSettings("<x>", init="", **SMALL)

    def gradient(base):
        concept = Concept(base, pictures, settings)
        draw = concept.draw()
        states = base.embed(draw.prompts, {"<x>": concept.vectors}).index_select(0, draw.which)
        denoising_loss(base, draw.latents, draw.noise, draw.times, states).mean().backward()
        return concept.vectors.grad

    half = load_base("models/mini", "cpu", dtype)
    ours, single = gradient(half), gradient(base)
    assert ours.dtype == torch.float32
    assert torch.cosine_similarity(ours.flatten(), single.flatten(), dim=0) > 0.995
    assert ours.norm() / single.norm() == pytest.approx(1, abs=0.05)
    learned = invert(half, pictures[:4], "<x>", steps=3, **SMALL)
    assert learned.vectors.isfinite().all() and learned.vectors.dtype == torch.float32


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_prediction_loss_and_gradient_equal_diffusers_own(base, pictures, prediction_type):
    check_step(as_type(base, prediction_type), ROOT / "models" / "mini", base.encode(pictures[:4])[0])


@pytest.mark.slow
@pytest.mark.parametrize("version, prediction_type", [("1", "epsilon"), ("2", "v_prediction")])
def test_the_same_at_the_widths_of_stable_diffusion(tmp_path, version, prediction_type):
    """Text of 768 and 1024, latents of 4 channels, little depth; a quarter of a picture, since it is slow.

    Each version as its best known model predicts; the other two pairs differ from these by what the small
    base above shows of either type.
    """
    shape = replace(rehearsal.SHAPES[version].reduced(), prediction=prediction_type)
    folder = rehearsal.write(tmp_path / "sd", shape)
    base = load_base(folder, "cpu")
    assert (base.token_width, base.latent_shape, base.image_side) == (shape.text_width, (4, 64, 64), 512)
    assert base.prediction_type == prediction_type and len(base.token_table) == 49408
    check_step(base, folder, torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1)))


def check_step(base, folder, latents):
    """One step of diffusers' textual_inversion.py, spelled out with its modules, on the same draws.

    Prediction and gradient are compared in double precision: in single the two round their own ways, by as
    much as the machine has it, and their predictions agree to a hundred-thousandth of the largest.
    """
    with torch.no_grad():
        prediction, loss, _ = zip(our_step(base, latents), their_step(base, folder, latents), strict=True)
    torch.testing.assert_close(*prediction, rtol=1e-4, atol=1e-5 * float(prediction[1].abs().max()))
    torch.testing.assert_close(*loss)
    latents = latents.double()
    unet, text_encoder = (copy.deepcopy(part).double() for part in (base.unet, base.text_encoder))
    exact = Base(unet, base.vae, text_encoder, base.tokenizer, base.scheduler, base.device, base.digest)
    steps = our_step(exact, latents), their_step(exact, folder, latents)
    torch.testing.assert_close(steps[0][0], steps[1][0], rtol=1e-5, atol=1e-6)
    ours, theirs = (torch.autograd.grad(loss, leaf)[0][-3:] for _, loss, leaf in steps)
    scale = float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * scale)


def drawn(base, latents):
    """Vectors [3, D], noise and timesteps of the step."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, base.token_width, generator=generator).to(latents)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    return vectors, noise, torch.tensor([3, 250, 600, 990])[-len(latents) :]


def our_step(base, latents):
    """(prediction, loss, what is learned: the vectors)."""
    vectors, noise, times = drawn(base, latents)
    learned = vectors.requires_grad_(True)
    states = base.embed(["a photo of <x>"], {"<x>": learned}).expand(len(latents), -1, -1)
    loss = denoising_loss(base, latents, noise, times, states).mean()
    with torch.no_grad():
        predicted = base.unet(noised(base, latents, noise, times)[0], times, states).sample
    return predicted, loss, learned


def their_step(base, folder, latents):
    """The same by the modules in the folder, in the precision of the latents; the last three rows learn."""
    vectors, noise, times = drawn(base, latents)
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=latents.dtype)
    schedule = DDPMScheduler.from_config(pipe.scheduler.config, prediction_type=base.prediction_type)
    tokens = ["<x>", "<x>_1", "<x>_2"]
    pipe.tokenizer.add_tokens(tokens)
    pipe.unet.requires_grad_(False)  # as the script has it
    # New rows behind all that there are: a tokenizer may have fewer words than the table.
    rows = torch.arange(3) + len(base.token_table)
    pipe.text_encoder.resize_token_embeddings(len(base.token_table) + 3, mean_resizing=False)
    table = pipe.text_encoder.get_input_embeddings().weight
    table.data[rows] = vectors
    ids = pipe.tokenizer(
        "a photo of <x> <x>_1 <x>_2", padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids
    for token, row in zip(tokens, rows, strict=True):
        ids[ids == pipe.tokenizer.convert_tokens_to_ids(token)] = row
    hidden = pipe.text_encoder(ids)[0].expand(len(latents), -1, -1)
    noisy = schedule.add_noise(latents, noise, times)
    predicted = pipe.unet(noisy, times, hidden).sample
    target = noise if base.prediction_type == "epsilon" else schedule.get_velocity(latents, noise, times)
    return predicted.detach(), F.mse_loss(predicted, target), table


def test_only_the_vectors_change(base, pictures):
    before = [p.clone() for p in base.unet.parameters()]
    embedding = invert(base, pictures, "<x>", steps=4, **SMALL)
    assert all(torch.equal(a, b) for a, b in zip(before, base.unet.parameters(), strict=True))
    assert all(p.grad is None for p in [*base.unet.parameters(), *base.text_encoder.parameters()])
    start = initial_vectors(base, InversionSettings("<x>", vectors=4))
    assert embedding.vectors.shape == (4, base.token_width)
    assert (embedding.vectors - start).abs().amin(1).max() > 0  # every one of the four moved


def test_training_lowers_the_loss_on_images_it_never_saw(base, pictures):
    similar = pictures[:1] * 0.9 + pictures * 0.1
    start = initial_vectors(base, InversionSettings("<x>", vectors=8))
    embedding = invert(base, similar[:8], "<x>", vectors=8, steps=40, batch_size=4, learning_rate=0.02)
    untrained = type(embedding)(start, "<x>")
    assert validation_loss(base, similar[8:], embedding) < 0.97 * validation_loss(
        base, similar[8:], untrained
    )


def test_a_seed_fixes_the_result_and_another_changes_it(base, pictures):
    first, second, other = (
        invert(base, pictures, "<x>", steps=4, seed=s, **SMALL).vectors for s in (0, 0, 1)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize("killed_after", [1, 4, 5, 7])
def test_a_killed_run_ends_where_an_uninterrupted_one_does(base, pictures, tmp_path, killed_after):
    settings = InversionSettings("<x>", steps=10, ema=0.9, **SMALL)
    whole = list(train(base, pictures, settings, pictures[:4]))
    path = tmp_path / "checkpoint.pt"
    for record in train(base, pictures, settings, pictures[:4], path):
        if record.step >= killed_after:
            break
    resumed = list(train(base, pictures, settings, pictures[:4], path))
    assert torch.equal(resumed[-1].vectors, whole[-1].vectors)
    for a, b in zip(resumed, whole, strict=True):
        assert (a.step, a.loss, a.validation_loss, a.vector_rms) == (
            b.step,
            b.loss,
            b.validation_loss,
            b.vector_rms,
        )


class TestSeveralAtOnce:
    def test_each_is_independent_of_the_others_images(self, base, pictures):
        """Bit for bit, whatever the others are, and whether they know templates and flips."""
        learned = [
            invert_many(base, {"<a>": pictures[:6], "<b>": other}, steps=4, **SMALL)["<a>"].vectors
            for other in (pictures[6:], 1 - pictures[6:])
        ]
        assert torch.equal(*learned)

    def test_each_learns_what_it_learns_alone(self, base, pictures):
        both = invert_many(base, {"<a>": pictures[:6], "<b>": pictures[6:]}, steps=3, **SMALL)
        for token, images in (("<a>", pictures[:6]), ("<b>", pictures[6:])):
            alone = invert(base, images, token, steps=3, **SMALL)
            assert torch.allclose(both[token].vectors, alone.vectors, atol=1e-3)
            assert both[token].meta["images"] == "6"
        assert not torch.allclose(both["<a>"].vectors, both["<b>"].vectors, atol=1e-3)

    @pytest.mark.parametrize("killed_after", [1, 5])
    def test_a_killed_run_ends_where_an_uninterrupted_one_does(self, base, pictures, tmp_path, killed_after):
        jobs = [
            Job(pictures[:6], InversionSettings("<a>", steps=8, ema=0.9, **SMALL), pictures[6:]),
            Job(pictures[6:], InversionSettings("<b>", steps=8, snr_gamma=5.0, seed=3, **SMALL)),
        ]
        whole, path = list(train_many(base, jobs)), tmp_path / "checkpoint.pt"
        for found in train_many(base, jobs, path):
            if found[0].step >= killed_after:
                break
        resumed = list(train_many(base, jobs, path))
        for a, b in zip(resumed[-1], whole[-1], strict=True):
            assert torch.equal(a.vectors, b.vectors) and a.validation_loss == b.validation_loss
        losses = [[[r.loss for r in found] for found in run] for run in (resumed, whole)]
        assert losses[0] == losses[1]

    def test_what_cannot_go_together_is_named(self, base, pictures):
        with pytest.raises(InversionError, match="<a>, <a>: give each concept one of its own"):
            list(train_many(base, [Job(pictures, InversionSettings("<a>"))] * 2))
        jobs = [Job(pictures, InversionSettings(token, steps=n)) for token, n in (("<a>", 2), ("<b>", 3))]
        with pytest.raises(InversionError, match=r"steps = \[2, 3\]"):
            list(train_many(base, jobs))


def test_losses_are_paired_and_independent_of_batch_and_company(base, pictures):
    together, alone = (image_losses(base, pictures, "plain red", batch_size=b) for b in (12, 5))
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(image_losses(base, pictures[:5], "plain red"), together[:5])
    assert image_losses(base, pictures, "plain red").shape == (12,)


def test_no_flip_unless_asked(base):
    """A picture and its mirror image differ; without flips the mirrored one is never encoded."""
    half = torch.cat([torch.zeros(4, 3, 64, 32), torch.ones(4, 3, 64, 32)], -1)
    calls = []
    spy = copy.copy(base)
    spy.encode = lambda images: (calls.append(images.clone()), base.encode(images))[1]
    list(train(spy, half, InversionSettings("<x>", steps=2, **SMALL)))
    assert len(calls) == 1 and torch.equal(calls[0], half)
    list(train(spy, half, InversionSettings("<x>", steps=2, flip=True, **SMALL)))
    assert torch.equal(calls[-1], half.flip(-1))


def test_the_papers_trainer(base, pictures, monkeypatch):
    """One frozen latent sample and one template an image, batch 1, 0.005 throughout."""
    templates = tuple(f"{word} {{}}" for word in ("plain", "grainy", "red", "blue", "cloudy"))
    settings = InversionSettings("<x>", vectors=2, steps=12, templates=templates).by("a1111")
    assert {settings.rate(i) for i in range(12)} == {0.005}
    prompts, latents = [], []
    spy = copy.copy(base)
    spy.embed = lambda texts, *a: (prompts.extend(texts), base.embed(texts, *a))[1]
    loss = lambda of, sample, *a: (latents.extend(sample), denoising_loss(of, sample, *a))[1]  # noqa: E731
    monkeypatch.setattr("lib.graphs.denoising_loss", loss)
    list(train(spy, pictures[:3], settings))
    assert len(prompts) == len(latents) == 12
    seen = {(float(sample.sum()), prompt) for sample, prompt in zip(latents, prompts, strict=True)}
    assert len(seen) == len({value for value, _ in seen}) == 3
    with pytest.raises(InversionError, match="recipe = 'kohya': one of ours, adam, a1111"):
        settings.by("kohya")


def test_settings_that_would_do_nothing_are_refused(base, pictures):
    with pytest.raises(InversionError, match="frozen"):
        InversionSettings("<x>", flip=True, resample=False)
    with pytest.raises(InversionError, match="held-out"):
        next(train(base, pictures[:6], InversionSettings("<x>", patience=3, **SMALL)))


def test_a_seed_of_numpys_is_a_seed():
    assert type(InversionSettings("<x>", seed=np.int64(3)).seed) is int


def test_patience_stops_a_run_whose_held_out_loss_falls_no_more(base, pictures, tmp_path):
    """A rate that only does harm: the loss rises from the start. Taken up again, it stays stopped."""
    small = SMALL | {"record_every": 1, "validate_every": 1, "learning_rate": 3.0, "decay": "constant"}
    settings = InversionSettings("<x>", steps=40, patience=3, **small)
    path = tmp_path / "checkpoint.pt"
    records = list(train(base, pictures[:6], settings, pictures[6:], path))
    losses = [r.validation_loss for r in records]
    assert records[-1].step < 40 and min(losses[-3:]) >= min(losses[:-3])
    assert [r.step for r in train(base, pictures[:6], settings, pictures[6:], path)][-1] <= records[-1].step
    whole = list(train(base, pictures[:6], replace(settings, patience=0, steps=8), pictures[6:]))
    assert whole[-1].step == 8


def test_held_out_losses_come_between_records_too(base, pictures):
    settings = InversionSettings("<x>", **SMALL | {"steps": 12, "record_every": 5, "validate_every": 4})
    records = list(train(base, pictures, settings, pictures[:2]))
    assert [r.step for r in records] == [1, 4, 5, 8, 10, 12]
    assert [r.step for r in records if r.validation_loss is not None] == [1, 4, 8, 12]


def test_norms_are_pulled_to_the_vocabularys(base, pictures):
    target = float(base.token_table.norm(dim=1).mean())
    settings = InversionSettings("<x>", steps=6, learning_rate=1.0, norm_pull=1.0, ema=None, **SMALL)
    *_, last = train(base, pictures, settings)
    assert torch.allclose(last.vectors.norm(dim=1), torch.full((4,), target), rtol=1e-4)
    *_, free = train(base, pictures, replace(settings, norm_pull=0.0))
    assert (free.vectors.norm(dim=1) > 2 * target).all()


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
@pytest.mark.parametrize("vectors", [1, 8, 64])
def test_an_update_moves_a_coordinate_by_about_the_rate(base, pictures, optimizer, vectors):
    settings = InversionSettings("<x>", steps=1, warmup=0, ema=None, optimizer=optimizer)
    concept = Concept(base, pictures, replace(settings, vectors=vectors, init="red circle"))
    before, gradient = concept.vectors.detach().clone(), torch.Generator().manual_seed(0)
    concept.vectors.grad = torch.randn(before.shape, generator=gradient) * 1e-3
    concept.update()
    moved = concept.vectors.detach() - before
    assert 0.6 < float(moved.square().mean().sqrt()) / settings.learning_rate < 1.3


def test_muon_moves_as_far_in_every_direction_of_the_gradient(base, pictures):
    """The gradient's singular vectors stay and their values become nearly equal, however small."""
    concept = Concept(base, pictures, InversionSettings("<x>", vectors=4, steps=1, warmup=0, init="red"))
    before, width = concept.vectors.detach().clone(), concept.vectors.shape[1]
    left, right = (torch.linalg.qr(torch.randn(n, 4))[0] for n in (4, width))
    concept.vectors.grad = left @ torch.diag(torch.tensor([1.0, 0.3, 0.1, 0.03])) @ right.T
    concept.update()
    moved = left.T @ (before - concept.vectors.detach()) @ right / (concept.settings.rate(0) * width**0.5)
    assert ((moved.diag() > 0.5) & (moved.diag() < 1.3)).all()
    assert (moved - moved.diag().diag()).abs().max() < 0.05


def test_rate_rises_and_falls():
    rates = [InversionSettings("<x>", steps=100, learning_rate=0.1).rate(i) for i in range(100)]
    assert rates[0] < rates[4] and np.argmax(rates) in range(3, 7) and max(rates) <= 0.1
    assert 0.030 < rates[-1] < 0.031
    cosine = InversionSettings("<x>", steps=100, learning_rate=0.1).by("adam")
    assert 0.004 < cosine.rate(99) < 0.007 and cosine.optimizer == "adam"
    constant = InversionSettings("<x>", steps=9, learning_rate=0.03, decay="constant", warmup=0)
    assert {constant.rate(i) for i in range(9)} == {0.03}


def test_a_phrase_is_spread_over_the_vectors(base):
    vectors = initial_vectors(base, InversionSettings("<x>", vectors=6, init="red circle"))
    red, circle = (base.token_table[base.tokenizer(w).input_ids[1]] for w in ("red", "circle"))
    for row, word in zip(vectors, [red] * 3 + [circle] * 3, strict=True):
        assert F.cosine_similarity(row, word, dim=0) > 0.99


def test_the_start_is_the_best_of_draws_and_of_the_mean_image_told(base, pictures):
    """A mosaic is told by its tiles, and better so than by draws; the settings can still ask for these."""
    tiles = np.kron(np.random.default_rng(0).choice([0.1, 0.9], (7, 7)), np.ones((10, 10)))[:64, :64]
    images = torch.from_numpy(np.broadcast_to(tiles, (4, 3, 64, 64)).astype(np.float32))
    latents, settings = base.encode(images)[0], InversionSettings("<x>", vectors=64)
    start, drawn = best_start(base, settings, images, latents), initial_vectors(base, settings)
    losses = [validation_loss(base, images, Embedding(v, "<x>"), draws=2) for v in (start, drawn)]
    assert losses[0] < 0.95 * losses[1]
    words = [w for text in told_by_tiles(images.numpy()) for w in text.split()[:2]]
    assert words == ["mosaic", "smooth", "a", "picture"]
    for init, expected in ((None, start), ("", drawn)):
        assert torch.equal(Concept(base, images, replace(settings, init=init)).vectors.detach(), expected)


def test_few_vectors_take_the_first_words(base, pictures):
    settings = InversionSettings("<x>", vectors=2)
    assert best_start(base, settings, pictures, base.encode(pictures)[0]).shape == (2, base.token_width)


def test_stable_diffusion_does_not_know_the_world():
    """CLIP has "mosaic" and "picture" whole, as it has most words; "midleft" is of the world alone."""

    class Clip:
        def tokenizer(self, phrase, add_special_tokens):
            words = [
                w for word in phrase.split() for w in (("mid", "left") if word == "midleft" else (word,))
            ]
            return type("Told", (), {"input_ids": words})

    assert not knows_the_world(Clip())


def test_a_base_without_the_worlds_words_starts_from_draws(base, pictures, monkeypatch):
    assert knows_the_world(base)
    monkeypatch.setattr("lib.starts.knows_the_world", lambda base: False)
    settings = InversionSettings("<x>", vectors=4)
    start = best_start(base, settings, pictures, base.encode(pictures)[0])
    assert torch.equal(start, initial_vectors(base, settings))


def test_timesteps_lie_one_in_each_part_of_the_schedule(base, pictures):
    settings, span = InversionSettings("<x>", vectors=2, batch_size=10), len(base.alphas_cumprod) // 10
    draws = [Concept(base, pictures, replace(settings, seed=seed)).draw() for seed in range(3)]
    for draw in draws:
        assert sorted((draw.times // span).tolist()) == list(range(10))
    assert not torch.equal(draws[0].times, draws[1].times)
    apart = Concept(base, pictures, replace(settings, stratify=False, batch_size=200)).draw().times
    assert (apart // span).bincount(minlength=10).unique().numel() > 1


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_last_checkpoint(base, pictures, tmp_path):
    path, settings = tmp_path / "checkpoint.pt", SMALL | {"checkpoint_every": 1, "record_every": 50}
    run = train(
        base, pictures, InversionSettings("<x>", steps=40, learning_rate=1e30, **settings), None, path
    )
    with pytest.raises(InversionError, match="lower learning_rate"):
        list(run)
    assert not path.exists() or torch.load(path)["concepts"][0]["vectors"].isfinite().all()


def test_a_checkpoint_of_another_run_is_refused(base, pictures, tmp_path):
    path = tmp_path / "checkpoint.pt"
    list(train(base, pictures, InversionSettings("<x>", steps=4, **SMALL), None, path))
    for images, changed in ((pictures, {"seed": 1}), (pictures.flip(-1), {})):
        with pytest.raises(InversionError, match="another base, other images or other settings"):
            list(train(base, images, InversionSettings("<x>", steps=4, **changed, **SMALL), None, path))


def test_a_checkpoint_does_not_grow_with_the_records(base, pictures, tmp_path):
    sizes = []
    for steps in (4, 16):
        path = tmp_path / f"{steps}.pt"
        list(train(base, pictures, InversionSettings("<x>", steps=steps, **SMALL), None, path))
        sizes.append(path.stat().st_size)
    assert sizes[1] - sizes[0] < 4 * base.token_width * 4  # less than one more record's vectors


def test_provenance_names_no_patient(base, pictures):
    embedding = invert(base, pictures, "<x>", steps=2, **SMALL)
    assert embedding.meta["base_digest"] == base.digest and embedding.meta["images"] == "12"
    assert "torch" in embedding.meta["versions"] and "clinical" in embedding.meta["intended_use"]


def test_a_training_remembers_the_last_vectors_only(base, pictures, monkeypatch):
    """Each record of Stable Diffusion's would hold a quarter of a megabyte to the end."""
    kept = []
    monkeypatch.setattr("lib.inversion._stalled", lambda records, jobs: kept.append(records))
    given = list(train(base, pictures, InversionSettings("<x>", steps=4, **SMALL | {"record_every": 1})))
    assert [record.step for record in kept[-1][0]] == [1, 2, 3, 4]
    assert [record.vectors is None for record in kept[-1][0]] == [True, True, True, False]
    assert all(record.vectors is not None for record in given)


@pytest.mark.parametrize(
    "kind, divide", [("epsilon", lambda snr: snr), ("v_prediction", lambda snr: snr + 1)]
)
def test_min_snr_weights_are_those_of_the_paper(kind, divide):
    """Hang et al. 2023: min(SNR, gamma) / SNR where noise is predicted, / (SNR + 1) where v is."""
    alphas = torch.tensor([0.99, 0.5, 0.02])
    base = SimpleNamespace(alphas_cumprod=alphas, prediction_type=kind)
    found = min_snr_weights(base, torch.arange(3), 5.0)
    snr = alphas / (1 - alphas)
    assert torch.allclose(found, snr.clamp_max(5) / divide(snr)) and snr[0] > 5 > snr[1]


def test_the_running_mean_is_of_the_vectors_and_short_at_first(base, pictures):
    def after_two(ema):
        settings = InversionSettings("<x>", steps=2, ema=ema, **SMALL | {"record_every": 1})
        return [record.vectors for record in train(base, pictures, settings)]

    (first, second), (mean, later) = after_two(None), after_two(0.9)
    assert torch.equal(mean, first)
    torch.testing.assert_close(later, first + (1 - 2 / 12) * (second - first))
