"""The denoising loss: what training lowers, and what it is judged by on images it never saw."""

import numpy as np
import torch
from torch.nn import functional as F

from lib.embedding import Embedding


def pixels_of(images) -> torch.Tensor:
    """float32 [n, 3, H, W] of an ImageSet, an array or a tensor."""
    return torch.as_tensor(getattr(images, "images", images), dtype=torch.float32)


def noised(base, latents, noise, times):
    """(noisy latents, what the U-Net should predict) at the given timesteps."""
    alpha = base.alphas_cumprod[times][:, None, None, None]
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    if base.prediction_type == "epsilon":
        return noisy, noise
    return noisy, alpha.sqrt() * noise - (1 - alpha).sqrt() * latents


def denoising_loss(base, latents, noise, times, states) -> torch.Tensor:
    """Mean squared error of each image's prediction, float32 [n]; states [n, tokens, D]."""
    noisy, target = noised(base, latents, noise, times)
    predicted = base.unet(noisy.to(base.dtype), times, encoder_hidden_states=states.to(base.dtype)).sample
    return F.mse_loss(predicted.float(), target.float(), reduction="none").mean((1, 2, 3))


@torch.no_grad()
def image_losses(
    base, images, what, seed: int = 0, draws: int = 8, batch_size: int | None = None
) -> torch.Tensor:
    """Loss of each image under fixed noise and timesteps, float32 [n].

    images  an ImageSet or [n, 3, H, W]; what: a caption ("" is the empty prompt) or an Embedding
    draws   timesteps an image, one in each of `draws` equal parts of the schedule; noise and timesteps
            depend on `seed`, the draw and the image's place alone, so losses of two prompts are paired
    batch_size  that many at once; None: as many as base.at_once says
    """
    return latent_losses(base, base.encode(pixels_of(images))[0], what, seed, draws, batch_size)


@torch.no_grad()
def latent_losses(
    base, latents, what, seed: int = 0, draws: int = 8, batch_size: int | None = None
) -> torch.Tensor:
    """`image_losses` of images that are encoded already; latents [n, C, h, w], the posterior's means."""
    batch_size = batch_size or base.at_once
    states = base.embed(*_prompted(what))
    n, total = len(latents), torch.zeros(len(latents))
    together = max(1, batch_size // max(1, n))  # alone, an image costs four times one of ten
    for some in torch.arange(draws).split(together):
        drawn = [_noise(base, latents, seed, draw, draws) for draw in some.tolist()]
        noise, times = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        for rows in torch.arange(len(times)).split(batch_size):
            part, image = states.expand(len(rows), -1, -1), rows % n
            losses = denoising_loss(base, latents[image], noise[rows], times[rows], part)
            total.index_add_(0, image, losses.cpu())
    return total / draws


def validation_loss(
    base, images, what, seed: int = 0, draws: int = 8, batch_size: int | None = None
) -> float:
    """Mean of `image_losses`."""
    return float(image_losses(base, images, what, seed, draws, batch_size).mean())


def min_snr_weights(base, times, gamma: float) -> torch.Tensor:
    """Weights of the losses at `times`: Hang et al. 2023, arXiv 2303.09556, for epsilon and v alike."""
    alpha = base.alphas_cumprod[times]
    snr = alpha / (1 - alpha)
    return snr.clamp_max(gamma) / (snr if base.prediction_type == "epsilon" else snr + 1)


def _noise(base, latents, seed, draw, draws):
    """(noise [n, C, h, w], timesteps [n] in the draw's part of the schedule)."""
    # Two streams: in one, where an image's noise starts would depend on how many images there are.
    places = np.random.default_rng([seed, draw, 0]).random(len(latents))
    noise = np.random.default_rng([seed, draw, 1]).standard_normal(latents.shape, dtype=np.float32)
    times = ((draw + places) * (len(base.alphas_cumprod) / draws)).astype(np.int64)
    return torch.from_numpy(noise).to(base.device), torch.from_numpy(times).to(base.device)


def _prompted(what) -> tuple[list[str], dict[str, torch.Tensor]]:
    if isinstance(what, Embedding):
        return [what.token], {what.token: what.vectors}
    return [what], {}
