"""Textual inversion (Gal et al. 2022, arXiv 2208.01618): K token vectors, trained through a frozen base.

The step is lean: latents are encoded once and drawn anew from their posterior, each distinct prompt is
encoded once an update, no weight has a gradient, and the optimizer holds the K vectors alone. Several
concepts are trained through one base at once: their images go through it as one batch.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lib.config import digest
from lib.denoising import pixels_of
from lib.embedding import Embedding
from lib.errors import within_memory
from lib.graphs import loss_of
from lib.recipes import CheckpointError, InversionError, InversionSettings
from lib.runs import atomic_write
from lib.training import Concept, Record


@dataclass(frozen=True)
class Job:
    """One concept to be trained: an ImageSet or [n, 3, H, W] in [0, 1], how, and held-out images or None."""

    images: Any
    settings: InversionSettings
    validation: Any = None


def train(
    base, images, settings: InversionSettings, validation=None, checkpoint: Path | None = None
) -> Iterator[Record]:
    """Trains K vectors on images (an ImageSet or [n, 3, H, W] in [0, 1]); yields a Record after the first
    update, every few, and after the last.

    validation  held-out images, whose loss the first, each `validate_every`-th and the last update report; it
                chooses nothing but, under `patience`, when to stop
    checkpoint  a file to go on from, and to write each `checkpoint_every` updates; a run that was
                killed ends bit for bit where an uninterrupted one does, on the CPU of the same machine

    Raises InversionError if the loss is no longer a number, the last checkpoint being kept, and for a
    checkpoint of another base, other images or other settings.
    """
    for (record,) in train_many(base, [Job(images, settings, validation)], checkpoint):
        yield record


def train_many(base, jobs: Sequence[Job], checkpoint: Path | None = None) -> Iterator[list[Record]]:
    """`train` of several concepts through one base; yields a Record of each, in order, at the same steps.

    What one concept learns does not depend on the others' images, bit for bit; on how many they are it
    depends in the last bits only. Raises InversionError as `train` does, for one of them for all, and
    where two share a token or they differ in steps or in when they report.
    """
    _check(jobs)
    shared = jobs[0].settings
    size = f"batch_size = {sum(job.settings.batch_size for job in jobs)} at {base.image_side} pixels"
    resumed = checkpoint is not None and Path(checkpoint).exists()
    with within_memory(f"encoding at {base.image_side} pixels"):
        concepts = [Concept(base, job.images, job.settings, job.validation, resumed) for job in jobs]
    identity = digest([concept.identity for concept in concepts])
    records, before = [[] for _ in jobs], 0.0
    if resumed:
        before, records = _restored(checkpoint, identity, concepts, base.device)
        yield from map(list, zip(*records, strict=True))
    started, losses_of = time.perf_counter(), loss_of(base)
    while (step := concepts[0].step) < shared.steps and not _stalled(records, jobs):
        with within_memory(f"an update, {size}"):
            _update(base, concepts, losses_of)
        step += 1
        due = step in (1, shared.steps)
        if due or step % shared.record_every == 0 or step % shared.validate_every == 0:
            if base.device.type != "cpu":
                torch.accelerator.synchronize(base.device)  # what it has still to do is of the training
            pause = time.perf_counter()
            seconds = before + pause - started
            validate = due or step % shared.validate_every == 0
            with within_memory(f"held-out losses at {base.image_side} pixels"):
                found = [concept.record(seconds, validate) for concept in concepts]
            for done, record in zip(records, found, strict=True):
                done[-1:] = [*(replace(last, vectors=None) for last in done[-1:]), record]
            started += time.perf_counter() - pause
            yield [done[-1] for done in records]
        if checkpoint is not None and (due or step % shared.checkpoint_every == 0):
            for concept in concepts:
                concept.check()
            states = [c.state(done) for c, done in zip(concepts, records, strict=True)]
            content = {"identity": identity, "concepts": states}
            content["seconds"] = before + time.perf_counter() - started
            atomic_write(checkpoint, lambda part, content=content: torch.save(content, part))


def _check(jobs):
    tokens = [job.settings.token for job in jobs]
    if not tokens or len({token.lower() for token in tokens}) < len(tokens):
        raise InversionError(
            f"tokens {', '.join(tokens) or 'none'}: give each concept one of its own, apart in more than case"
        )
    if any(job.settings.patience and job.validation is None for job in jobs):
        raise InversionError("patience: there are no held-out images whose loss it could wait for")
    for name in ("steps", "record_every", "validate_every", "checkpoint_every"):
        if len(values := {getattr(job.settings, name) for job in jobs}) > 1:
            raise InversionError(f"{name} = {sorted(values)}: concepts that are trained together share it")


def _stalled(records, jobs):
    """Whether every concept's held-out loss has been no new best for as long as its patience."""

    def waited(done, patience):
        losses = [r.validation_loss for r in done if r.validation_loss is not None]
        return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])

    return all(waited(done, job.settings.patience) for done, job in zip(records, jobs, strict=True))


def _restored(checkpoint, identity, concepts, device):
    content = torch.load(checkpoint, map_location=device, weights_only=True)
    if content["identity"] != identity:
        raise CheckpointError(
            f"{checkpoint}: the checkpoint of another base, other images or other settings: name another file"
        )
    pairs = zip(concepts, content["concepts"], strict=True)
    return content["seconds"], [concept.restore(state) for concept, state in pairs]


def _update(base, concepts, losses_of):
    """One update of each concept; the draws of all go through the text encoder and the U-Net together."""
    draws = [concept.draw() for concept in concepts]
    vectors = {concept.settings.token: concept.vectors for concept in concepts}
    states = base.embed([prompt for draw in draws for prompt in draw.prompts], vectors)
    which, first = [], 0
    for draw in draws:
        which.append(draw.which + first)
        first += len(draw.prompts)
    # index_select and not states[which]: that gradient is summed in an order that changes with the threads
    states = states.index_select(0, torch.cat(which))
    latents, noise, times = (
        torch.cat([getattr(draw, name) for draw in draws]) for name in ("latents", "noise", "times")
    )
    losses = losses_of(latents, noise, times, states).split([len(d.times) for d in draws])
    parts = zip(concepts, losses, draws, strict=True)
    torch.stack([concept.loss(part, draw.times) for concept, part, draw in parts]).sum().backward()
    for concept in concepts:
        concept.update()


def provenance(base, images, settings: InversionSettings, record: Record) -> dict[str, str]:
    """What an embedding's file header says of it: digests and settings, never a patient's name."""
    held_out = "" if record.validation_loss is None else f"{record.validation_loss:.6g}"
    return {
        "base": base.name,
        "base_digest": base.digest,
        "base_dtype": str(base.dtype).removeprefix("torch."),
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
    base, images, token: str, vectors: int = 64, steps: int = 200, seed: int = 0, **settings
) -> Embedding:
    """Trains an embedding of K = `vectors` token vectors on images and returns it with its provenance.

    images: an ImageSet, or float32 [n, 3, H, W] in [0, 1]; further settings as in InversionSettings.
    """
    chosen = InversionSettings(token=token, vectors=vectors, steps=steps, seed=seed, **settings)
    *_, record = train(base, images, chosen)
    return Embedding(record.vectors, token, provenance(base, images, chosen, record))


def invert_many(
    base, images: Mapping[str, Any], vectors: int = 64, steps: int = 200, seed: int = 0, **settings
) -> dict[str, Embedding]:
    """`invert` of several concepts in one batch: token -> images gives token -> Embedding.

    Faster than one after the other, and each is independent of the others' images bit for bit.
    """
    shared = {"vectors": vectors, "steps": steps, "seed": seed, **settings}
    jobs = [Job(part, InversionSettings(token=token, **shared)) for token, part in images.items()]
    *_, records = train_many(base, jobs)
    return {
        job.settings.token: Embedding(
            record.vectors, job.settings.token, provenance(base, job.images, job.settings, record)
        )
        for job, record in zip(jobs, records, strict=True)
    }
