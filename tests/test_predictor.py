"""What a U-Net predicts while it draws is what diffusers predicts, and what is shared is computed once."""

import copy
from collections import Counter
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import SlicedAttnProcessor
from torch.testing import assert_close

from lib import rehearsal
from lib.base import load_base
from lib.predictor import Predictor, is_known

PROMPTS = ["a large oval", "", "crimson stripes"]
TIMES = torch.tensor([900, 500, 100])


def _noise(shape, n):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def check(unet, states, shape, n, atol=1e-5, rtol=1e-4):
    """Predictions of n images by each prompt, at every step: with everything repeated, and shared."""
    noise, m = _noise(shape, n), len(states)
    predict = Predictor(unet, states, TIMES)
    for step, time in enumerate(TIMES):
        repeated, told = noise.repeat(m, 1, 1, 1), states.repeat_interleave(n, 0)
        plain = unet(repeated, time, encoder_hidden_states=told).sample
        assert_close(predict(noise, step), plain, atol=atol, rtol=rtol)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS[:2], PROMPTS])
def test_no_prediction_changes(base, n, prompts):
    assert is_known(base.unet)
    check(base.unet, base.embed(prompts).detach(), base.latent_shape, n)


@pytest.mark.parametrize("version", ["1", "2"])
def test_nor_does_one_of_stable_diffusions_shape(tmp_path, version):
    """Whose first block has cross-attention already; the first one's projections are convolutions."""
    shape = replace(rehearsal.SHAPES[version].reduced(), widths=(64, 128), attention_heads=(2, 4))
    base = load_base(rehearsal.write(tmp_path / "sd", shape), "cpu")
    assert is_known(base.unet)
    check(base.unet, base.embed(PROMPTS[:2]).detach(), base.latent_shape, 2, atol=1e-4, rtol=1e-3)


SMALL = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"use_linear_projection": True, "transformer_layers_per_block": 2}, True),
        ({"downsample_padding": 0}, True),
        ({"resnet_time_scale_shift": "scale_shift"}, False),
        ({"down_block_types": ("AttnDownBlock2D", "CrossAttnDownBlock2D")}, False),
        ({"mid_block_scale_factor": 2.0}, False),
    ],
)
@pytest.mark.parametrize("side", [8, 7])  # seven is halved to four, and must be doubled to seven
def test_a_unet_of_another_kind_is_left_to_diffusers(changes, known, side):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SMALL | changes).eval()
    assert is_known(unet) == known
    check(unet, torch.randn(2, 5, 16), (4, side, side), 2)


def test_a_unet_whose_parts_were_exchanged_is_left_to_diffusers(base):
    for exchanged in (_attention, _convolution, lambda unet: unet.train()):
        unet = copy.deepcopy(base.unet)
        exchanged(unet)
        assert is_known(base.unet) and not is_known(unet)
        check(unet, base.embed(PROMPTS[:2]).detach(), base.latent_shape, 2)


def _attention(unet):
    unet.set_attn_processor(SlicedAttnProcessor(1))


def _convolution(unet):
    """As an adapter has it: more than the weights that it shows."""
    resnet = unet.mid_block.resnets[0]
    resnet.conv1 = torch.nn.Sequential(resnet.conv1, torch.nn.Tanh())


def test_what_is_shared_is_computed_once(base):
    """Text is projected once a generation; the first convolution sees an image once, not once a prompt."""
    layers = [m.to_k for name, m in base.unet.named_modules() if name.endswith("attn2")]
    projected, seen = Counter(), []
    hooks = [layer.register_forward_hook(lambda m, *_: projected.update([m])) for layer in layers]
    hooks.append(base.unet.conv_in.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0]))))
    try:
        predict = Predictor(base.unet, base.embed(PROMPTS).detach(), TIMES)
        for step in range(3):
            predict(_noise(base.latent_shape, 2), step)
    finally:
        for hook in hooks:
            hook.remove()
    assert projected == Counter(layers) and seen == [2, 2, 2]
