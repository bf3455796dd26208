"""Pictures from a frozen base: generate, compose with AND, interpolate, inpaint.

Every image has a generator of its own, seeded with seed + its place, so that the batch size never changes
a sample (but for the last bits of floating point). Text states are encoded once, and the guided
predictions of all images and prompts go through the U-Net together, which computes once what they share.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler
from PIL import Image
from scipy.ndimage import gaussian_filter

from lib.embedding import Embedding, holds_token
from lib.errors import UserError, within_memory
from lib.predictor import Predictor
from lib.runs import atomic_write

SAMPLERS = {
    "ddim": DDIMScheduler,
    "euler_a": EulerAncestralDiscreteScheduler,
    "dpm++": DPMSolverMultistepScheduler,
}
Prompt = Embedding | str
What = Prompt | dict[Prompt, float]


class SamplingError(UserError):
    """A request that no picture can answer."""


def generate(
    base,
    what: What,
    n: int,
    guidance: float = 2.0,
    steps: int = 30,
    seed: int = 0,
    prompt: str = "{}",
    sampler: str = "ddim",
    negative: str = "",
    batch_size: int | None = None,
    embeddings: tuple[Embedding, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """n images, float32 [n, 3, H, W] in [0, 1] on the CPU.

    what        an Embedding, a caption, or a mapping of either to weights: AUTOMATIC1111's AND,
                D = D_u + guidance * sum_i w_i (D_i - D_u), weights not normalised; w and 1 - w interpolate
    guidance    classifier-free guidance scale (Ho & Salimans 2022); 1 asks the prompt alone
    prompt      template in which {} stands for each embedding's token
    sampler     ddim, euler_a or dpm++, with the base's own noise schedule
    negative    what guidance leads away from
    batch_size  pictures at once; None: as many as base.at_once says
    embeddings  further embeddings whose tokens the captions hold
    progress    called as progress(images done, n) after each batch

    Raises SamplingError.
    """
    batch_size = base.at_once if batch_size is None else batch_size
    _check(n=n, steps=steps, batch_size=batch_size)
    states, weights = _conditions(base, what, guidance, prompt, negative, embeddings)
    with within_memory(f"batch_size = {min(n, batch_size)} at {base.image_side} pixels"):
        predict = _predictor(base, states, sampler, steps)  # for all batches
    images = []
    for first in range(0, n, batch_size):
        seeds = range(seed + first, seed + min(first + batch_size, n))
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        noise = _noise(base, generators)
        with within_memory(f"batch_size = {len(noise)} at {base.image_side} pixels"):
            latents = _solve(base, predict, weights, noise, generators, sampler, steps)
            images.append(base.decode(latents))
        if progress:
            progress(seeds.stop - seed, n)
    return torch.cat(images)


def inpaint(
    base,
    what: What,
    image,
    mask,
    guidance: float = 2.0,
    steps: int = 30,
    seed: int = 0,
    n: int = 1,
    prompt: str = "{}",
    sampler: str = "ddim",
    negative: str = "",
    blur: float = 1.0,
    embeddings: tuple[Embedding, ...] = (),
) -> torch.Tensor:
    """n variants of an image in which the mask is drawn anew; float32 [n, 3, H, W] in [0, 1].

    image [3, H, W] in [0, 1]; mask [H, W], True where something new may appear; blur: deviation in
    pixels of the seam. After each solver step the latents outside the mask are replaced by the
    original's, noised to that step's level; at the end the original pixels are pasted back, and
    outside the blurred mask they are exactly the original's. Raises SamplingError.
    """
    _check(n=n, steps=steps)
    image = torch.as_tensor(image, dtype=torch.float32)
    mask = torch.as_tensor(np.asarray(mask)).bool()
    side = base.image_side
    if image.shape != (3, side, side) or mask.shape != (side, side):
        raise SamplingError(
            f"image {tuple(image.shape)}, mask {tuple(mask.shape)}: the base paints 3 x {side} x {side}"
        )
    if not mask.any():
        raise SamplingError("the mask is empty: nothing would be painted")
    states, weights = _conditions(base, what, guidance, prompt, negative, embeddings)
    original = base.encode(image[None])[0]
    inside = torch.nn.functional.adaptive_max_pool2d(mask[None, None].float(), original.shape[-2:]).to(
        original
    )
    generators = [torch.Generator().manual_seed(seed + i) for i in range(n)]
    noise = _noise(base, generators)

    def keep(latents, scheduler, step):
        times = scheduler.timesteps
        known = original.expand_as(latents)
        if step + 1 < len(times):
            known = scheduler.add_noise(known, noise, times[step + 1].repeat(n))
        return latents * inside + known * (1 - inside)

    with within_memory(f"n = {n} at {base.image_side} pixels"):
        predict = _predictor(base, states, sampler, steps)
        latents = _solve(base, predict, weights, noise, generators, sampler, steps, keep)
        painted = base.decode(latents)
    seam = gaussian_filter(mask.float().numpy(), blur) if blur > 0 else mask.float().numpy()
    seam = torch.from_numpy(np.where(seam > 0.01, np.maximum(seam, mask.numpy()), 0.0).astype(np.float32))
    return torch.where(seam > 0, image + seam * (painted - image), image).clamp(0, 1)


def save_images(images, folder: str | Path) -> list[Path]:
    """Writes images, [n, 3, H, W] in [0, 1], as folder/00.png, 01.png, ..., and returns these files."""
    folder, images = Path(folder), np.asarray(images, np.float32)
    levels = (images.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    paths = [folder / f"{i:0{max(2, len(str(len(levels) - 1)))}d}.png" for i in range(len(levels))]
    for path, picture in zip(paths, levels, strict=True):
        atomic_write(path, Image.fromarray(picture).save)
    return paths


def _check(**numbers):
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise SamplingError(f"{name} = {value!r}: a whole number of at least 1")


def _conditions(base, what, guidance, prompt, negative, embeddings):
    """Text states [m, tokens, D] and the weight of each one's prediction, float32 [m]; they sum to 1."""
    parts = what if isinstance(what, dict) else {what: 1.0}
    if not parts or not all(np.isfinite(w) for w in [*parts.values(), guidance]):
        raise SamplingError(
            f"{what!r} at guidance {guidance!r}: give at least one prompt, and finite weights"
        )
    named = [*embeddings, *(p for p in parts if isinstance(p, Embedding))]
    known: dict[str, Embedding] = {}
    for embedding in named:
        embedding.check_width(base.token_width, base.name)
        if known.setdefault(embedding.token.lower(), embedding) is not embedding:  # prompts ignore case
            raise SamplingError(
                f"two embeddings share the token {embedding.token}: load one of them with token="
            )
    vectors = {embedding.token: embedding.vectors for embedding in known.values()}
    prompts = [prompt.replace("{}", p.token) if isinstance(p, Embedding) else p for p in parts]
    for part, text in zip(parts, prompts, strict=True):
        if isinstance(part, Embedding) and not holds_token(text, part.token):
            raise SamplingError(f"prompt = {prompt!r}: holds no {{}} as a word of its own")
    weights = [guidance * w for w in parts.values()]
    rest = 1 - sum(weights)
    if abs(rest) > 1e-9:
        prompts, weights = [negative, *prompts], [rest, *weights]
    with torch.no_grad():
        return base.embed(prompts, vectors), torch.tensor(weights, dtype=torch.float32, device=base.device)


def _noise(base, generators):
    return torch.stack([torch.randn(base.latent_shape, generator=g) for g in generators]).to(base.device)


def _scheduler(base, sampler, steps):
    if sampler not in SAMPLERS:
        raise SamplingError(f"sampler = {sampler!r}: one of {', '.join(SAMPLERS)}")
    given, total = base.scheduler.config, len(base.alphas_cumprod)
    # What the base leaves open each solver sets itself, as in diffusers; another's defaults are not its own.
    left_open = given.get("_use_default_values", [])
    config = {k: v for k, v in given.items() if not k.startswith("_") and k not in left_open}
    config |= {"num_train_timesteps": total}
    config.setdefault("clip_sample", False)  # DDIM's default clips latents where the base's solver has no say
    if steps > total:
        raise SamplingError(f"steps = {steps}: at most {total}, the base's own")
    scheduler = SAMPLERS[sampler].from_config(config)
    if not _begins_in_noise(scheduler, steps, total):
        fewer = next(n for n in range(steps - 1, 0, -1) if _begins_in_noise(scheduler, n, total))
        raise SamplingError(
            f"steps = {steps}: so spaced, they leave out the noisiest of the base's {total}: take {fewer}"
        )
    scheduler.set_timesteps(steps, device=base.device)
    return scheduler


def _predictor(base, states, sampler, steps):
    return Predictor(base.unet, states, _scheduler(base, sampler, steps).timesteps)


def _begins_in_noise(scheduler, steps, total):
    """Whether so many steps begin where an image is noise: spaced by whole timesteps they may begin too late,
    or at one timestep too many."""
    scheduler.set_timesteps(steps)
    first = float(scheduler.timesteps[0])
    return 0.85 * total <= first + total / steps and first < total


@torch.no_grad()
def _solve(base, predict, weights, noise, generators, sampler, steps, keep=None):
    """Latents [n, C, h, w] from noise; `keep(latents, scheduler, step)` may change them after each step."""
    scheduler = _scheduler(base, sampler, steps)
    latents = noise * scheduler.init_noise_sigma
    extra = {} if sampler == "ddim" else {"generator": generators}
    for step, time in enumerate(scheduler.timesteps):
        predicted = predict(scheduler.scale_model_input(latents, time), step).float()
        predicted = predicted.view(len(weights), *latents.shape)
        guided = torch.einsum("m,mnchw->nchw", weights, predicted)
        latents = scheduler.step(guided, time, latents, return_dict=False, **extra)[0]
        if keep:
            latents = keep(latents, scheduler, step)
    if not latents.isfinite().all():
        raise SamplingError(
            f"what was drawn in {base.dtype} is no picture, its numbers overflowed: load the base in float32 "
            "or bfloat16, or lower the guidance"
        )
    return latents
