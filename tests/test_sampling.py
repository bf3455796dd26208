"""Sampling against plain diffusers, composition, and what inpainting may touch."""

import copy

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)
from diffusers.configuration_utils import FrozenDict
from PIL import Image

from lib.config import ROOT
from lib.embedding import Embedding
from lib.predictor import Predictor
from lib.sampling import SAMPLERS, SamplingError, _scheduler, generate, inpaint, save_images


@pytest.fixture(scope="module")
def pair(base):
    generator = torch.Generator().manual_seed(1)
    return [
        Embedding(torch.randn(4, base.token_width, generator=generator), f"<{name}>")
        for name in ("one", "two")
    ]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_pictures_as_plain_diffusers(base, pair, sampler, tmp_path):
    """StableDiffusionPipeline, load_textual_inversion, a prompt with the token: no lib."""
    pipe = StableDiffusionPipeline.from_pretrained(ROOT / "models" / "mini")
    pipe.load_textual_inversion(pair[0].save(tmp_path / "one.safetensors"))
    pipe.scheduler = SAMPLERS[sampler].from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(5 + i) for i in range(3)]
    theirs = pipe(
        ["a photo of <one>"] * 3,
        num_inference_steps=6,
        guidance_scale=3.0,
        generator=generators,
        output_type="np",
    )
    ours = generate(base, pair[0], 3, guidance=3.0, steps=6, seed=5, prompt="a photo of {}", sampler=sampler)
    assert ours.shape == (3, 3, 64, 64) and ours.dtype == torch.float32
    np.testing.assert_allclose(ours.permute(0, 2, 3, 1), theirs.images, atol=1e-4)


def test_what_the_batches_of_a_call_share_is_made_once(base, pair, monkeypatch):
    """Keys, values and, on CUDA, the recording."""
    made = []
    monkeypatch.setattr("lib.sampling.Predictor", lambda *given: made.append(given) or Predictor(*given))
    generate(base, pair[0], 3, steps=2, batch_size=1)
    assert len(made) == 1


def test_the_batch_size_changes_no_picture(base, pair):
    for sampler in SAMPLERS:
        together = generate(base, pair[0], 5, steps=4, sampler=sampler)
        apart = generate(base, pair[0], 5, steps=4, sampler=sampler, batch_size=2)
        torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)


def test_a_weight_of_one_is_the_prompt_alone(base, pair):
    alone = generate(base, pair[0], 2, steps=4)
    torch.testing.assert_close(
        generate(base, {pair[0]: 1.0, pair[1]: 0.0}, 2, steps=4), alone, atol=1e-4, rtol=0
    )


def test_composition_is_the_formula(base, pair):
    """One step by hand: D = D_u + s * sum_i w_i (D_i - D_u)."""
    ours = generate(base, {pair[0]: 0.3, pair[1]: 0.9}, 1, guidance=2.5, steps=1, seed=3)
    noise = torch.randn(1, *base.latent_shape, generator=torch.Generator().manual_seed(3))
    scheduler = type(base.scheduler).from_config(base.scheduler.config)
    scheduler.set_timesteps(1)
    time = scheduler.timesteps[0]
    vectors = {e.token: e.vectors for e in pair}
    with torch.no_grad():
        nothing, one, two = (
            base.unet(noise, time, base.embed([p], vectors)).sample for p in ("", "<one>", "<two>")
        )
        mixed = nothing + 2.5 * (0.3 * (one - nothing) + 0.9 * (two - nothing))
    latents = scheduler.step(mixed, time, noise).prev_sample
    torch.testing.assert_close(ours, base.decode(latents), atol=1e-4, rtol=0)


def test_whole_numbers_are_weights_as_any(base, pair):
    ones, floats = (
        generate(base, dict.fromkeys(pair, one), 1, steps=2, guidance=2 * one) for one in (1, 1.0)
    )
    assert torch.equal(ones, floats)


def test_ddim_clips_no_latents_where_the_bases_solver_says_nothing_of_it(base, pair):
    silent = copy.copy(base)
    silent.scheduler = EulerDiscreteScheduler.from_config(base.scheduler.config)
    silent.scheduler._internal_dict = FrozenDict(
        {k: v for k, v in silent.scheduler.config.items() if k != "clip_sample" and not k.startswith("_")}
    )
    torch.testing.assert_close(generate(silent, pair[0], 1, steps=3), generate(base, pair[0], 1, steps=3))


def test_a_caption_may_hold_embeddings(base, pair):
    held = generate(base, "a photo of <one>", 1, steps=3, embeddings=(pair[0],))
    torch.testing.assert_close(held, generate(base, pair[0], 1, steps=3, prompt="a photo of {}"))


def disc(side, radius=14):
    y, x = np.mgrid[:side, :side]
    return np.hypot(x - side / 2, y - side / 2) < radius


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_inpainting_leaves_every_pixel_outside_the_blurred_mask(base, pair, pictures, sampler):
    mask = disc(64)
    painted = inpaint(base, pair[0], pictures[0], mask, steps=4, n=2, sampler=sampler)
    far = ~disc(64, 14 + 5)
    assert torch.equal(painted[:, :, far], pictures[0][:, far].expand(2, -1, -1))
    assert (painted - pictures[0])[:, :, disc(64, 10)].abs().mean() > 0.02
    assert not torch.equal(painted[0], painted[1])


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_what_is_painted_is_told_what_surrounds_it(base, pair, pictures, sampler):
    """At each step the U-Net sees the original outside the mask, as noisy as that step."""
    seen = []
    hook = base.unet.conv_in.register_forward_pre_hook(lambda _module, given: seen.append(given[0].clone()))
    try:
        inpaint(base, pair[0], pictures[0], disc(64), steps=4, seed=3, sampler=sampler)
    finally:
        hook.remove()
    scheduler = _scheduler(base, sampler, 4)
    noise = torch.randn(1, *base.latent_shape, generator=torch.Generator().manual_seed(3))
    original, inside = base.encode(pictures[:1])[0], torch.from_numpy(disc(64)).float()[None, None]
    outside = torch.nn.functional.adaptive_max_pool2d(inside, base.latent_shape[1:])[0, 0] == 0
    assert len(seen) == 4 and 0.5 < outside.float().mean() < 1
    for latents, time in zip(seen[1:], scheduler.timesteps[1:], strict=True):
        noisy = scheduler.add_noise(original, noise, time[None])
        torch.testing.assert_close(latents[..., outside], noisy[..., outside])


def test_inpainting_with_nothing_kept_is_generation(base, pair, pictures):
    everything = inpaint(base, pair[0], pictures[0], np.ones((64, 64), bool), steps=4, seed=2)
    torch.testing.assert_close(everything, generate(base, pair[0], 1, steps=4, seed=2), atol=1e-4, rtol=0)


@pytest.fixture
def silent(base):
    """The base with the scheduler that the Stable Diffusions 1 and 2 come with, which leaves much open."""
    other, known = copy.copy(base), base.scheduler.config
    given = {name: known[name] for name in ("beta_start", "beta_end", "beta_schedule", "prediction_type")}
    other.scheduler = PNDMScheduler(**given, steps_offset=1, skip_prk_steps=True, set_alpha_to_one=False)
    return other


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_the_bases_scheduler_leaves_open_each_solver_sets_as_in_diffusers(silent, sampler):
    """The ancestral solver would not begin at full noise with the spacing that PNDM has by default."""
    theirs = SAMPLERS[sampler].from_config(silent.scheduler.config)
    theirs.set_timesteps(30)
    ours = _scheduler(silent, sampler, 30)
    assert torch.equal(ours.timesteps, theirs.timesteps) and ours.timesteps[0] > 950
    assert ours.init_noise_sigma == theirs.init_noise_sigma


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_that_would_leave_out_the_noise_are_refused_for_the_most_that_do_not(base, sampler):
    """models/mini spaces its steps by whole timesteps from 0 on: 400 of 1,000 would end at 798."""
    refused = {}
    for steps in (*range(1, 151), 200, 400, 600, 1000):
        try:
            first = float(_scheduler(base, sampler, steps).timesteps[0])
            assert first < 1000 and first + 1000 / steps >= 850
        except SamplingError as error:
            refused[steps] = int(str(error).rpartition(" ")[2])
    assert 400 in refused and not refused.keys() & {1, 4, 10, 20, 30, 50, 100}
    for steps, instead in refused.items():
        assert instead < steps and len(_scheduler(base, sampler, instead).timesteps) == instead


def test_a_base_of_a_random_solver_draws_the_same_again_and_in_other_batches(base, pair):
    random = copy.copy(base)
    config = {k: v for k, v in base.scheduler.config.items() if not k.startswith("_")}
    random.scheduler = DPMSolverMultistepScheduler.from_config(config | {"algorithm_type": "sde-dpmsolver++"})
    first, again, apart = (
        generate(random, pair[0], 3, steps=4, sampler="dpm++", batch_size=n) for n in (3, 3, 1)
    )
    assert torch.equal(first, again)
    torch.testing.assert_close(first, apart, atol=1e-4, rtol=0)


def test_numbers_that_overflow_are_no_black_picture(base, pair, pictures):
    with pytest.raises(SamplingError, match="float32 is no picture, its numbers overflowed"):
        generate(base, pair[0], 1, steps=2, guidance=1e38)
    with pytest.raises(SamplingError, match="overflowed"):
        inpaint(base, pair[0], pictures[0], np.ones((64, 64)), steps=2, guidance=1e38)


def test_pictures_are_saved_as_they_are(pictures, tmp_path):
    paths = save_images(pictures[:3], tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["00.png", "01.png", "02.png"]
    again = np.stack([np.asarray(Image.open(path)) for path in paths]).transpose(0, 3, 1, 2) / 255
    assert np.abs(again - pictures[:3].numpy()).max() <= 0.5 / 255 + 1e-6
