"""The classifier itself: ResNet-18 (He et al. 2016) by transformers, its settings and its augmentation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from lib.config import resolve
from lib.errors import UserError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of its channels


class ClassifyError(UserError):
    """Images, settings or weights that no classifier can be trained with."""


@dataclass(frozen=True)
class ClassifierSettings:
    """How a classifier is trained.

    weights     a hub id such as "microsoft/resnet-18" or a local folder; None: from scratch
    width       channels of the first stage; 64 is ResNet-18 (from scratch only)
    side        pixels that images are resized to; None: as they are (the paper: 196)
    steps, batch_size, learning_rate, weight_decay, warmup   of AdamW; warmup is a share of the steps
    decay       "cosine" (to 0) or "constant"
    rotation    degrees; scale: relative; translation: share of the side; intensity: of contrast and
                brightness; noise: deviation. Each is drawn anew for every image, uniformly up to +- that.
    flip        mirror half of the images; False, since a mirrored chest is another patient
    validate_every, checkpoint_every   in updates
    """

    weights: str | None = None
    width: int = 64
    side: int | None = None
    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.05
    decay: str = "cosine"
    rotation: float = 15.0
    scale: float = 0.1
    translation: float = 0.1
    intensity: float = 0.2
    noise: float = 0.02
    flip: bool = False
    validate_every: int = 20
    checkpoint_every: int = 100
    seed: int = 0

    def __post_init__(self):
        for name in ("width", "steps", "batch_size", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ClassifyError(f"{name} = {getattr(self, name)}: at least 1")
        if not 0 < self.learning_rate < np.inf:
            raise ClassifyError(f"learning_rate = {self.learning_rate}: a positive number, such as 1e-4")
        if self.decay not in ("cosine", "constant"):
            raise ClassifyError(f"decay = {self.decay!r}: cosine or constant")

    @property
    def folder(self) -> Path | None:
        """Where the weights lie, if they are a local folder and no hub id."""
        found = resolve(self.weights) if self.weights else None
        return found if found and found.exists() else None

    def rate(self, step: int) -> float:
        """The learning rate of update `step` (from 0)."""
        rise = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        fall = 1.0 if self.decay == "constant" else (1 + np.cos(np.pi * step / self.steps)) / 2
        return float(self.learning_rate * rise * fall)


class Classifier(torch.nn.Module):
    """ResNet-18 (He et al. 2016) with its input scaling; gives one logit an image, higher for diseased."""

    def __init__(self, settings: ClassifierSettings, mean=IMAGENET[0], deviation=IMAGENET[1]):
        super().__init__()
        self.side = settings.side
        self.network = _network(settings)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("deviation", torch.as_tensor(deviation, dtype=torch.float32)[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [n] of images [n, 3, H, W] in [0, 1]."""
        logits = self.network(self._scaled(images)).logits
        return logits[:, 1] - logits[:, 0]

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the last layer reads, float32 [n, 8 * width], of images [n, 3, H, W] in [0, 1]."""
        return self.network.resnet(self._scaled(images)).pooler_output.flatten(1)

    def _scaled(self, images):
        if self.side and images.shape[-1] != self.side:
            images = F.interpolate(images, self.side, mode="bilinear", antialias=True)
        return (images - self.mean) / self.deviation

    @torch.no_grad()
    def scores(self, images, batch_size: int = 100) -> np.ndarray:
        """float64 [n] of images (an array or tensor [n, 3, H, W]), by the running statistics."""
        training = self.training
        self.eval()
        device, parts = self.mean.device, torch.as_tensor(images, dtype=torch.float32).split(batch_size)
        found = torch.cat([self(part.to(device)).cpu() for part in parts]).double().numpy()
        self.train(training)
        return found


def _network(settings):
    from transformers import ResNetConfig, ResNetForImageClassification

    if settings.weights is None:
        sizes = [settings.width * 2**i for i in range(4)]
        config = ResNetConfig(
            embedding_size=sizes[0],
            hidden_sizes=sizes,
            depths=[2, 2, 2, 2],
            layer_type="basic",
            num_labels=2,
        )
        return ResNetForImageClassification(config)
    try:
        return ResNetForImageClassification.from_pretrained(
            settings.folder or settings.weights, num_labels=2, ignore_mismatched_sizes=True
        )
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ClassifyError(
            f"weights = {settings.weights!r} cannot be loaded ({reason}): name a folder or hub id of a "
            "ResNet such as microsoft/resnet-18, or null to train from scratch"
        ) from error


def augment(images: torch.Tensor, settings: ClassifierSettings, rng: np.random.Generator) -> torch.Tensor:
    """Each image [n, 3, H, W] turned, scaled, shifted and toned at random; what comes in repeats the rim."""
    n = len(images)
    within = lambda reach: rng.uniform(-reach, reach, n)  # noqa: E731
    angle, zoom = np.deg2rad(within(settings.rotation)), 1 + within(settings.scale)
    mirror = np.where(rng.random(n) < 0.5 * settings.flip, -1.0, 1.0)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    shift = 2 * within(settings.translation), 2 * within(settings.translation)
    theta = np.stack([[mirror * cos, -sin, shift[0]], [mirror * sin, cos, shift[1]]]).transpose(2, 0, 1)
    grid = F.affine_grid(torch.from_numpy(theta).to(images), images.shape, align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gain, offset = 1 + within(settings.intensity), within(settings.intensity) / 2
    gain, offset = (torch.from_numpy(v).to(images)[:, None, None, None] for v in (gain, offset))
    middle = moved.mean((1, 2, 3), keepdim=True)
    toned = (moved - middle) * gain + middle + offset
    if settings.noise:
        toned = toned + settings.noise * torch.from_numpy(
            rng.standard_normal(images.shape, dtype=np.float32)
        ).to(images)
    return toned.clamp(0, 1)
