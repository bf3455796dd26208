"""Textual inversion (Gal et al. 2022, arXiv 2208.01618): K token vectors, trained through a frozen base.

The step is lean: latents are encoded once and drawn anew from their posterior, each distinct prompt is
encoded once an update, no weight has a gradient, and the optimizer holds the K vectors alone.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from lib.config import digest
from lib.denoising import denoising_loss, latent_losses, min_snr_weights, pixels_of
from lib.embedding import Embedding
from lib.recipes import InversionError, InversionSettings
from lib.runs import atomic_write


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


def initial_vectors(base, settings: InversionSettings) -> torch.Tensor:
    """float32 [K, D]: a phrase spread over the K vectors, or draws near the vocabulary's mean."""
    table, generator = base.token_table.cpu(), torch.Generator().manual_seed(settings.seed)
    jitter = torch.randn(settings.vectors, table.shape[1], generator=generator)
    if not settings.init:
        return table.mean(0) + 0.1 * table.std(0) * jitter
    ids = base.tokenizer(settings.init, add_special_tokens=False).input_ids
    if not ids:
        raise InversionError(f"init = {settings.init!r}: no word to start from")
    spread = torch.arange(settings.vectors) * len(ids) // max(settings.vectors, len(ids))
    return table[torch.tensor(ids)[spread]] + 0.01 * table.std(0) * jitter


def train(
    base, images, settings: InversionSettings, validation=None, checkpoint: Path | None = None
) -> Iterator[Record]:
    """Trains K vectors on images (an ImageSet or [n, 3, H, W] in [0, 1]); yields a Record after the first
    update, every few, and after the last.

    validation  held-out images, whose loss the first, each `validate_every`-th and the last update report; it
                chooses nothing
    checkpoint  a file to go on from, and to write each `checkpoint_every` updates; a run that was
                killed ends bit for bit where an uninterrupted one does, on the same machine

    Raises InversionError if the loss is no longer a number, the last checkpoint being kept, and for a
    checkpoint of another base, other images or other settings.
    """
    pixels = pixels_of(images)
    mean, std = base.encode(pixels)
    state = _State.begin(base, settings, mean)
    if checkpoint is not None and Path(checkpoint).exists():
        state.restore(checkpoint)
        yield from state.records
    watched = None if validation is None else base.encode(pixels_of(validation))[0]
    mirrored = base.encode(pixels.flip(-1)) if settings.flip else None
    frozen = None if settings.resample else _frozen_sample(mean, std, settings)
    started, before, losses = time.perf_counter(), state.seconds, state.losses
    while state.step < settings.steps:
        losses.append(_update(base, state, settings, mean, std, mirrored, frozen))
        due = state.step in (1, settings.steps)
        if due or state.step % settings.record_every == 0:
            loss = state.check(settings)
            losses.clear()
            state.seconds = before + time.perf_counter() - started
            vectors = state.kept().clone()
            held_out = None
            if watched is not None and (due or state.step % settings.validate_every == 0):
                pause = time.perf_counter()
                held_out = float(latent_losses(base, watched, Embedding(vectors, settings.token)).mean())
                started += time.perf_counter() - pause
            rms = float(vectors.square().mean().sqrt())
            rate = settings.rate(state.step - 1)
            state.records.append(Record(state.step, loss, held_out, rate, rms, state.seconds, vectors))
            yield state.records[-1]
        if checkpoint is not None and (due or state.step % settings.checkpoint_every == 0):
            state.check(settings)
            state.save(checkpoint)


def _frozen_sample(mean, std, settings):
    noise = np.random.default_rng([settings.seed, 1]).standard_normal(mean.shape, dtype=np.float32)
    return mean + std * torch.from_numpy(noise).to(mean)


class _State:
    """All that an update changes."""

    def __init__(self, vectors, optimizer, identity):
        self.vectors, self.optimizer, self.identity = vectors, optimizer, identity
        self.average, self.step, self.seconds = None, 0, 0.0
        self.records, self.losses = [], []  # yielded so far; of the updates since the last of them

    @classmethod
    def begin(cls, base, settings, latents):
        vectors = initial_vectors(base, settings).to(base.device).requires_grad_(True)
        identity = digest([base.digest, asdict(settings), latents.cpu().numpy()])
        optimizer = torch.optim.Adam([vectors], settings.learning_rate, betas=settings.betas)
        return cls(vectors, optimizer, identity)

    def kept(self) -> torch.Tensor:
        return (self.vectors if self.average is None else self.average).detach().cpu()

    def check(self, settings) -> float:
        """The mean loss since the last record, nan just after one; raises if a number went wrong."""
        loss = float(torch.stack(self.losses).mean()) if self.losses else float("nan")
        if (self.losses and not np.isfinite(loss)) or not self.vectors.isfinite().all():
            raise InversionError(
                f"{settings.token}: the loss is {loss} at step {self.step}: lower learning_rate = "
                f"{settings.learning_rate}, or load the base in float32; the last checkpoint is kept"
            )
        return loss

    def save(self, path):
        content = {
            "identity": self.identity,
            "vectors": self.vectors.detach(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
            "records": [vars(r) | {"vectors": None} for r in self.records],
            "last": self.records[-1].vectors if self.records else None,
            "losses": self.losses,
        }
        atomic_write(path, lambda part: torch.save(content, part))

    def restore(self, path):
        content = torch.load(path, map_location=self.vectors.device, weights_only=True)
        if content["identity"] != self.identity:
            raise InversionError(
                f"{path}: the checkpoint of another base, other images or other settings: name another file"
            )
        self.vectors.data.copy_(content["vectors"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.average, self.step, self.seconds = (
            content["average"],
            content["step"],
            content["seconds"],
        )
        self.records = [Record(**r) for r in content["records"]]
        if self.records:
            self.records[-1] = replace(self.records[-1], vectors=content["last"].cpu())
        self.losses = content["losses"]


def _update(base, state, settings, mean, std, mirrored, frozen) -> torch.Tensor:
    """One update; every draw depends on the seed and the step alone, whatever was drawn before."""
    rng = np.random.default_rng([settings.seed, 2, state.step])
    rows = torch.from_numpy(rng.integers(len(mean), size=settings.batch_size)).to(base.device)
    times = torch.from_numpy(rng.integers(len(base.alphas_cumprod), size=settings.batch_size)).to(base.device)
    noise = torch.from_numpy(
        rng.standard_normal((2, settings.batch_size, *mean.shape[1:]), dtype=np.float32)
    ).to(base.device)
    drawn = rng.integers(len(settings.templates), size=settings.batch_size)
    if settings.template_once:
        fixed = np.random.default_rng([settings.seed, 3]).integers(len(settings.templates), size=len(mean))
        drawn = fixed[rows.cpu().numpy()]
    chosen, which = np.unique(drawn, return_inverse=True)
    centre, spread = mean[rows], std[rows]
    if mirrored is not None:
        turned = torch.from_numpy(rng.random(settings.batch_size) < 0.5).to(base.device)[:, None, None, None]
        centre, spread = (
            torch.where(turned, mirrored[0][rows], centre),
            torch.where(turned, mirrored[1][rows], spread),
        )
    latents = frozen[rows] if frozen is not None else centre + spread * noise[0]

    prompts = [settings.templates[i].replace("{}", settings.token) for i in chosen]
    states = base.embed(prompts, {settings.token: state.vectors})
    # index_select and not states[which]: that gradient is summed in an order that changes with the threads
    states = states.index_select(0, torch.from_numpy(which).to(base.device))
    loss = denoising_loss(base, latents, noise[1], times, states)
    if settings.snr_gamma is not None:
        loss = loss * min_snr_weights(base, times, settings.snr_gamma)
    loss = loss.mean()
    state.optimizer.param_groups[0]["lr"] = settings.rate(state.step)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.optimizer.step()
    state.step += 1
    if settings.ema is not None:
        decay = min(settings.ema, state.step / (state.step + 10))
        now = state.vectors.detach()
        state.average = now.clone() if state.average is None else state.average.lerp_(now, 1 - decay)
    return loss.detach()


def provenance(base, images, settings: InversionSettings, record: Record) -> dict[str, str]:
    """What an embedding's file header says of it: digests and settings, never a patient's name."""
    held_out = "" if record.validation_loss is None else f"{record.validation_loss:.6g}"
    return {
        "base": base.name,
        "base_digest": base.digest,
        "images_digest": str(getattr(images, "digest", "")),
        "images": str(len(pixels_of(images))),
        "settings": json.dumps(asdict(settings)),
        "steps": str(record.step),
        "loss": f"{record.loss:.6g}",
        "held_out_loss": held_out,
        "seconds": f"{record.seconds:.1f}",
        "versions": json.dumps({name: version(name) for name in ("torch", "diffusers", "transformers")}),
        "licence": "that of the images it was trained on",
        "intended_use": "research; not for clinical use",
    }


def invert(
    base, images, token: str, vectors: int = 64, steps: int = 800, seed: int = 0, **settings
) -> Embedding:
    """Trains an embedding of K = `vectors` token vectors on images and returns it with its provenance.

    images: an ImageSet, or float32 [n, 3, H, W] in [0, 1]; further settings as in InversionSettings.
    """
    chosen = InversionSettings(token=token, vectors=vectors, steps=steps, seed=seed, **settings)
    *_, record = train(base, images, chosen)
    return Embedding(record.vectors, token, provenance(base, images, chosen, record))
