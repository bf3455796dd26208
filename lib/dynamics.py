"""What decides how fast an embedding is learned: recipes at several lengths, against the paper's trainer.

A recipe whose rate falls knows its own length, so each length is a training of its own. What is compared is
the loss on validation images under fixed noise, and KID between drawn pictures and those images; the test
split stands in for them where a data set has no split val.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from lib.artefacts import sampled, trained
from lib.fidelity import LEAST, Drawing, Judge, Task
from lib.imagesets import DatasetError
from lib.inversion import InversionSettings
from lib.recipes import RECIPES, InversionError
from lib.sweep import sweep

PRESET = "a1111"
#: Changes to this project's recipe beside the paper's trainer.
VARIANTS: dict[str, dict] = {
    PRESET: RECIPES[PRESET],
    "ours": {},
    "Adam, cosine": RECIPES["adam"],
    "constant rate": {"decay": "constant"},
    "no running mean": {"ema": None},
    "constant rate, stopped early": {"decay": "constant", "patience": 3},
    "norm pull": {"norm_pull": 0.02},
    "min-SNR": {"snr_gamma": 5.0},
    "frozen sample": {"resample": False},
    "drawn start": {"init": ""},
    "timesteps apart": {"stratify": False},
}
SMALLER = "a quarter of the batch, a third of the rate"
#: Their learning rate in that of this project's recipe.
RATES = {"Adam, cosine": 3 / 4, SMALLER: 1 / 3}
LOOKS = 5  # at the held-out loss in a training
LOOKS_TO_STOP = 20  # in one that a look may end


def curves(
    base,
    task: Task,
    settings: InversionSettings,
    drawing: Drawing,
    lengths,
    preset_length: int,
    seeds,
    recipes=None,
) -> pd.DataFrame:
    """One row a record of every training: dataset, class, recipe, length, seed, step, validation_loss,
    vector_rms, rate, and in the last of each (`last`) KID between `drawing.n` pictures and task.real, with
    its interval.

    Trained on task.train, watched on task.real: validation images. Each of VARIANTS, and SMALLER, is
    trained for each of `lengths` updates from each seed; the preset, for `preset_length` once and in full.
    recipes: some of their names, the preset's among them; None: all. Raises DatasetError where the images to
    compare with are fewer than KID and FID take.
    """
    if len(task.real) < LEAST:
        raise DatasetError(
            f"{task.name}: {len(task.real)} held-out images of class {task.label!r}: drawn pictures are "
            f"compared with {LEAST} at least: add images, or give a larger n_validation"
        )
    known = VARIANTS | {SMALLER: {"batch_size": max(1, settings.batch_size // 4)}}
    if unknown := {*(recipes or ())} - {*known}:
        raise InversionError(f"recipes {', '.join(sorted(unknown))}: unknown; there are {', '.join(known)}")
    if recipes is not None and PRESET not in recipes:
        raise InversionError(f"recipes {', '.join(recipes)}: {PRESET}, which sets the mark, is missing")
    shared = {"dataset": task.name, "class": task.label}
    plans, calls = [], []
    for name, changes in known.items():
        if recipes is not None and name not in recipes:
            continue
        for length in [preset_length] if name == PRESET else lengths:
            for seed in seeds:
                looks = LOOKS_TO_STOP if changes.get("patience") else LOOKS
                rate = settings.learning_rate * RATES.get(name, 1)
                chosen = replace(settings, steps=length, seed=seed, learning_rate=rate)
                chosen = replace(chosen, validate_every=max(1, length // looks), **changes)
                plan = {"recipe": name, "length": length, "seed": seed, "batch": chosen.batch_size}
                plans.append(shared | plan)
                text = f"{name}, {length} updates"
                calls.append(partial(_trained, task=task, settings=chosen, drawing=drawing, text=text))
    parts = zip(plans, sweep(base, calls, "recipes"), strict=True)
    return pd.concat([records.assign(**plan) for plan, records in parts], ignore_index=True)


def _trained(base, task, settings, drawing, text):
    run = trained(base, task.train, settings, task.real, text)
    images = sampled(base, run.embedding, drawing.n, **drawing.settings(settings.seed))
    found = Judge(base, task, drawing).judge(images)
    records = run.records.assign(last=run.records.step == run.records.step.max())
    for name in ("kid", "kid_low", "kid_high"):
        records.loc[records["last"], name] = found[name]
    return records


def reached(curves: pd.DataFrame) -> pd.DataFrame:
    """One row a data set and recipe: the fewest updates whose final loss is the preset's at its end, or less.

    Losses, updates and KID are means over seeds. updates: nan where no length gets there; share: of the
    preset's updates; best: the recipe's lowest final loss, at best_updates, with best_kid.
    """
    final = curves[curves["last"]].groupby(["dataset", "class", "recipe", "length", "batch"], sort=False)
    final = final.agg(
        updates=("step", "mean"),
        loss=("validation_loss", "mean"),
        kid=("kid", "mean"),
        seeds=("seed", "nunique"),
    )
    groups = final.reset_index().groupby(["dataset", "class"], sort=False)
    return pd.DataFrame([row for key, part in groups for row in _reached(*key, part)])


def _reached(name, label, final):
    preset = final[final.recipe == PRESET].iloc[0]
    for recipe, part in final.groupby("recipe", sort=False):
        part = part.sort_values("updates")
        there = part[part.loss <= preset.loss]
        best = part.loc[part.loss.idxmin()]
        updates = float(there.updates.iloc[0]) if len(there) else np.nan
        yield {
            "dataset": name,
            "class": label,
            "recipe": recipe,
            "updates": updates,
            "share": updates / preset.updates,
            "images_shown": updates * int(part.batch.iloc[0]),
            "best": best.loss,
            "best_updates": round(best.updates),
            "best_kid": best.kid,
            "preset": preset.loss,
            "preset_updates": round(preset.updates),
            "preset_kid": preset.kid,
            "seeds": int(part.seeds.iloc[0]),
        }
