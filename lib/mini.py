"""The parts of models/mini but its autoencoder, and how it becomes a diffusers pipeline folder."""

import copy
import json
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lib import world
from lib.pipelines import quiet

CARD = """---
license: mit
library_name: diffusers
pipeline_tag: text-to-image
---
# mini: a text-to-image model that has never seen medicine

The embedded base of this repository: an ordinary `StableDiffusionPipeline` folder, {side} x {side} pixels,
latents of {latent_channels} x {latent_side} x {latent_side}, v-prediction, {total:,} parameters in fp16. It
exists so that textual inversion can be studied, tested and taught anywhere. Not for clinical use.

```python
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained("models/mini")
pipe("plain navy , middle left large yellow circle", height={side}, width={side}).images[0]
```

## What it has seen

{shown:,} captioned procedural scenes, written by `lib/world.py` and `lib/scenes.py` and painted by
`lib/painting.py`: shapes, blobs, lines, cells, mosaics, maps of regions, gradients, noise and textures, in
colour and in grey. No photograph, no medical image and no phantom; a test holds the code to that.
Captions name no combination that `lib.world.held_out` does (a scene that is mirrored, or has a pair, may show
one untold); the captions that the base is tested with are made of these. Its vocabulary is the world's:
{vocabulary} tokens.

## Parts

| part | parameters |
|---|---|
{parts}

The autoencoder's encoder is set, not learned: the principal components of 4 x 4 patches. Its decoder, the
U-Net and the text encoder were trained from random weights.

## Recipe

`python -m lib.pretrain runs/pretrain runs/mini`, or notebook 99; every setting is in `recipe.json`. {moved}
at {rate:g}, {warmup} updates of warm-up, linear decay over the last {decay_share:.0%}; batch {batch_size} a
process; EMA {ema:g}; captions dropped with probability {caption_dropout:g}; seed {seed}. Trained on:
{device}.

| stage | scenes shown | last loss | hours |
|---|---|---|---|
{stages}

## Known weaknesses

- Captions must be in the world's words and grammar; other text is spelled out letter by letter and means
  nothing.
- It knows neither perspective nor texture as photographs have them, and {side} pixels hold no fine
  structure: what is learned on real images is the layout, the colour and the coarse texture.
- Of a single object it obeys colour and place, mostly size, and shape hardly: `01_data` measures it.
  Between much noise and little it loses the thread: what is taught to it by textual inversion has the right
  layout, and ragged outlines.
"""


def build_tokenizer(folder):
    """CLIPTokenizer in which every word of the world is one token and any other text still encodes."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=20_000,
        min_frequency=1,
        show_progress=False,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
    )
    bpe.train_from_iterator([" ".join(world.vocabulary())], trainer)
    model = json.loads(bpe.to_str())["model"]
    pieces = {*model["vocab"], *alphabet, *(a + "</w>" for a in alphabet)}
    vocab = {piece: i for i, piece in enumerate([*sorted(pieces), "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=True)
    merges = ["#version: 0.2", *(" ".join(m) for m in model["merges"])]
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    return CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        model_max_length=77,
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )


def build_text_encoder(settings, tokenizer):
    """CLIPTextModel whose position embeddings start as sinusoids, louder than the words.

    From CLIP's own start two layers forget where a word stands, and after 190,000 scenes no tile of a mosaic
    was where its word put it; from this one the tiles fell into place within 16,000.
    """
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.text_width,
            intermediate_size=4 * settings.text_width,
            projection_dim=settings.text_width,
            num_hidden_layers=settings.text_layers,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    places = model.get_parameter(next(n for n, _ in model.named_parameters() if "position_embedding" in n))
    places.data += 0.15 * position_code(*places.shape)
    return model


def position_code(length, width):
    """Sinusoids (Vaswani et al. 2017, section 3.5) of periods 2 to 128; float32 [length, width], RMS 1.

    Turned by a fixed rotation, so that no coordinate is position alone. The period 8 counts the words in
    a row of a mosaic, with its comma.
    """
    periods = torch.tensor([128, 64, 32, 16, 8, 4, 8 / 3, 2], dtype=torch.float64)
    phase = 2 * torch.pi * torch.arange(length)[:, None] / periods
    waves = torch.cat([phase.sin(), phase.cos()], 1)
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(width, waves.shape[1], generator=generator, dtype=torch.float64))[0]
    code = waves @ turn.T
    return (code / code.square().mean().sqrt()).float()


def build_unet(settings):
    """diffusers' UNet2DConditionModel of the widths of `settings`, with random weights."""
    n = len(settings.widths)
    side = settings.side // 2 ** (len(settings.autoencoder_widths) - 1)
    finest = "CrossAttnUpBlock2D" if settings.fine_attention else "UpBlock2D"
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=settings.latent_channels,
        out_channels=settings.latent_channels,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (n - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (n - 1) + (finest,),
        block_out_channels=settings.widths,
        layers_per_block=1,
        cross_attention_dim=settings.text_width,
        attention_head_dim=tuple(w // 16 for w in settings.widths),
        norm_num_groups=16,
        use_linear_projection=True,
    )


def load_unet(unet, weights):
    """Loads weights into a U-Net of the same settings, or into one that attends at its finest level, too.

    What the weights lack there is left out of the result at first, so that the U-Net predicts as before.
    Raises RuntimeError where anything else is missing or does not fit.
    """
    finest = f"up_blocks.{len(unet.up_blocks) - 1}.attentions."
    own = {name: value for name, value in unet.state_dict().items() if name.startswith(finest)}
    unet.load_state_dict(own | weights)
    for name in own.keys() - weights.keys():
        if ".proj_out." in name:
            torch.nn.init.zeros_(own[name])


def build_scheduler():
    """The noise schedule of Stable Diffusion 2: 1,000 timesteps, scaled linear; v-prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def export(folder, settings, tokenizer, autoencoder, average, log=(), device="cpu", earlier=()):
    """Writes the EMA weights as a diffusers StableDiffusionPipeline folder in fp16 safetensors.

    log: the records of the training, as lib.pretrain.log_of gives them; with the settings and the device
    they fill the model card, README.md.
    earlier: what recipe.json says of the runs that this one went on from; it then tells of all, in order
    """
    tokenizer.backend_tokenizer.no_padding()  # as it was built: what training asked of it would be saved
    tokenizer.backend_tokenizer.no_truncation()
    with quiet(bars=False):
        from diffusers import StableDiffusionPipeline  # late: its import gives advice, too

        pipeline = StableDiffusionPipeline(
            vae=autoencoder,
            text_encoder=average["text_encoder"],
            tokenizer=tokenizer,
            unet=average["unet"],
            scheduler=build_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        copy.deepcopy(pipeline).to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
    # transformers computes in the dtype that the config names, diffusers in float32: they must agree.
    config = Path(folder) / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    (Path(folder) / "recipe.json").write_text(json.dumps([*earlier, asdict(settings)], indent=2) + "\n")
    (Path(folder) / "README.md").write_text(model_card(settings, pipeline, log, device))


def model_card(settings, pipeline, log, device):
    """The model card, in Markdown: every number in it is of these settings, these weights and this log."""
    parts = {"U-Net": pipeline.unet, "text encoder": pipeline.text_encoder, "autoencoder": pipeline.vae}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    rows = [f"| {name} | {count:,} |" for name, count in counts.items()]
    last = {record["stage"]: record for record in log}
    stages = [
        f"| {stage} | {r['samples']:,} | {r['loss']:.4f} | {r['seconds'] / 3600:.1f} |"
        for stage, r in last.items()
    ]
    side = settings.side // 2 ** (len(settings.autoencoder_widths) - 1)
    return CARD.format(
        **asdict(settings),
        latent_side=side,
        device=device,
        vocabulary=len(pipeline.tokenizer),
        total=sum(counts.values()),
        shown=settings.scenes + settings.objects,
        moved={"adamw": "AdamW", "muon": "Muon (AdamW for what is no matrix)"}[settings.optimizer],
        parts="\n".join(rows),
        stages="\n".join(stages),
    )
