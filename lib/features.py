"""What pictures are compared by: numbers that a network sees in them, without a download.

The frozen base is the network: its U-Net, asked to remove a little fixed noise under the empty prompt.
Its middle block sees what is where, its last block texture and edges. Of the layers and timesteps that
were tried, this pair ranks blur, noise, collapse and class swap best (benchmarks/extractors.py). The base
that draws also judges here, so numbers of two bases do not compare; Inception is there for that.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lib.errors import UserError

EXTRACTORS = ("base", "inception")
LAYERS = ("up_blocks.-1", "mid_block")  # of the U-Net
NOISE_LEVEL = 0.02  # timestep as a share of the schedule
GRID = 2  # a block's activations are averaged over GRID x GRID tiles
CLIP = 4.0  # deviations of real images; beyond it lies what no real image shows
SIZE = 64  # numbers an image; FID's covariances of no more images than these are singular: mind KID
SHRINK = 0.5  # of the median deviation, added to each one's square: the last components are noise
_SEED = 20  # of the fixed noise


class FeatureError(UserError):
    """An extractor that is not there, or pictures that it cannot read."""


def load_extractor(name: str, base, reference) -> nn.Module:
    """An extractor: a module that takes images [n, 3, H, W] in [0, 1] and gives features [n, num_features].

    name       "base", or "inception" (Inception v3, 2048 numbers; downloads its weights and needs
               torch-fidelity: pip install "medical-diffusion-on-a-budget[inception]")
    reference  real images [n, 3, H, W] that the features of "base" are scaled by: those of the training
               set, so that no picture that is compared has a say in the scale

    Both can be given to torchmetrics as `feature`. Raises FeatureError.
    """
    if name == "base":
        return BaseFeatures(base, reference)
    if name == "inception":
        return InceptionFeatures()
    raise FeatureError(f"no extractor {name!r}: one of {', '.join(EXTRACTORS)}")


@torch.no_grad()
def extract(extractor: nn.Module, images, batch_size: int = 50) -> np.ndarray:
    """Features float64 [n, d] of images [n, 3, H, W] in [0, 1] (an ImageSet, an array or a tensor)."""
    pixels = torch.as_tensor(getattr(images, "images", images), dtype=torch.float32)
    return torch.cat([extractor(part).cpu() for part in pixels.split(batch_size)]).double().numpy()


class BaseFeatures(nn.Module):
    """The base's view of an image: `num_features` numbers, each about of unit deviation over `reference`.

    Block averages are scaled by the reference's mean and deviation, clipped at CLIP of them and weighted
    so that each block counts alike; the reference's first principal components are kept, SIZE of them or
    one fewer than it has images, and whitened. So a small difference that real images do not show counts
    as much as a large one.
    """

    def __init__(self, base, reference, layers: tuple[str, ...] = LAYERS, level: float = NOISE_LEVEL):
        super().__init__()
        pixels = torch.as_tensor(getattr(reference, "images", reference), dtype=torch.float32)
        if len(pixels) < 3:
            raise FeatureError(f"{len(pixels)} reference images: at least 3, and better 100")
        self.num_features = min(SIZE, len(pixels) - 1)
        self._base, self._layers = base, layers
        self._time = int(level * len(base.alphas_cumprod))
        self._noise = torch.randn(base.latent_shape, generator=torch.Generator().manual_seed(_SEED))
        blocks = [torch.cat(parts) for parts in zip(*map(self._blocks, pixels.split(50)), strict=True)]
        self._scale = [(block.mean(0), block.std(0).clamp_min(1e-6)) for block in blocks]
        scaled = self._scaled(blocks)
        self._mean = scaled.mean(0)
        _, deviations, directions = torch.linalg.svd(scaled - self._mean, full_matrices=False)
        deviations = deviations[: self.num_features] / (len(pixels) - 1) ** 0.5
        floor = SHRINK * deviations.median().clamp_min(1e-6)
        self._whiten = directions[: self.num_features].T / torch.hypot(deviations, floor)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [n, num_features] on the CPU of images [n, 3, H, W] in [0, 1]."""
        return (self._scaled(self._blocks(images)) - self._mean) @ self._whiten

    def _scaled(self, blocks):
        return torch.cat(
            [
                ((block - mean) / deviation).clamp(-CLIP, CLIP) / block.shape[1] ** 0.5
                for block, (mean, deviation) in zip(blocks, self._scale, strict=True)
            ],
            1,
        )

    @torch.no_grad()
    def _blocks(self, images) -> list[torch.Tensor]:
        """Tile means of each layer's activations, float32 [n, channels * GRID * GRID]."""
        base, found = self._base, {}

        def keep(name):
            def hook(_module, _inputs, output):
                output = output[0] if isinstance(output, tuple) else output  # a down block's
                found[name] = F.adaptive_avg_pool2d(output.float(), GRID).flatten(1).cpu()

            return hook

        handles = [_module(base.unet, name).register_forward_hook(keep(name)) for name in self._layers]
        try:
            mean, _ = base.encode(images)
            alpha = base.alphas_cumprod[self._time]
            noisy = alpha.sqrt() * mean + (1 - alpha).sqrt() * self._noise.to(mean.device)
            states = base.embed([""]).expand(len(mean), -1, -1)
            base.unet(noisy.to(base.dtype), self._time, encoder_hidden_states=states)
        finally:
            for handle in handles:
                handle.remove()
        return [found[name] for name in self._layers]


def _module(root, name):
    """up_blocks.-1 of a U-Net is its last up block."""
    for part in name.split("."):
        root = root[int(part)] if part.lstrip("-").isdigit() else getattr(root, part)
    return root


class InceptionFeatures(nn.Module):
    """Inception v3 as FID was defined on it: 2048 numbers an image; through torchmetrics."""

    num_features = 2048

    def __init__(self):
        super().__init__()
        from torchmetrics.image.fid import NoTrainInceptionV3

        try:
            self._network = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
        except ModuleNotFoundError as error:
            raise FeatureError(
                'extractor "inception" needs torch-fidelity: pip install torch-fidelity, or name "base"'
            ) from error
        except OSError as error:  # no network, and no copy in torch's cache
            raise FeatureError(
                f'extractor "inception": its weights cannot be downloaded ({error}): name "base"'
            ) from error

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [n, 2048] of images [n, 3, H, W] in [0, 1]."""
        return self._network((images.clamp(0, 1) * 255).byte())
