"""Sampling against plain diffusers, composition, and what inpainting may touch."""

import copy

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from diffusers.configuration_utils import FrozenDict

from lib.config import ROOT
from lib.embedding import Embedding
from lib.sampling import SAMPLERS, generate, inpaint


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


def test_inpainting_with_nothing_kept_is_generation(base, pair, pictures):
    everything = inpaint(base, pair[0], pictures[0], np.ones((64, 64), bool), steps=4, seed=2)
    torch.testing.assert_close(everything, generate(base, pair[0], 1, steps=4, seed=2), atol=1e-4, rtol=0)
