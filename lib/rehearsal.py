"""Folders with Stable Diffusion's own shapes and random weights: do shapes, memory and formats fit?

    python -m lib.rehearsal FOLDER [--version 1|2] [--prediction epsilon|v_prediction] [--reduced]

The configurations are those of stable-diffusion-2-base and stable-diffusion-v1-5. The tokenizer is that of
models/mini, so that no network is needed: captions mean nothing to random weights.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lib.config import ROOT

VOCABULARY = 49408  # tokens of CLIP


@dataclass(frozen=True)
class Shape:
    """What tells one Stable Diffusion from another, and its depth from that of a reduced one."""

    text_width: int
    text_layers: int
    text_heads: int
    activation: str
    attention_heads: int | tuple[int, ...]  # diffusers calls it attention_head_dim
    linear_projection: bool
    prediction: str = "epsilon"
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    autoencoder_widths: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2  # of each block

    def reduced(self) -> "Shape":
        """Text width, latent shape, image side and the first two levels' widths as they are, little depth."""
        heads = self.attention_heads if isinstance(self.attention_heads, int) else self.attention_heads[:2]
        return replace(
            self,
            text_layers=2,
            attention_heads=heads,
            widths=self.widths[:2],
            autoencoder_widths=(32, 32, 32, 32),
            layers=1,
        )


SHAPES = {
    "1": Shape(768, 12, 12, "quick_gelu", 8, False),
    "2": Shape(1024, 23, 16, "gelu", (5, 10, 20, 20), True),
}


def write(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """Writes a StableDiffusionPipeline folder with random weights of that shape; returns the folder."""
    torch.manual_seed(seed)
    levels = len(shape.widths)
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "models" / "mini" / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape.text_width,
        intermediate_size=4 * shape.text_width,
        projection_dim=shape.text_width,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=shape.text_heads,
        hidden_act=shape.activation,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        block_out_channels=shape.widths,
        layers_per_block=shape.layers,
        cross_attention_dim=shape.text_width,
        attention_head_dim=shape.attention_heads,
        use_linear_projection=shape.linear_projection,
    )
    steps = len(shape.autoencoder_widths)
    autoencoder = AutoencoderKL(
        sample_size=512,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * steps,
        up_block_types=("UpDecoderBlock2D",) * steps,
        block_out_channels=shape.autoencoder_widths,
        layers_per_block=shape.layers,
        scaling_factor=0.18215,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=shape.prediction,
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m lib.rehearsal", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--version", choices=SHAPES, default="2", help="of Stable Diffusion")
    parser.add_argument("--prediction", choices=("epsilon", "v_prediction"), default="epsilon")
    parser.add_argument("--reduced", action="store_true", help="true widths, little depth: for a CPU")
    given = parser.parse_args()
    shape = replace(SHAPES[given.version], prediction=given.prediction)
    write(given.folder, shape.reduced() if given.reduced else shape)


if __name__ == "__main__":
    main()
