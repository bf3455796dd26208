"""The autoencoder of models/mini: an encoder that is set, a decoder that is learned."""

import time

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from lib.shards import PretrainRecord, load_pixels, replace_file


def build_autoencoder(settings):
    """diffusers' AutoencoderKL of the widths of `settings` (PretrainSettings), with random weights."""
    n = len(settings.autoencoder_widths)
    return AutoencoderKL(
        block_out_channels=settings.autoencoder_widths,
        latent_channels=settings.latent_channels,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * n,
        up_block_types=("UpDecoderBlock2D",) * n,
        norm_num_groups=8,
        sample_size=settings.side,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


@torch.no_grad()
def set_encoder(model, x):
    """Makes the encoder of an AutoencoderKL the principal components of 4 x 4 patches, exactly.

    A learned encoder needs tens of thousands of updates to beat this linear one; set by hand it is
    there at once, the U-Net can train while the decoder still learns, and nothing about the latents is
    hidden. x: images [n, 3, H, W] in [-1, 1] whose components are taken. Component k is divided by the
    square root of its standard deviation (between the pixels' own scale and whitening), then all by
    one number, so that the mean square is 1 and scaling_factor is 1. Every residual branch is zero; two
    stride-2 convolutions sort each patch into 48 channels; a 1 x 1 shortcut projects them. Two facts
    undo the last normalisation and SiLU: constants of +-64 in each group fix its variance, and
    silu(y) - silu(-y) = y.
    """
    encoder, c = model.encoder, model.config.latent_channels
    patches = F.pixel_unshuffle(F.pixel_unshuffle(x, 2), 2).permute(0, 2, 3, 1).reshape(-1, 48)
    mean = patches.mean(0)
    variance, axes = torch.linalg.eigh(torch.cov((patches - mean).T))
    scale = variance.flip(0)[:c] ** -0.25
    scale /= (variance.flip(0)[:c] * scale**2).mean().sqrt()
    rows = (axes.flip(1)[:, :c] * scale).T

    for block in (
        *(r for down in encoder.down_blocks for r in down.resnets),
        *encoder.mid_block.resnets,
    ):
        block.conv2.weight.zero_()
        block.conv2.bias.zero_()
    _set(encoder.conv_in, [(i, i, 1, 1, 1.0) for i in range(3)])
    for level, channels in ((0, 3), (1, 12)):
        taps = [
            (4 * i + 2 * dy + dx, i, dy, dx, 1.0) for i in range(channels) for dy in (0, 1) for dx in (0, 1)
        ]
        _set(encoder.down_blocks[level].downsamplers[0].conv, taps)
    _set(encoder.down_blocks[1].resnets[0].conv_shortcut, [(i, i, 0, 0, 1.0) for i in range(12)])

    norm, project, last = (
        encoder.conv_norm_out,
        encoder.down_blocks[2].resnets[0].conv_shortcut,
        encoder.conv_out,
    )
    width = norm.num_channels // norm.num_groups
    project.weight.zero_()
    project.bias.copy_(torch.tensor([64.0, -64.0]).repeat(norm.num_channels // 2))
    last.weight.zero_()
    last.bias.zero_()
    norm.bias.zero_()
    for k in range(c):
        place = width * (k % norm.num_groups) + 2 * (k // norm.num_groups)
        for sign, channel in ((1, place), (-1, place + 1)):
            project.weight[channel, :, 0, 0] = sign * rows[k]
            project.bias[channel] = -sign * rows[k] @ mean
            last.weight[k, channel, 1, 1] = sign
    inside = torch.tensor([sum(k % norm.num_groups == g for k in range(c)) for g in range(norm.num_groups)])
    norm.weight.copy_((64.0 * (1 - 2 * inside / width).sqrt()).repeat_interleave(width))
    last.bias[c:] = 2 * np.log(0.02)
    _set(model.quant_conv, [(i, i, 0, 0, 1.0) for i in range(2 * c)])
    for part in (encoder, model.quant_conv):
        part.requires_grad_(False)


def _set(conv, taps):
    """A convolution that is zero but for (output, input, row, column, weight)."""
    conv.weight.zero_()
    conv.bias.zero_()
    for out, into, row, column, weight in taps:
        conv.weight[out, into, row, column] = weight


def train_decoder(settings, scenes, shards, checkpoint, device="cpu", every=100):
    """Sets the encoder, trains the decoder on L1 and yields a record every `every` updates.

    Half of the latents get noise of up to 0.2, so that the decoder forgives what a sampler leaves.
    `checkpoint` is written at the end; a training that was interrupted goes on from its last partial state.
    """
    partial = checkpoint.with_suffix(".part.pt")
    torch.manual_seed(settings.seed)
    model = build_autoencoder(settings)
    set_encoder(model, torch.from_numpy(load_pixels(scenes, shards[0])).float() / 127.5 - 1)
    model.to(device, memory_format=torch.channels_last)
    learned = [*model.decoder.parameters(), *model.post_quant_conv.parameters()]
    for block in (
        *(r for up in model.decoder.up_blocks for r in up.resnets),
        *model.decoder.mid_block.resnets,
    ):
        torch.nn.init.zeros_(block.conv2.weight)
    batch, rate = settings.decoder_batch_size, settings.decoder_rate
    updates = settings.decoder_samples // batch
    optimizer = torch.optim.AdamW(learned, rate, weight_decay=0.0, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, updates, pct_start=0.05)
    start, update, running = time.perf_counter(), 0, 0.0
    if partial.exists():
        state = torch.load(partial, map_location=device, weights_only=True)
        for part, name in ((model, "model"), (optimizer, "optimizer"), (schedule, "schedule")):
            part.load_state_dict(state[name])
        update = state["update"]
    rng = np.random.default_rng([settings.seed, update])
    while update < updates:
        pixels = load_pixels(scenes, shards[int(rng.integers(len(shards)))])
        parts = max(1, len(pixels) // batch)
        for rows in np.array_split(rng.permutation(len(pixels)), parts)[: updates - update]:
            x = torch.from_numpy(pixels[rows]).to(device).float() / 127.5 - 1
            with torch.no_grad():
                z = model.encode(x).latent_dist.sample()
                level = 0.4 * (torch.rand(len(z), 1, 1, 1, device=device) - 0.5).clamp_min(0)
                z = z + level * torch.randn_like(z)
            loss = F.l1_loss(model.decode(z).sample, x)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            schedule.step()
            update, running = update + 1, running + loss.detach()
            if update % (10 * every) == 0 and update < updates:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                state |= {"schedule": schedule.state_dict(), "update": update}
                replace_file(partial, lambda path, state=state: torch.save(state, path))
            if update % every == 0 or update == updates:
                rate, seconds = schedule.get_last_lr()[0], time.perf_counter() - start
                yield PretrainRecord(
                    "decoder", update * batch, float(running) / (update % every or every), rate, seconds
                )
                running = 0.0
    replace_file(checkpoint, lambda path: torch.save(model.state_dict(), path))
    partial.unlink(missing_ok=True)


@torch.no_grad()
def encode_shard(model, scenes, latents, name, device="cpu"):
    """Writes float16 [n, 2C, h, w]: posterior mean and standard deviation; skips what is there."""
    target = latents / f"{name}.npy"
    if target.exists():
        return
    latents.mkdir(parents=True, exist_ok=True)
    x = torch.from_numpy(load_pixels(scenes, name)).to(device)
    parts = [model.encode(part.float() / 127.5 - 1).latent_dist for part in x.split(128)]
    moments = np.concatenate([torch.cat([p.mean, p.std], 1).half().cpu().numpy() for p in parts])
    replace_file(target, lambda path: np.save(path, moments))
