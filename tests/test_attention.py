"""Keys and values that are kept between the steps of a solver."""

import torch
from torch.testing import assert_close


def _predicted(base, states, **more):
    noise = torch.randn(2, *base.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return base.unet(noise, 500, encoder_hidden_states=states, **more).sample


def test_kept_keys_and_values_change_no_prediction(base):
    states = base.embed(["a large oval", ""])
    kept = {"kept": {}}
    plain = _predicted(base, states)
    assert_close(_predicted(base, states, cross_attention_kwargs=kept), plain)
    assert_close(_predicted(base, states, cross_attention_kwargs=kept), plain)


def test_every_cross_attention_projects_the_text_once(base):
    layers = [m for name, m in base.unet.named_modules() if name.endswith("attn2")]
    kept, calls = {}, []
    hooks = [layer.to_k.register_forward_hook(lambda *_: calls.append(1)) for layer in layers]
    try:
        for _ in range(3):
            _predicted(base, base.embed(["a large oval", ""]), cross_attention_kwargs={"kept": kept})
    finally:
        for hook in hooks:
            hook.remove()
    assert set(kept) == set(layers) and len(calls) == len(layers)
