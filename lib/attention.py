"""What a U-Net need not compute again while it draws n images by m prompts.

Text states do not change between the steps of a solver: keys and values are projected once. All images of a
prompt share them: their queries attend together, in one large product. And what comes before the first
cross-attention does not know the prompt: it is computed once an image, not once a prompt.
"""

from dataclasses import dataclass, field

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch.nn.functional import scaled_dot_product_attention


@dataclass(eq=False)
class Shared:
    """One generation: in each of its steps, the same n images by the same m prompts.

    `unet(latents, time, encoder_hidden_states=states, cross_attention_kwargs={"shared": shared})` takes
    latents [n, C, h, w] and states [m, tokens, E], and predicts [m * n, C, h, w], the first prompt's first.
    Other text states, or another number of images, want another Shared.
    """

    images: int
    prompts: int
    kept: dict = field(default_factory=dict)  # layer -> keys and values, [m, heads, tokens, D]


class SharingAttention(AttnProcessor2_0):
    """diffusers' attention; with `shared`, cross-attention projects the text states once a generation."""

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, shared=None
    ) -> torch.Tensor:
        """Attended states [n, positions, D], as of [n, positions, D] and the text's [n, tokens, E].

        With `shared`, n is its images times its prompts, and the text's states are [prompts, tokens, E].
        """
        if shared is None or encoder_hidden_states is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)

        def by_head(states):
            split = states.reshape(shared.prompts, -1, attn.heads, states.shape[-1] // attn.heads)
            return split.transpose(1, 2)

        if attn not in shared.kept:
            keys, values = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
            shared.kept[attn] = by_head(keys).contiguous(), by_head(values).contiguous()
        attended = scaled_dot_product_attention(by_head(attn.to_q(hidden_states)), *shared.kept[attn])
        return attn.to_out[0](attended.transpose(1, 2).reshape(hidden_states.shape))


def accept_shared(unet: torch.nn.Module) -> None:
    """Make a UNet2DConditionModel take a `Shared`; without one it does what it did."""
    unet.set_attn_processor(SharingAttention())
    for module in unet.modules():
        if isinstance(module, Transformer2DModel):
            module.register_forward_pre_hook(_before_attention, with_kwargs=True)
        elif isinstance(module, ResnetBlock2D):
            module.register_forward_pre_hook(_before_resnet)
    for block in unet.up_blocks:
        block.register_forward_pre_hook(_before_up_block, with_kwargs=True)


def _repeated(rows, n):
    return rows if len(rows) == n else rows.repeat(n // len(rows), *[1] * (rows.ndim - 1))


def _before_attention(_module, inputs, named):
    """The first of them finds one row an image, and all that follows one an image and prompt."""
    shared = (named.get("cross_attention_kwargs") or {}).get("shared")
    if shared:
        inputs = (_repeated(inputs[0], shared.images * shared.prompts), *inputs[1:])
    return inputs, named


def _before_resnet(_module, inputs):
    states, time = inputs
    return states, _repeated(time, len(states))


def _before_up_block(_module, inputs, named):
    skipped, n = named["res_hidden_states_tuple"], len(named["hidden_states"])
    return inputs, named | {"res_hidden_states_tuple": tuple(_repeated(rows, n) for rows in skipped)}
