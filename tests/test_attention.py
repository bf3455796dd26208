"""What images and prompts share in the U-Net is computed once, and no prediction changes by it."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from lib import rehearsal
from lib.attention import Shared
from lib.base import load_base

PROMPTS = ["a large oval", "", "crimson stripes"]


def _noise(base, n):
    return torch.randn(n, *base.latent_shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _both(base, n, prompts):
    """Predictions of n images by each prompt: with everything repeated, and shared."""
    noise, states = _noise(base, n), base.embed(prompts)
    told = {"encoder_hidden_states": states.repeat_interleave(n, 0)}
    plain = base.unet(noise.repeat(len(prompts), 1, 1, 1), 500, **told).sample
    shared = {"shared": Shared(n, len(prompts))}
    calls = [
        base.unet(noise, 500, encoder_hidden_states=states, cross_attention_kwargs=shared).sample
        for _ in range(2)
    ]
    return plain, calls


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS[:2], PROMPTS])
def test_no_prediction_changes(base, n, prompts):
    plain, calls = _both(base, n, prompts)
    for shared in calls:
        assert_close(shared, plain, atol=1e-5, rtol=1e-4)


def test_nor_does_one_of_stable_diffusions_shape(tmp_path):
    """Whose first block has cross-attention already."""
    shape = replace(rehearsal.SHAPES["2"].reduced(), widths=(64, 128), attention_heads=(2, 4))
    plain, calls = _both(load_base(rehearsal.write(tmp_path / "sd", shape), "cpu"), 2, PROMPTS[:2])
    for shared in calls:
        assert_close(shared, plain, atol=1e-4, rtol=1e-3)


def test_what_is_shared_is_computed_once(base):
    """Text is projected once a generation; the first convolution sees an image once, not once a prompt."""
    layers = [m.to_k for name, m in base.unet.named_modules() if name.endswith("attn2")]
    projected, seen = Counter(), []
    hooks = [layer.register_forward_hook(lambda m, *_: projected.update([m])) for layer in layers]
    hooks.append(base.unet.conv_in.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0]))))
    shared, states = {"shared": Shared(2, 3)}, base.embed(PROMPTS)
    try:
        with torch.no_grad():
            for time in (900, 500, 100):
                base.unet(_noise(base, 2), time, encoder_hidden_states=states, cross_attention_kwargs=shared)
    finally:
        for hook in hooks:
            hook.remove()
    assert projected == Counter(layers) and seen == [2, 2, 2]
