"""The frozen base: a Stable-Diffusion-shaped pipeline, checked, with what inversion asks of it.

Sizes are never constants of ours: image side, latent shape, token width and prediction type are
read from the model folder.
"""

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache

from lib.config import digest, is_hub_id, resolve
from lib.embedding import DTYPES, Token, check_width, split_prompt
from lib.pipelines import MIRRORS, PARTS, BaseError, read_pipeline
from lib.products import attend_plainly, use_onednn
from lib.runs import path_digest

#: Held while vectors are spliced into a text encoder: its hook would touch what another thread encodes.
_splicing = threading.Lock()


def load_base(path: str | Path, device: str | None = None, dtype: torch.dtype | str | None = None) -> "Base":
    """Loads a diffusers pipeline folder, or a hub id, and freezes it.

    path    a folder (as seen from here, else from the repository's root), or a hub id `owner/name`
    device  None: an accelerator if torch sees one, else the CPU
    dtype   of the weights: float32 (None), bfloat16 or float16, by name or torch's own, or "auto": bfloat16
            on a CPU that has instructions for it, else float32; the trained vectors and the loss stay float32

    Raises BaseError for a folder that is missing, incomplete or of another kind of model, a hub id that
    does not answer, a device that is not there and a dtype of another name.
    """
    folder, device = resolve(path), _device(device)
    dtype = _dtype(dtype, device)
    local = folder.exists()
    if not local and not is_hub_id(path):
        raise BaseError(
            f"{path}: no such model folder: name a diffusers folder or a hub id such as {MIRRORS}"
        )
    pipeline = read_pipeline(folder if local else str(path), dtype)
    identity = {part: path_digest(folder / part) for part in PARTS} if local else _commit(str(path))
    return Base(
        pipeline.unet,
        pipeline.vae,
        pipeline.text_encoder,
        pipeline.tokenizer,
        pipeline.scheduler,
        device,
        digest(identity if dtype == torch.float32 else [identity, str(dtype)]),
        folder.name if Path(path).is_absolute() else str(path),  # goes into files that are shared
        str(folder) if local else str(path),
    )


def _commit(hub_id: str) -> list[str]:
    """The hub id with the commit that was downloaded, since its owner may change what it stands for."""
    file = try_to_load_from_cache(hub_id, "model_index.json")
    return [hub_id, Path(file).parent.name if isinstance(file, str) else ""]


def _dtype(name: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    if name == "auto":
        found = torch.cpu.get_capabilities()
        made_for_it = found.get("avx512_bf16") or found.get("amx_bf16")
        return torch.bfloat16 if device.type == "cpu" and made_for_it else torch.float32
    found = name if isinstance(name, torch.dtype) else DTYPES.get(name or "float32")
    if found not in DTYPES.values():
        raise BaseError(f"dtype {name!r}: auto, or one of {', '.join(DTYPES)}")
    return found


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise BaseError(f"device {name!r} cannot be used ({reason}): name another, such as cpu") from error


@dataclass(eq=False)
class Base:
    """A frozen text-to-image model. Images are float32 [n, 3, H, W] in [0, 1], latents [n, C, h, w]."""

    unet: torch.nn.Module
    vae: torch.nn.Module
    text_encoder: torch.nn.Module
    tokenizer: object
    scheduler: object
    device: torch.device
    digest: str
    name: str = ""
    source: str = ""  # what load_base was given, made absolute; empty for a base made in another way
    alphas_cumprod: torch.Tensor = field(init=False)

    def __post_init__(self):
        for part in (self.unet, self.vae, self.text_encoder):
            part.requires_grad_(False).eval().to(self.device)
            use_onednn(part)
        if self.device.type == "cpu" and self.dtype != torch.float32:
            attend_plainly(self.unet)
        else:  # channels last a CPU convolves faster; in half precision its norms lose more than that
            for part in (self.unet, self.vae):
                part.to(memory_format=torch.channels_last)
        self.alphas_cumprod = self.scheduler.alphas_cumprod.float().to(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the U-Net's weights."""
        return self.unet.dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent."""
        return (
            self.unet.config.in_channels,
            self.unet.config.sample_size,
            self.unet.config.sample_size,
        )

    @property
    def image_side(self) -> int:
        """Pixels along one side of an image."""
        return self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def token_width(self) -> int:
        """D, the length of one token vector."""
        return self.text_encoder.config.hidden_size

    @property
    def prediction_type(self) -> str:
        """What the U-Net predicts: "epsilon" or "v_prediction"."""
        return self.scheduler.config.prediction_type

    @property
    def max_tokens(self) -> int:
        """Positions of a prompt, its first and last token included: 77 in Stable Diffusion."""
        return self.text_encoder.config.max_position_embeddings

    @cached_property
    def _table(self) -> torch.nn.Module:
        return self.text_encoder.get_input_embeddings()

    @property
    def token_table(self) -> torch.Tensor:
        """The vocabulary's vectors, float32 [V, D]."""
        return self._table.weight.float()

    @cached_property
    def token_spread(self) -> torch.Tensor:
        """Standard deviation of the vocabulary's vectors, float32 [D]; kept, since it takes seconds."""
        return self.token_table.cpu().std(0)

    def place(self, values: torch.Tensor) -> torch.Tensor:
        """`values`, which lie on the CPU, on the base's device; a GPU is not waited for."""
        if self.device.type != "cuda":
            return values.to(self.device)
        return values.pin_memory().to(self.device, non_blocking=True)

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean, std) of the latent posterior of each image, scaled as the U-Net expects; [n, C, h, w].

        images: [n, 3, H, W] in [0, 1], H = W = image_side, n at least 1. Raises BaseError for others.
        """
        images, side = torch.as_tensor(images, dtype=torch.float32), self.image_side
        if images.ndim != 4 or images.shape[1:] != (3, side, side) or not len(images):
            shape = " x ".join(map(str, images.shape))
            raise BaseError(f"images {shape}: {self.name} takes n x 3 x {side} x {side}, n at least 1")
        low, high = images.min(), images.max()
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise BaseError(f"images from {low:.4g} to {high:.4g}: scale them to [0, 1], without nan")
        moments = torch.empty(2, len(images), *self.latent_shape, device=self.device)
        parts = zip(images.split(self._encoded_at_once), moments.split(self._encoded_at_once, 1), strict=True)
        for part, found in parts:
            found.copy_(self._through_vae(self._moments, part * 2 - 1))
        mean, std = moments.mul_(self.vae.config.scaling_factor)
        return mean, std

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images float32 [n, 3, H, W] in [0, 1] of latents [n, C, h, w], on the CPU."""
        scaled = latents / self.vae.config.scaling_factor
        decode = lambda part: self.vae.decode(part).sample  # noqa: E731
        parts = [self._through_vae(decode, part).cpu() for part in scaled.split(self._encoded_at_once)]
        return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)

    @property
    def at_once(self) -> int:
        """Pictures that go through the U-Net together without a gradient: 32 of 64 pixels, 4 of 512."""
        return max(4, min(32, 2 * 512**2 // self.image_side**2))

    @property
    def _encoded_at_once(self) -> int:
        """Images that go through the autoencoder together: 32 of 64 pixels, two of 512 for a small card."""
        return min(32, max(1, 2 * 512**2 // self.image_side**2))

    def _moments(self, part):
        posterior = self.vae.encode(part).latent_dist
        return torch.stack([posterior.mean, posterior.std])

    def _through_vae(self, run, part):
        """run(part) in float32, computed in half precision until that overflows, and never again then."""
        found = run(part.to(self.device, self.vae.dtype)).float()
        if self.vae.dtype != torch.float32 and not found.isfinite().all():
            self.vae.float()
            found = run(part.to(self.device, torch.float32))
        return found.contiguous()

    def embed(self, prompts: list[str], vectors: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Text states [n, max_tokens, D] as the diffusers pipeline computes them.

        vectors: token -> [K, D]. Where a token stands in a prompt, its K vectors take K positions; the
        tokenizer and its vocabulary are not touched, so there is nothing to unload. Differentiable in the
        vectors. Raises BaseError where a prompt is so long that vectors would be cut off, and
        EmbeddingError for vectors of another width.
        """
        vectors = vectors or {}
        for token, rows in vectors.items():
            check_width(rows.shape[1], self.token_width, token, self.name)
        ids, slots = zip(*(self._positions(prompt, vectors) for prompt in prompts), strict=True)
        begins = dict(zip(vectors, self._starts(vectors), strict=True))
        index = torch.full((len(prompts), self.max_tokens), -1)
        for row, found in enumerate(slots):
            for position, token, k in found:
                index[row, position] = begins[token] + k
        index, ids = self.place(index), self.place(torch.tensor(ids))
        rows = torch.cat([v.to(self.device) for v in vectors.values()]) if vectors else None

        def splice(_module, _inputs, states):
            if rows is None:
                return states
            # not rows[index]: that gradient is summed in an order that changes with the threads
            chosen = torch.nn.functional.embedding(index.clamp_min(0), rows.to(states.dtype))
            return torch.where((index >= 0).unsqueeze(-1), chosen, states)

        with _splicing:
            hook = self._table.register_forward_hook(splice)
            try:
                return self.text_encoder(ids).last_hidden_state
            finally:
                hook.remove()

    @staticmethod
    def _starts(vectors):
        start = 0
        for rows in vectors.values():
            yield start
            start += len(rows)

    def _positions(self, prompt, vectors):
        """Token ids of a prompt, padded to max_tokens, and (position, token, k) of each vector in it."""
        tokenizer = self.tokenizer
        ids, slots = [tokenizer.bos_token_id], []
        for piece in split_prompt(prompt, vectors):
            if isinstance(piece, Token):
                slots += [(len(ids) + k, str(piece), k) for k in range(len(vectors[piece]))]
                ids += [tokenizer.unk_token_id] * len(vectors[piece])
            else:
                ids += tokenizer(piece, add_special_tokens=False).input_ids
        room = self.max_tokens - 1
        if slots and slots[-1][0] >= room:
            raise BaseError(
                f"prompt {prompt!r}: {len(ids) - 1} tokens do not fit into the {room - 1} of "
                f"{self.name or 'the base'}, and vectors would be cut off: shorten the words around them, "
                "or train fewer vectors"
            )
        ids = [*ids[:room], tokenizer.eos_token_id]
        return ids + [tokenizer.pad_token_id] * (self.max_tokens - len(ids)), slots
