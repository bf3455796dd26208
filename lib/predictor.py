"""A U-Net while it draws: n images by m prompts, step after step, and little of it computed twice.

diffusers' model answers for one step and knows of no other. Here, what does not change between the steps is
computed before the first: keys and values of the text, and what each block adds for each timestep. All
images of a prompt attend together, in one large product. What comes before the first cross-attention does
not know the prompt, and is computed once an image. On a CPU, pictures are kept channels last where the
weights are (lib.base): then tokens need no copy. On CUDA the prediction is recorded once and replayed
(lib.graphs).
"""

import inspect
from functools import cache

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from torch.nn import functional as F

from lib.graphs import Recorded

#: In which the U-Nets of Stable Diffusion 1 and 2, and models/mini, differ from diffusers' defaults or may.
_FREE = {
    *("sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block"),
    *("down_block_types", "up_block_types", "downsample_padding", "flip_sin_to_cos", "freq_shift"),
    *("norm_num_groups", "norm_eps", "dropout", "cross_attention_dim", "attention_head_dim"),
    *("num_attention_heads", "transformer_layers_per_block", "use_linear_projection", "upcast_attention"),
}
_ATTENTIONS = {AttnProcessor, AttnProcessor2_0}  # two ways of the same attention
_BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}


class Predictor:
    """What a UNet2DConditionModel predicts for the same images by each of m prompts, at a solver's steps.

    unet    its weights are read and not changed
    states  the prompts' text states, [m, tokens, E]
    times   the solver's timesteps, [steps]

    Called as predictor(latents [n, C, h, w], step), it gives [m * n, C, h, w], the first prompt's first, as
    an inference tensor: no gradient flows. A U-Net of another kind than Stable Diffusion's, or one whose
    parts were exchanged, is called as diffusers has it.
    """

    @torch.inference_mode()
    def __init__(self, unet: UNet2DConditionModel, states: torch.Tensor, times: torch.Tensor):
        self.unet, self.times, self.dtype = unet, times, unet.dtype
        self.states = states.to(self.dtype)
        self.known = is_known(unet)
        self._recorded = Recorded()
        if not self.known:
            return
        embedded = unet.time_embedding(unet.time_proj(times.to(states.device)).to(self.dtype))
        embedded = F.silu(embedded)
        self._added, self._texts = {}, {}
        for part in unet.modules():
            if isinstance(part, ResnetBlock2D):  # [steps, C], which takes the place of the convolution's bias
                self._added[part] = part.time_emb_proj(embedded) + part.conv1.bias
            elif hasattr(part, "attn2"):
                layer = part.attn2
                projected = layer.to_k(self.states), layer.to_v(self.states)
                self._texts[layer] = tuple(_by_head(layer, rows).contiguous() for rows in projected)

    @torch.inference_mode()
    def __call__(self, latents: torch.Tensor, step: int) -> torch.Tensor:
        latents = latents.to(self.dtype)
        if not self.known:
            states = self.states.repeat_interleave(len(latents), 0)
            repeated = latents.repeat(len(self.states), 1, 1, 1)
            return self.unet(repeated, self.times[step], encoder_hidden_states=states).sample
        step = torch.full((1,), step, device=latents.device)
        return self._recorded(self._predict, latents, step)

    def _predict(self, latents, step):
        unet, rows = self.unet, len(self.states) * len(latents)
        layout = torch.channels_last
        if latents.device.type == "cpu" and unet.conv_in.weight.is_contiguous(memory_format=layout):
            latents = latents.contiguous(memory_format=layout)
        x = unet.conv_in(latents)
        skipped = [x]
        for block in unet.down_blocks:
            for resnet, transformer in _layers(block):
                x = self._layer(resnet, transformer, x, step, rows)
                skipped.append(x)
            for sampler in block.downsamplers or ():
                x = sampler(x)
                skipped.append(x)
        middle = unet.mid_block  # ends with a resnet
        for resnet, transformer in zip(middle.resnets, [*middle.attentions, None], strict=True):
            x = self._layer(resnet, transformer, x, step, rows)
        for block in unet.up_blocks:
            for resnet, transformer in _layers(block):
                x = torch.cat([x, _repeated(skipped.pop(), len(x))], 1)
                x = self._layer(resnet, transformer, x, step, rows)
            for sampler in block.upsamplers or ():
                x = sampler(x, skipped[-1].shape[2:])
        return unet.conv_out(F.silu(unet.conv_norm_out(_repeated(x, rows)), inplace=True))

    def _layer(self, resnet, transformer, x, step, rows):
        hidden = F.silu(resnet.norm1(x), inplace=True)
        added = self._added[resnet].index_select(0, step)[0]
        hidden = F.conv2d(hidden, resnet.conv1.weight, added, padding=1)
        hidden = resnet.conv2(F.silu(resnet.norm2(hidden), inplace=True))
        x = hidden.add_(x if resnet.conv_shortcut is None else resnet.conv_shortcut(x))
        return x if transformer is None else self._transformed(transformer, x, rows)

    def _transformed(self, transformer, x, rows):
        _, _, height, width = x.shape
        tokens = transformer.norm(x)
        if not transformer.use_linear_projection:
            tokens = transformer.proj_in(tokens)
        tokens = tokens.flatten(2).transpose(1, 2)
        if transformer.use_linear_projection:
            tokens = transformer.proj_in(tokens)
        for block in transformer.transformer_blocks:
            seen = block.norm1(tokens)
            projections = (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v)
            heads = (_by_head(block.attn1, project(seen)) for project in projections)
            tokens = _repeated(tokens + _attended(block.attn1, *heads, tokens.shape), rows)
            # a prompt's images stand behind each other: their positions attend to its text as one picture's
            asked = block.attn2.to_q(block.norm2(tokens)).view(len(self.states), -1, tokens.shape[-1])
            heads = (_by_head(block.attn2, asked), *self._texts[block.attn2])
            tokens = tokens + _attended(block.attn2, *heads, tokens.shape)
            tokens = tokens + block.ff(block.norm3(tokens))
        if transformer.use_linear_projection:
            tokens = transformer.proj_out(tokens)
        tokens = tokens.transpose(1, 2).reshape(rows, -1, height, width)
        if not transformer.use_linear_projection:
            tokens = transformer.proj_out(tokens)
        return tokens.add_(_repeated(x, rows))


def is_known(unet: torch.nn.Module) -> bool:
    """Whether it is built as Stable Diffusion's is, whatever its widths and depth, and nothing was added."""
    if type(unet) is not UNet2DConditionModel or unet.training:
        return False
    if any(type(processor) not in _ATTENTIONS for processor in unet.attn_processors.values()):
        return False
    if any(type(m.conv1) is not torch.nn.Conv2d for m in unet.modules() if isinstance(m, ResnetBlock2D)):
        return False
    blocks = {*unet.config.down_block_types, *unet.config.up_block_types}
    same = all(unet.config.get(name, value) == value for name, value in _defaults().items())
    return same and blocks <= _BLOCKS


@cache
def _defaults():
    known = inspect.signature(UNet2DConditionModel.__init__).parameters
    return {name: known[name].default for name in known.keys() - _FREE - {"self"}}


def _layers(block):
    transformers = getattr(block, "attentions", [None] * len(block.resnets))
    return zip(block.resnets, transformers, strict=True)


def _repeated(rows, n):
    return rows if len(rows) == n else torch.cat([rows] * (n // len(rows)))  # which keeps channels last


def _by_head(attention, rows):
    return rows.unflatten(-1, (attention.heads, -1)).transpose(1, 2)


def _attended(attention, queries, keys, values, shape):
    found = F.scaled_dot_product_attention(queries, keys, values)
    return attention.to_out[0](found.transpose(1, 2).reshape(shape))
