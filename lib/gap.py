"""The inversion gap: how much of what a base could learn about a modality its token vectors reach.

On images that no training has seen, under fixed noise and timesteps, the denoising loss of
(a) the empty prompt, (b) a caption, (c) K trained vectors and (d) the floor: the same base with its
whole U-Net fine-tuned on the same images. Share closed = (a - c) / (a - d).
"""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from lib.artefacts import LOSSES, remembered, trained_together
from lib.captions import best_caption
from lib.denoising import denoising_loss, image_losses, validation_loss
from lib.inversion import Job
from lib.sweep import sweep
from lib.tasks import token_of


def fine_tune(base, images, validation, steps=400, batch_size=16, rate=3e-4, every=40, seed=0):
    """The floor: trains every weight of the U-Net on `images`, keeping the best on `validation`.

    images, validation: float32 [n, 3, H, W] in [0, 1], disjoint. Returns a Base that shares everything
    with `base` but the U-Net. AdamW with a linear decay; the prompt is empty throughout. The weights are
    float32 while they are trained; where the base's are not, what autocast holds safe is computed in
    bfloat16, and the result is as the base is.
    """
    tuned = copy.copy(base)
    tuned.source = ""
    tuned.unet = copy.deepcopy(base.unet).float().train().requires_grad_(True)
    with torch.no_grad():
        mean, std = base.encode(torch.as_tensor(images))
        states = base.embed([""], {})
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(tuned.unet.parameters(), rate, weight_decay=0.01)
    half = partial(torch.autocast, base.device.type, torch.bfloat16, enabled=base.dtype != torch.float32)
    best, kept = validation_loss(base, validation, ""), copy.deepcopy(tuned.unet.state_dict())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 20) * (1 - step / steps)
        rows = torch.randint(len(mean), (batch_size,), generator=generator).to(mean.device)
        noise = torch.randn((2, batch_size, *mean.shape[1:]), generator=generator).to(mean)
        times = torch.randint(len(base.alphas_cumprod), (batch_size,), generator=generator).to(mean.device)
        latents = mean[rows] + std[rows] * noise[0]
        with half():
            loss = denoising_loss(tuned, latents, noise[1], times, states.expand(batch_size, -1, -1)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tuned.unet.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % every == 0 or step + 1 == steps:
            with half():
                now = validation_loss(tuned, validation, "")
            if now < best:
                best, kept = now, copy.deepcopy(tuned.unet.state_dict())
    tuned.unet.load_state_dict(kept)
    tuned.unet.eval().requires_grad_(False).type(base.dtype)  # diffusers warns of its own `to`
    return tuned


def share_closed(empty, reached, floor):
    """(a - c) / (a - d), elementwise; nan where the floor is not below the empty prompt's loss."""
    empty, reached, floor = (np.asarray(v, float) for v in (empty, reached, floor))
    return np.where(empty > floor, (empty - reached) / np.where(empty > floor, empty - floor, 1.0), np.nan)


def gap_table(base, sets, captions, settings, sizes, seeds, floor_steps, learned=None) -> pd.DataFrame:
    """One row a data set, condition and seed: the loss on the test images of lib.tasks.gap_sets.

    captions: class -> the caption to use, if given. sizes: the numbers of vectors, each trained under
    `settings` from every seed; none: no rows. learned: (data set, class) -> an Embedding that was trained
    under `settings` already, on the same images, and is not trained again. The floor is fine-tuned from the
    first seed.
    """
    rows, calls = [], []
    for name, label, train, stop, test in sets if sizes else ():
        shared = {"dataset": name, "class": label, "n_train": len(train), "n_test": len(test)}
        caption = best_caption(base, name, label, train, captions)
        none = {"vectors": 0, "seed": 0}
        rows.append(shared | {"condition": "empty"} | none)
        calls.append(partial(plain_losses, test=test, prompts=["", caption]))
        rows.append(shared | {"condition": "caption"} | none | {"caption": caption})
        for seed in seeds:
            rows += [shared | {"condition": f"{k} vectors", "vectors": k, "seed": seed} for k in sizes]
            chosen = replace(settings, token=token_of(name, label), seed=seed)
            there = (learned or {}).get((name, label)) if chosen.seed == settings.seed else None
            known = {} if there is None else {settings.vectors: there}
            parts = {"train": train, "test": test, "settings": chosen, "sizes": sizes, "known": known}
            calls.append(partial(vectors_losses, **parts))
        rows.append(shared | {"condition": "fine-tuned", "vectors": 0, "seed": seeds[0]})
        calls.append(partial(floor_loss, train=train, stop=stop, test=test, steps=floor_steps, seed=seeds[0]))
    losses = [loss for found in _longest_first(base, calls) for loss in found]
    return pd.DataFrame([row | {"loss": loss} for row, loss in zip(rows, losses, strict=True)])


def _longest_first(base, calls):
    """The results of `calls`, in their order: the short ones fill what the long ones leave of the cores."""
    lengths = [(floor_loss, vectors_losses, plain_losses).index(call.func) for call in calls]
    order = sorted(range(len(calls)), key=lengths.__getitem__)
    found = dict(zip(order, sweep(base, [calls[i] for i in order], "inversion gap"), strict=True))
    return [found[i] for i in range(len(calls))]


def plain_losses(base, test, prompts) -> list[float]:
    """The loss on `test` under each prompt."""
    return [validation_loss(base, test, prompt) for prompt in prompts]


def vectors_losses(base, train, test, settings, sizes, known) -> list[float]:
    """The loss on `test` of an embedding of each size: `known` (size -> Embedding), or trained on `train`.

    train, test: ImageSets. What is trained goes through the base in one batch.
    """
    name = settings.token.strip("<>")
    new = [k for k in sizes if k not in known]
    jobs = [Job(train, replace(settings, token=f"<{name}-{k}>", vectors=k)) for k in new]
    runs = trained_together(base, jobs, f"{name}, seed {settings.seed}") if jobs else []
    found = known | {k: run.embedding for k, run in zip(new, runs, strict=True)}
    return [validation_loss(base, test, found[k]) for k in sizes]


def floor_loss(base, train, stop, test, steps, seed) -> list[float]:
    """One number: the mean of `floor_losses` on `test`."""
    (losses,) = floor_losses(base, train, stop, [test], steps, seed)
    return [float(np.mean(losses))]


def floor_losses(base, train, stop, tests, steps, seed, draws: int = 8) -> list[list[float]]:
    """The loss of each image of `tests` (ImageSets) after fine-tuning on `train`, stopped on `stop`.

    Without one (None), on the last fifth of `train`, which its training then goes without.
    draws: as in lib.denoising.
    """
    if stop is None:
        cut = len(train) * 4 // 5
        train, stop = train.subset(slice(0, cut)), train.subset(slice(cut, None))
    key = {"base": base.digest, "learn": train.digest, "halt": stop.digest, "draws": draws}
    key |= {"tests": [test.digest for test in tests], "steps": steps, "seed": seed}

    def floor():
        tuned = fine_tune(base, train.images, stop.images, steps, seed=seed)
        return {"losses": [image_losses(tuned, test, "", draws=draws).tolist() for test in tests]}

    return remembered("floors", key, ("lib.gap", *LOSSES), floor)["losses"]


def summarise(gap: pd.DataFrame) -> pd.DataFrame:
    """Mean loss over seeds of each condition, and the share of the gap that each size of embedding closes."""
    cells = gap.groupby(["dataset", "class", "condition"], sort=False).loss
    table, spread = cells.mean().unstack(sort=False), cells.std().unstack(sort=False)
    for name in [c for c in table.columns if c.endswith("vectors")]:
        size = name.split()[0]
        table[f"share_{size}"] = share_closed(table["empty"], table[name], table["fine-tuned"])
        table[f"sd_{size}"] = spread[name]
    by = ["dataset", "class"]
    seeds = gap[gap.vectors > 0].groupby(by, sort=False)["seed"].nunique()
    return table.assign(n_test=gap.groupby(by, sort=False)["n_test"].first(), seeds=seeds).reset_index()
