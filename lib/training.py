"""One concept while its vectors are trained: what it draws for an update, and all that an update changes.

Every draw depends on the concept's seed and the step alone, whatever was drawn before and for whom else.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from lib.config import digest
from lib.denoising import latent_losses, min_snr_weights, pixels_of
from lib.embedding import Embedding
from lib.recipes import InversionError, InversionSettings
from lib.starts import best_start, initial_vectors


@dataclass(frozen=True)
class Record:
    """The state after `step` updates. `loss` is the mean since the last record; seconds are of training."""

    step: int
    loss: float
    validation_loss: float | None
    learning_rate: float
    vector_rms: float
    seconds: float
    # float32 [K, D] on the CPU, the running mean where there is one; None in what a checkpoint replays
    vectors: torch.Tensor | None


@dataclass(frozen=True)
class Draw:
    """What one update shows to the U-Net: b images, and the distinct prompts that they are shown under."""

    latents: torch.Tensor  # [b, C, h, w]
    noise: torch.Tensor  # [b, C, h, w]
    times: torch.Tensor  # [b]
    prompts: list[str]
    which: torch.Tensor  # [b], of prompts


class Concept:
    """Vectors of one token in training, with their images encoded once.

    images, validation: an ImageSet or [n, 3, H, W] in [0, 1]; validation may be None. A resumed one, whose
    state is restored next, chooses no start.
    """

    def __init__(self, base, images, settings: InversionSettings, validation=None, resumed=False):
        self.base, self.settings = base, settings
        pixels = pixels_of(images)
        self.mean, self.std = base.encode(pixels)
        self.mirrored = base.encode(pixels.flip(-1)) if settings.flip else None
        self.frozen = None if settings.resample else self._frozen_sample()
        self.watched = None if validation is None else base.encode(pixels_of(validation))[0]
        given = resumed or settings.init is not None
        start = initial_vectors(base, settings) if given else best_start(base, settings, pixels, self.mean)
        self.vectors = start.to(base.device).requires_grad_(True)
        self.optimizer, self.moves = _optimizer(self.vectors, settings)
        self.average, self.step = None, 0
        self.losses = []  # of the updates since the last record
        self.norm = float(base.token_table.norm(dim=1).mean()) if settings.norm_pull else None
        self.identity = digest([base.digest, asdict(settings), self.mean.cpu().numpy()])

    def _frozen_sample(self):
        rng = np.random.default_rng([self.settings.seed, 1])
        noise = rng.standard_normal(self.mean.shape, dtype=np.float32)
        return self.mean + self.std * torch.from_numpy(noise).to(self.mean)

    def _times(self, rng):
        """int64 [b]: independent timesteps, or one in each of b equal parts of the schedule, shuffled."""
        size, span = self.settings.batch_size, len(self.base.alphas_cumprod)
        if not self.settings.stratify:
            return rng.integers(span, size=size)
        return ((rng.permutation(size) + rng.random(size)) / size * span).astype(np.int64)

    def draw(self) -> Draw:
        """What the next update shows."""
        base, settings, mean, std = self.base, self.settings, self.mean, self.std
        rng, size = np.random.default_rng([settings.seed, 2, self.step]), settings.batch_size
        taken, times = rng.integers(len(mean), size=size), self._times(rng)
        noise = rng.standard_normal((2, size, *mean.shape[1:]), dtype=np.float32)
        rows, times, noise = (base.place(torch.from_numpy(part)) for part in (taken, times, noise))
        drawn = rng.integers(len(settings.templates), size=size)
        if settings.template_once:
            fixed = np.random.default_rng([settings.seed, 3]).integers(
                len(settings.templates), size=len(mean)
            )
            drawn = fixed[taken]
        chosen, which = np.unique(drawn, return_inverse=True)
        centre, spread = mean[rows], std[rows]
        if self.mirrored is not None:
            turned = base.place(torch.from_numpy(rng.random(size) < 0.5))[:, None, None, None]
            centre = torch.where(turned, self.mirrored[0][rows], centre)
            spread = torch.where(turned, self.mirrored[1][rows], spread)
        latents = self.frozen[rows] if self.frozen is not None else centre + spread * noise[0]
        prompts = [settings.templates[i].replace("{}", settings.token) for i in chosen]
        return Draw(latents, noise[1], times, prompts, base.place(torch.from_numpy(which)))

    def loss(self, losses: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The scalar to go down, of the losses [b] at the timesteps of `draw`."""
        if self.settings.snr_gamma is not None:
            losses = losses * min_snr_weights(self.base, times, self.settings.snr_gamma)
        self.losses.append(losses.detach().mean())
        return losses.mean()

    def update(self) -> None:
        """Moves the vectors along the gradient that they have, and clears it."""
        self.optimizer.param_groups[0]["lr"] = self.settings.rate(self.step) / self.moves
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        now = self.vectors.detach()
        if self.norm is not None:
            now *= 1 + self.settings.norm_pull * (self.norm / now.norm(dim=1, keepdim=True) - 1)
        if self.settings.ema is not None:
            decay = min(self.settings.ema, self.step / (self.step + 10))
            self.average = now.clone() if self.average is None else self.average.lerp_(now, 1 - decay)

    def record(self, seconds: float, validate: bool) -> Record:
        """The state now; raises as `check` does."""
        loss, settings = self.check(), self.settings
        self.losses.clear()
        vectors = (self.vectors if self.average is None else self.average).detach().cpu().clone()
        held_out = None
        if validate and self.watched is not None:
            found = latent_losses(self.base, self.watched, Embedding(vectors, settings.token))
            held_out = float(found.mean())
        rms = float(vectors.square().mean().sqrt())
        return Record(self.step, loss, held_out, settings.rate(self.step - 1), rms, seconds, vectors)

    def check(self) -> float:
        """The mean loss since the last record, nan just after one; raises if a number went wrong."""
        loss = float(torch.stack(self.losses).mean()) if self.losses else float("nan")
        if (self.losses and not np.isfinite(loss)) or not self.vectors.isfinite().all():
            raise InversionError(
                f"{self.settings.token}: the loss is {loss} at step {self.step}: lower learning_rate = "
                f"{self.settings.learning_rate}, or load the base in float32; what was kept before stays"
            )
        return loss

    def state(self, records: list[Record]) -> dict:
        """What a checkpoint holds of it."""
        return {
            "vectors": self.vectors.detach(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "losses": self.losses,
            "records": [vars(r) | {"vectors": None} for r in records],
            "last": records[-1].vectors if records else None,
        }

    def restore(self, state: dict) -> list[Record]:
        """Takes up such a state; returns its records."""
        self.vectors.data.copy_(state["vectors"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.losses = state["average"], state["step"], state["losses"]
        records = [Record(**r) for r in state["records"]]
        if records:
            records[-1] = replace(records[-1], vectors=state["last"].cpu())
        return records


def _optimizer(vectors, settings):
    """The optimizer, and how far one update at rate 1 moves a coordinate, root mean square."""
    if settings.optimizer == "adam":
        return torch.optim.Adam([vectors], betas=settings.betas), 1.0
    momentum = settings.betas[0]
    muon = torch.optim.Muon([vectors], weight_decay=0.0, momentum=momentum, adjust_lr_fn="match_rms_adamw")
    return muon, 0.2  # which "match_rms_adamw" makes of a rate of 1
