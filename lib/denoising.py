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
def image_losses(base, images, what, seed: int = 0, draws: int = 8, batch_size: int = 32) -> torch.Tensor:
    """Loss of each image under fixed noise and timesteps, float32 [n].

    images  an ImageSet or [n, 3, H, W]; what: a caption ("" is the empty prompt) or an Embedding
    draws   timesteps an image, one in each of `draws` equal parts of the schedule; noise and timesteps
            depend on `seed`, the draw and the image's place alone, so losses of two prompts are paired
    """
    return latent_losses(base, base.encode(pixels_of(images))[0], what, seed, draws, batch_size)


@torch.no_grad()
def latent_losses(base, latents, what, seed: int = 0, draws: int = 8, batch_size: int = 32) -> torch.Tensor:
    """`image_losses` of images that are encoded already; latents [n, C, h, w], the posterior's means."""
    states = base.embed(*_prompted(what))
    n, span = len(latents), len(base.alphas_cumprod) / draws
    total = torch.zeros(n)
    for draw in range(draws):
        # Two streams: in one, where an image's noise starts would depend on how many images there are.
        places = np.random.default_rng([seed, draw, 0]).random(n)
        noise = np.random.default_rng([seed, draw, 1]).standard_normal(latents.shape, dtype=np.float32)
        times = torch.from_numpy(((draw + places) * span).astype(np.int64)).to(base.device)
        noise = torch.from_numpy(noise).to(base.device)
        for rows in torch.arange(n).split(batch_size):
            part = states.expand(len(rows), -1, -1)
            total[rows] += denoising_loss(base, latents[rows], noise[rows], times[rows], part).cpu()
    return total / draws


def validation_loss(base, images, what, seed: int = 0, draws: int = 8, batch_size: int = 32) -> float:
    """Mean of `image_losses`."""
    return float(image_losses(base, images, what, seed, draws, batch_size).mean())


def min_snr_weights(base, times, gamma: float) -> torch.Tensor:
    """Weights of the losses at `times`: Hang et al. 2023, arXiv 2303.09556, for epsilon and v alike."""
    alpha = base.alphas_cumprod[times]
    snr = alpha / (1 - alpha)
    return snr.clamp_max(gamma) / (snr if base.prediction_type == "epsilon" else snr + 1)


def _prompted(what) -> tuple[list[str], dict[str, torch.Tensor]]:
    if isinstance(what, Embedding):
        return [what.token], {what.token: what.vectors}
    return [what], {}
