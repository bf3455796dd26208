"""Labelled stand-ins for the paper's three modalities, each image with its ground truth.

Prostate MRI (T2W, ADC and DWI as R, G and B), frontal chest X-ray and lymph-node histology are
drawn from anatomy with random parameters; no pixel comes from a patient. Classes overlap as they
do in patients: how much is set by the constants on top of the module of each modality.
"""

from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from lib import phantom_chest, phantom_histology, phantom_prostate
from lib.errors import UserError
from lib.phantom_canvas import Streams

_DRAWERS = {
    "prostate": phantom_prostate,
    "chest": phantom_chest,
    "histology": phantom_histology,
}

#: modality -> its classes, the healthy one first
MODALITIES = {name: drawer.LABELS for name, drawer in _DRAWERS.items()}


class PhantomError(UserError):
    """A modality, class, parameter or size that does not exist."""


def draw(
    modality: str,
    label: str | Sequence[str],
    n: int,
    seed: int = 0,
    side: int = 64,
    start: int = 0,
    **overrides,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draws n images of one class: (float32 [n, 3, side, side] in [0, 1], truth).

    Image i depends on (modality, label, seed, start + i, side) alone, never on n; at another side
    it is the same scene at another resolution, with other noise (of histology a scene of the same
    kind: which nuclei find room is decided on the pixels).

    label      a class of `MODALITIES[modality]`; for the chest also several findings in one image:
               ("cardiomegaly", "effusion") or "cardiomegaly+effusion"
    overrides  fix generating parameters, one value for all images or one for each; everything else
               of an image stays as it was (but for the nuclei of histology, which are placed anew).
               `parameters(modality)` lists them with their ranges.

    truth, first dimension n; masks are bool [n, side, side]:
    prostate   lesion, gland, mimic_mask (masks); conspicuity of the tumour, 0 to 1, 0 without one;
               mimic: the same of the worst benign focus; radius [mm]; zone ("PZ", "TZ" or "")
    chest      heart, lungs (with what fills them), effusion, consolidation (masks); ctr: width of
               the heart / inner width of the thorax; thorax_width [image sides];
               effusion_right, effusion_left (the patient's sides): height above the lower of the two
               angles between ribs and diaphragm / height of the lung; masks of fluid and
               consolidation without what lies behind the heart, where neither shows;
               opacity of the consolidation, 0 to 1, 0 without one
    histology  nuclei, tumour_nuclei (masks); count of nuclei; area: mean of one nucleus [share of
               the image]; pleomorphism: standard deviation / mean of the areas; tumour_share: of
               the nuclei
    Raises PhantomError.
    """
    drawer = _drawer(modality)
    labels = _labels(modality, label)
    _check_whole("n", n, 1)
    _check_whole("seed", seed, 0)
    _check_whole("side", side, 8)
    _check_whole("start", start, 0)
    fixed = {name: _values(modality, name, value, n) for name, value in overrides.items()}
    images = np.empty((n, 3, side, side), np.float32)
    truths = []
    with threadpool_limits(1, "blas"):  # whose sums depend in their last bits on the number of threads
        for i in range(n):
            streams = Streams(seed, modality, "+".join(labels), start + i)
            chosen = drawer.sample(streams, labels)
            chosen |= {name: values[i] for name, values in fixed.items()}
            images[i], truth = drawer.render(chosen, streams, side)
            truths.append(truth)
    return images, {name: np.stack([truth[name] for truth in truths]) for name in truths[0]}


def parameters(modality: str) -> dict[str, tuple]:
    """What `draw` lets a caller fix: name -> (lowest, highest), or the words it can be."""
    return dict(_drawer(modality).OVERRIDES)


def _drawer(modality):
    if modality not in _DRAWERS:
        raise PhantomError(f"no modality {modality!r}: there are {', '.join(MODALITIES)}")
    return _DRAWERS[modality]


def _labels(modality, label) -> tuple[str, ...]:
    """The classes asked for, in the order of MODALITIES, whatever the order they came in."""
    asked = label.split("+") if isinstance(label, str) else list(label)
    known = MODALITIES[modality]
    for name in asked or [label]:
        if name not in known:
            raise PhantomError(f"{modality}: no class {name!r}: there are {', '.join(known)}")
    if len(asked) > 1 and (modality != "chest" or known[0] in asked):
        findings = ", ".join(MODALITIES["chest"][1:])
        raise PhantomError(f"{modality}: {label!r}: only findings of the chest combine: {findings}")
    return tuple(name for name in known if name in asked)


def _values(modality, name, value, n) -> list:
    """One value for each image, checked against what the modality accepts."""
    known = _DRAWERS[modality].OVERRIDES
    if name not in known:
        raise PhantomError(f"{modality}: no parameter {name!r}: there are {', '.join(known)}")
    values = [value] * n if np.ndim(value) == 0 else list(value)
    if len(values) != n:
        raise PhantomError(f"{modality}: {name} has {len(values)} values for {n} images")
    allowed = known[name]
    if isinstance(allowed[0], str):
        wrong, hint = [v for v in values if v not in allowed], f"one of {', '.join(allowed)}"
    else:
        low, high = allowed
        wrong = [v for v in values if not _is_number(v) or not low <= v <= high]
        hint = f"a number from {low} to {high}"
        values = [float(v) for v in values] if not wrong else values
    if wrong:
        raise PhantomError(f"{modality}: {name}={wrong[0]!r} must be {hint}")
    return values


def _is_number(value) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _check_whole(name, value, least) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least:
        raise PhantomError(f"{name}={value!r} must be a whole number from {least} up")
