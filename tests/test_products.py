"""Products of frozen layers: the same numbers, and only where no weight is trained."""

import copy

import pytest
import torch
from torch.testing import assert_close

from lib import products
from lib.base import load_base
from lib.products import OneDnnLinear, attend_plainly, use_onednn


def pair(bias=True):
    """A layer, and one with its weights that is frozen."""
    torch.manual_seed(0)
    plain = torch.nn.Linear(96, 160, bias=bias)
    frozen = copy.deepcopy(plain).requires_grad_(False)
    use_onednn(frozen)
    return plain, frozen


@pytest.fixture
def calls(monkeypatch):
    """Shapes of what goes the fast way."""
    seen, apply = [], products._Product.apply
    spy = lambda states, *rest: (seen.append(tuple(states.shape)), apply(states, *rest))[1]  # noqa: E731
    monkeypatch.setattr(products._Product, "apply", spy)
    return seen


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(512, 96), (2, 256, 96), (2, 4, 64, 96)])
def test_value_and_gradient_are_the_layers(bias, shape, calls):
    plain, frozen = pair(bias)
    states = torch.randn(shape, requires_grad=True)
    wanted, found = plain(states), frozen(states)
    assert calls == [shape]
    assert_close(found, wanted)
    pull = torch.randn_like(wanted)
    for of, out in ((states, found), (states, wanted)):
        out.backward(pull)
        out.kept, of.grad = of.grad, None
    assert_close(found.kept, wanted.kept)
    assert frozen.weight.grad is None


def test_views_need_no_copy_of_their_own(calls):
    plain, frozen = pair()
    states = torch.randn(96, 512).t()
    with torch.inference_mode():
        assert_close(frozen(states), plain(states))
    assert calls


def test_a_layer_that_is_trained_or_small_is_torchs(calls):
    plain, frozen = pair()
    assert_close(frozen(torch.ones(2, 96)), plain(torch.ones(2, 96)))
    for name in ("weight", "bias"):
        frozen.requires_grad_(False)
        getattr(frozen, name).requires_grad_(True)
        frozen(torch.randn(512, 96)).sum().backward()
        assert getattr(frozen, name).grad is not None
    half = frozen.requires_grad_(False).to(torch.bfloat16)
    assert half(torch.ones(512, 96, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert not calls


def test_plain_attention_is_fused_attention(base):
    """With its gradient, in float32; a base on a CPU uses it in half precision alone."""
    unet = copy.deepcopy(base.unet)
    noise = torch.randn(2, *base.latent_shape, generator=torch.Generator().manual_seed(0))
    states = base.embed(["a large oval", ""]).detach().requires_grad_()
    fused = unet(noise, 500, encoder_hidden_states=states).sample
    attend_plainly(unet)
    half = load_base("models/mini", "cpu", "bfloat16")
    assert attentions(unet) == attentions(half.unet) != attentions(base.unet)
    ours = unet(noise, 500, encoder_hidden_states=states).sample
    assert_close(ours, fused)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    assert_close(*(torch.autograd.grad((y * weights).sum(), states)[0] for y in (ours, fused)))


def attentions(unet):
    return {type(processor) for processor in unet.attn_processors.values()}


def test_a_bases_linear_layers_are_such(base):
    for part in (base.unet, base.text_encoder):
        layers = [m for m in part.modules() if isinstance(m, torch.nn.Linear)]
        assert layers and all(type(layer) is OneDnnLinear for layer in layers)
        assert all(
            type(m) is OneDnnLinear for m in copy.deepcopy(part).modules() if hasattr(m, "in_features")
        )
