"""How an embedding is trained: this project's recipe, and that of the paper's trainer."""

from dataclasses import dataclass, replace

import numpy as np

from lib.embedding import check_token, holds_token
from lib.errors import UserError

DECAYS = ("cosine", "linear", "constant")
OPTIMIZERS = ("muon", "adam")
#: Changes to the settings, by the name of the recipe. a1111: the paper's trainer, the AUTOMATIC1111 web UI
#: at commit d050bb7 with its defaults; its AdamW without weight decay is Adam. Steps, templates and K are
#: the user's there too (the paper: 50,000 or 100,000 steps, K = 64). It shows every image once before any
#: comes again, where images are drawn independently here; and starts from "*" without our jitter.
#: adam: this project's recipe with Adam, whose learning rate is better lower: 3e-2 for 16 images an update.
RECIPES = {
    "ours": {},
    "adam": {"optimizer": "adam", "decay": "cosine", "floor": 0.05, "ema": None},
    "a1111": {
        "optimizer": "adam",
        "batch_size": 1,
        "learning_rate": 5e-3,
        "warmup": 0.0,
        "decay": "constant",
        "ema": None,
        "init": "*",
        "template_once": True,
        "stratify": False,
        "betas": (0.9, 0.999),
        "flip": False,
        "resample": False,
        "snr_gamma": None,
        "norm_pull": 0.0,
        "patience": 0,
    },
}


class InversionError(UserError):
    """Settings that cannot be trained with, or a training that ran away."""


class CheckpointError(InversionError):
    """A checkpoint of another training than the one that would go on from it."""


@dataclass(frozen=True)
class InversionSettings:
    """How an embedding is trained; the defaults are this project's recipe.

    token, vectors     the placeholder and K, the number of its vectors (1 to 75)
    steps, batch_size  updates, and images an update
    optimizer          muon: the update is the momentum of the gradient, a matrix [K, D], with all singular
                       values made about equal (Jordan et al. 2024, kellerjordan.github.io/posts/muon);
                       or adam
    learning_rate      at its highest: about how far an update moves a coordinate, root mean square; `warmup`
                       is the share of the steps over which it rises, `decay` (cosine, linear or constant)
                       how it falls to `floor` times itself
    ema                decay of a running mean of the vectors, which is then what is kept; None: none
    init               a phrase whose token vectors are spread over the K, "" for draws around the
                       vocabulary's mean, or None for the best of these draws and of the mean image told
                       in the base's own words, where it has them (lib.starts)
    templates          prompts with {} for the token; one is drawn for each image. The token alone by
                       default: it is generated with so, and models/mini knows no "a photo of"
    template_once      True draws one template for each image once, False anew whenever it is seen
    stratify           draw one timestep in each of batch_size equal parts of the schedule, so that no batch
                       misses a noise level; False draws them independently
    betas              of Adam; Muon's momentum is the first
    flip               mirror half of the images; False, since a mirrored chest is another patient
    resample           draw the latents from their posterior at each step; False freezes one sample
    snr_gamma          min-SNR weighting (Hang et al. 2023, arXiv 2303.09556); None: none
    norm_pull          share of the way that each vector's norm is moved, after every update, to the mean
                       norm of the vocabulary; 0: none
    patience           stop after so many held-out losses in a row that are no new best; 0: never
    record_every, validate_every, checkpoint_every   in updates
    """

    token: str = "<concept>"
    vectors: int = 64
    steps: int = 200
    batch_size: int = 16
    optimizer: str = "muon"
    learning_rate: float = 4e-2
    warmup: float = 0.05
    decay: str = "linear"
    floor: float = 0.3
    ema: float | None = 0.9
    init: str | None = None
    templates: tuple[str, ...] = ("{}",)
    template_once: bool = False
    stratify: bool = True
    betas: tuple[float, float] = (0.9, 0.99)
    flip: bool = False
    resample: bool = True
    snr_gamma: float | None = None
    norm_pull: float = 0.0
    patience: int = 0
    record_every: int = 10
    validate_every: int = 50
    checkpoint_every: int = 100
    seed: int = 0

    def __post_init__(self):
        check_token(self.token, "settings")
        for name, least in (
            ("vectors", 1),
            ("steps", 1),
            ("batch_size", 1),
            ("record_every", 1),
            ("validate_every", 1),
            ("checkpoint_every", 1),
        ):
            if getattr(self, name) < least:
                raise InversionError(f"{name} = {getattr(self, name)}: at least {least}")
        if not 0 < self.learning_rate < np.inf:
            raise InversionError(f"learning_rate = {self.learning_rate}: a positive number, such as 0.02")
        if not 0 <= self.norm_pull <= 1 or self.patience < 0:
            raise InversionError(
                f"norm_pull = {self.norm_pull}, patience = {self.patience}: a share, and a number of losses"
            )
        for name, known in (("decay", DECAYS), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in known:
                raise InversionError(f"{name} = {getattr(self, name)!r}: one of {', '.join(known)}")
        filled = [template.replace("{}", self.token) for template in self.templates]
        if not filled or not all(holds_token(prompt, self.token) for prompt in filled):
            raise InversionError(
                f"templates = {self.templates!r}: prompts that hold {{}} as a word of its own"
            )
        if not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise InversionError(f"seed = {self.seed!r}: a whole number of at least 0")
        object.__setattr__(self, "seed", int(self.seed))  # torch takes no other
        if self.flip and not self.resample:
            raise InversionError("flip = True, resample = False: a frozen sample is not mirrored; choose one")

    def by(self, recipe: str) -> "InversionSettings":
        """These settings, changed as the recipe has it. Raises InversionError for an unknown one."""
        if recipe not in RECIPES:
            raise InversionError(f"recipe = {recipe!r}: one of {', '.join(RECIPES)}")
        return replace(self, **RECIPES[recipe])

    def rate(self, step: int) -> float:
        """The learning rate of update `step` (from 0)."""
        rise = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        t = step / self.steps
        fall = {"cosine": (1 + np.cos(np.pi * t)) / 2, "linear": 1 - t, "constant": 1.0}[self.decay]
        lowered = 1.0 if self.decay == "constant" else self.floor + (1 - self.floor) * fall
        return float(self.learning_rate * rise * lowered)
