"""Reads from a picture what the phantoms' truth says of it: heart size, effusion, lesion, nuclei.

Where the paper shows pictures, the notebooks measure these. A reader is a kernel ridge regression from
plain geometry (lib.descriptors) to the quantities, fitted on phantoms of seeds that no experiment draws; it
is given pixels and nothing else. How far to trust it, `validation` says on phantoms unseen by either.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy.linalg import solve
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from torch.nn.functional import interpolate

from lib import descriptors
from lib.auc import auc_interval
from lib.errors import UserError
from lib.measures import wilson
from lib.phantoms import MODALITIES, draw
from lib.runs import Run, cached, code_digest

#: modality -> the quantities that are read, named as by lib.phantoms; effusion: the larger of both sides
QUANTITIES = {
    "prostate": ("conspicuity",),
    "chest": ("ctr", "effusion_right", "effusion_left", "opacity", "effusion"),
    "histology": ("count", "area", "pleomorphism", "tumour_share"),
}
#: modality -> finding -> the quantity that tells of it
FINDINGS = {
    "prostate": {"tumour": "conspicuity"},
    "chest": {"cardiomegaly": "ctr", "effusion": "effusion", "pneumonia": "opacity"},
    "histology": {"tumour": "tumour_share"},
}
SPECIFICITY = 0.95  # at the threshold above which a finding counts as present
SIDE = 64  # pixels at most that a picture is read at: a larger one is averaged down
PHANTOMS = {"prostate": 1600, "chest": 3200, "histology": 1200}  # that a reader is fitted on
_LIMITS = 800  # phantoms that set the thresholds, if as many were fitted on; of fewer, noise
_SEEDS = {"fit": 990_001, "thresholds": 990_002, "validation": 990_003}  # data sets count theirs from 0
# Chosen on phantoms of seed 7002, which neither fit, thresholds nor validation draw.
_COMPONENTS, _CLIP, _WIDTH = 300, 5.0, 0.5
_RIDGE = {"prostate": 0.3, "chest": 0.05, "histology": 0.03}


class EstimatorError(UserError):
    """A modality that nothing can be read from."""


@dataclass(frozen=True)
class Reader:
    """Reads pictures of one modality; made by `reader`. Arrays: p descriptors, c components, m phantoms.

    Pictures larger than SIDE are read at that side, at which their reader is fitted.
    """

    modality: str
    mean: np.ndarray  # [p]
    scale: np.ndarray  # [p]
    project: np.ndarray  # [p, c]
    known: np.ndarray  # [m, c]
    weights: np.ndarray  # [m, quantities]
    offset: np.ndarray  # [quantities]
    thresholds: np.ndarray  # [findings]

    def read(self, images) -> dict[str, np.ndarray]:
        """quantity -> float64 [n] of images [n, 3, H, W] in [0, 1], in the units of lib.phantoms."""
        values = _kernel(self._seen(images), self.known) @ self.weights + self.offset
        return _with_effusion(self.modality, dict(zip(QUANTITIES[self.modality], values.T, strict=False)))

    def present(self, images) -> dict[str, np.ndarray]:
        """finding -> bool [n]: whether its quantity is above what 95 % of phantoms without it show."""
        values, findings = self.read(images), FINDINGS[self.modality]
        limits = zip(findings.items(), self.thresholds, strict=True)
        return {finding: values[quantity] > limit for (finding, quantity), limit in limits}

    def _seen(self, images):
        raw = _described(self.modality, getattr(images, "images", images))
        return _standard(raw, self.mean, self.scale) @ self.project


def reader(modality: str, n: int | None = None, side: int = 64) -> Reader:
    """The reader of a modality for pictures of this side, fitted unless it was before; half a minute.

    n: phantoms to fit on; None: as many as PHANTOMS says. Raises EstimatorError.
    """
    run = _run_of(modality, n, side)

    def make(folder):
        parts = asdict(_fit(modality, run.key["n"], run.key["side"]))
        np.savez(folder / "reader.npz", **{k: v for k, v in parts.items() if k != "modality"})

    with np.load(cached(run.name, run.key, make) / "reader.npz") as arrays:
        return Reader(modality, **arrays)


def is_fitted(modality: str, n: int | None = None, side: int = 64) -> bool:
    """Whether `reader` only reads. Raises EstimatorError."""
    return _run_of(modality, n, side).done


def _run_of(modality, n, side):
    if modality not in QUANTITIES:
        raise EstimatorError(f"no estimators for {modality!r}: there are {', '.join(QUANTITIES)}")
    drawing = ("phantoms", "phantom_canvas", f"phantom_{modality}", "chest_anatomy", "pelvis_anatomy")
    modules = [f"lib.{m}" for m in ("estimators", "descriptors", *drawing)]
    key = {"modality": modality, "n": n or PHANTOMS[modality], "side": min(side, SIDE)}
    key["code"] = code_digest(*modules)
    return Run(None, "readers", key)


def groups(modality: str) -> tuple[str, ...]:
    """What phantoms are drawn of: each class, and of the chest each combination of findings."""
    healthy, *findings = MODALITIES[modality]
    if modality != "chest":
        return (healthy, *findings)
    choices = [[f for i, f in enumerate(findings) if bits >> i & 1] for bits in range(2 ** len(findings))]
    return tuple("+".join(choice) or healthy for choice in choices)


def validation(modality: str, n: int = 800, side: int = 64, fitted: Reader | None = None) -> pd.DataFrame:
    """How well it reads n phantoms that neither fit nor thresholds have seen; one row a quantity or finding.

    Of a quantity: correlation with the truth over all phantoms and its 95 % interval (Fisher's z), mean
    absolute error and the truth's deviation. Of a finding: AUC with its bootstrap interval; sensitivity and
    specificity at the threshold, with Wilson intervals in sensitivity_low, ..., specificity_high.
    """
    fitted = fitted or reader(modality, side=side)
    images, truth, names = _phantoms(modality, n, side, _SEEDS["validation"])
    values, present, rows = fitted.read(images), fitted.present(images), []
    for quantity in QUANTITIES[modality]:
        r = np.corrcoef(values[quantity], truth[quantity])[0, 1]
        low, high = np.tanh(np.arctanh(r) + np.array([-1.96, 1.96]) / np.sqrt(len(images) - 3))
        error = np.abs(values[quantity] - truth[quantity]).mean()
        row = {"modality": modality, "what": quantity, "n": len(images), "measure": "r", "value": r}
        rows.append(row | {"low": low, "high": high, "error": error, "truth_sd": truth[quantity].std()})
    for finding, quantity in FINDINGS[modality].items():
        holds = _holds(names, finding)
        found = auc_interval(holds, values[quantity])
        row = {"modality": modality, "what": finding, "n": len(images), "measure": "AUC"} | asdict(found)
        for name, hits in (
            ("sensitivity", present[finding][holds]),
            ("specificity", ~present[finding][~holds]),
        ):
            low, high = wilson(hits.sum(), len(hits))
            row |= {name: hits.mean(), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _phantoms(modality, n, side, seed):
    """About n images, equally many of each group, with the truth of each quantity and their groups' names.

    They are as large as they are read, SIDE at most, whatever the side that they were drawn at.
    """
    each = -(-n // len(groups(modality)))
    part = max(1, 100 * SIDE**2 // side**2)  # drawn at once, whose masks are large
    drawn, truths = [], []
    for group in groups(modality):
        for start in range(0, each, part):
            images, truth = draw(modality, group, min(part, each - start), seed, side, start)
            drawn.append(_as_read(images))
            truths.append({name: truth[name] for name in QUANTITIES[modality] if name in truth})
    truth = {name: np.concatenate([t[name] for t in truths]).astype(float) for name in truths[0]}
    names = np.repeat(groups(modality), each)
    return np.concatenate(drawn), _with_effusion(modality, truth), names


def _as_read(images) -> np.ndarray:
    """Images [n, 3, H, W], those larger than SIDE averaged down to it."""
    images = np.asarray(images, np.float32)
    if images.shape[-1] <= SIDE:
        return images
    return interpolate(torch.from_numpy(images), (SIDE, SIDE), mode="area").numpy()


def _described(modality, images):
    return getattr(descriptors, modality)(_as_read(images))


def _with_effusion(modality, values):
    if modality == "chest":
        values["effusion"] = np.maximum(values["effusion_right"], values["effusion_left"])
    return values


def _holds(names, finding):
    return np.array([finding in name.split("+") for name in names])


def _standard(raw, mean, scale):
    return ((raw - mean) / scale).clip(-_CLIP, _CLIP)


def _kernel(a, b):
    return np.exp(-_WIDTH * cdist(a, b, "sqeuclidean"))


def _fit(modality, n, side) -> Reader:
    images, truth, _ = _phantoms(modality, n, side, _SEEDS["fit"])
    raw = _described(modality, images)
    mean, scale = raw.mean(0), raw.std(0) + 1e-9
    raw = _standard(raw, mean, scale)
    pca = PCA(min(_COMPONENTS, *raw.shape), svd_solver="randomized", random_state=0).fit(raw)
    # Half whitened: what differs little between pictures counts, but less than what differs much.
    project = pca.components_.T / pca.explained_variance_.clip(1e-9) ** 0.25
    known = raw @ project
    project /= (gauge := np.sqrt(np.square(known).sum(1).mean()))
    known /= gauge
    wanted = np.stack([truth[q] for q in QUANTITIES[modality] if q != "effusion"], 1)
    offset, spread = wanted.mean(0), wanted.std(0)
    ridge = _kernel(known, known) + _RIDGE[modality] * np.eye(len(known))
    weights = solve(ridge, (wanted - offset) / spread, assume_a="pos") * spread
    fitted = Reader(modality, mean, scale, project, known, weights, offset, np.zeros(0))
    return replace(fitted, thresholds=_thresholds(fitted, min(n, _LIMITS), side))


def _thresholds(fitted, n, side):
    """What the SPECIFICITY share of n phantoms without each finding stays below, none of them fitted on."""
    images, _, names = _phantoms(fitted.modality, n, side, _SEEDS["thresholds"])
    values = fitted.read(images)
    findings = FINDINGS[fitted.modality].items()
    return np.array([np.quantile(values[q][~_holds(names, f)], SPECIFICITY) for f, q in findings])
