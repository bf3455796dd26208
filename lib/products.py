"""Products on a CPU in another way than torch's own choice, where that is faster.

In float32, those of frozen layers by oneDNN, which convolutions use already: torch gives them to MKL, which
on an AMD processor runs at about half of its speed; benchmarks/training.py sets the two side by side. In
bfloat16, attention in plain steps: benchmarks/precision.py.
"""

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class OneDnnLinear(torch.nn.Linear):
    """torch.nn.Linear, faster while no gradient of its weights is asked for; the same within rounding."""

    #: Multiply-adds from which it pays, with one thread and with two: below, the call itself is the price.
    worth = 2**22

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """float [..., out], of [..., in]."""
        weight, bias = self.weight, self.bias
        frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
        plain = states.device.type == "cpu" and states.dtype == weight.dtype == torch.float32
        if frozen and plain and states.numel() * self.out_features >= self.worth:
            return _Product.apply(states, weight, bias)
        return F.linear(states, weight, bias)


def use_onednn(module: torch.nn.Module) -> None:
    """Has the linear layers of a module computed so, where this build of torch can."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return
    for part in module.modules():
        if type(part) is torch.nn.Linear:
            part.__class__ = OneDnnLinear


def attend_plainly(unet: torch.nn.Module) -> None:
    """Has a diffusers U-Net multiply, soften and multiply again, instead of torch's fused attention.

    In bfloat16 on a CPU the fused one's gradient takes eight times as long as in float32, longer than
    those of all convolutions together.
    """
    unet.set_attn_processor(AttnProcessor())


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, weight, bias):
        ctx.weight = weight
        return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        product = torch.ops.mkldnn._linear_pointwise(grad.contiguous(), ctx.weight.t(), None, "none", [], "")
        return product, None, None
