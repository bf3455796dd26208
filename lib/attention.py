"""Cross-attention that keeps its keys and values: text states do not change between the steps of a solver."""

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch.nn.functional import scaled_dot_product_attention


class KeepingAttention(AttnProcessor2_0):
    """diffusers' attention; with `kept`, a dict of the caller's, each layer projects the text states once.

    A dict belongs to one batch of text states: `unet(..., cross_attention_kwargs={"kept": {}})` with the
    same dict in every step, and another dict for other states.
    """

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, kept=None
    ) -> torch.Tensor:
        """Attended states [n, positions, D], as of [n, positions, D] and the text's [n, tokens, E]."""
        if kept is None or encoder_hidden_states is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)

        def by_head(states):
            return states.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        if attn not in kept:
            keys, values = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
            kept[attn] = by_head(keys).contiguous(), by_head(values).contiguous()
        attended = scaled_dot_product_attention(by_head(attn.to_q(hidden_states)), *kept[attn])
        return attn.to_out[0](attended.transpose(1, 2).flatten(-2))
