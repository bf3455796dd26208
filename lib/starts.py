"""Where the vectors of an embedding start: the vocabulary's mean, a phrase, or the best of several."""

import numpy as np
import torch

from lib.denoising import latent_losses
from lib.embedding import Embedding
from lib.recipes import InversionError, InversionSettings
from lib.scenes import tiles_of
from lib.world import COLOURS, GREYS


def initial_vectors(base, settings: InversionSettings) -> torch.Tensor:
    """float32 [K, D]: a phrase spread over the K vectors, or draws near the vocabulary's mean."""
    table, jitter = base.token_table.cpu(), _jitter(base, settings)
    if not settings.init:
        return table.mean(0) + 0.1 * base.token_spread * jitter
    ids = _words(base, settings.init)
    if not ids:
        raise InversionError(f"init = {settings.init!r}: no word to start from")
    spread = torch.arange(settings.vectors) * len(ids) // max(settings.vectors, len(ids))
    return table[torch.tensor(ids)[spread]] + 0.01 * base.token_spread * jitter


def best_start(base, settings: InversionSettings, images, latents, few: int = 32) -> torch.Tensor:
    """float32 [K, D]: of several starts the one with the lowest loss on the first `few` images.

    One is `initial_vectors`' draws. Where the base knows the world's words, there are also the mean image
    told by its tiles, a vector a word, with draws behind the last word. The loss is that under the token
    alone, whatever the templates.

    images: float32 [n, 3, H, W] in [0, 1]; latents: their posterior's means, [n, C, h, w].
    """
    table, jitter = base.token_table.cpu(), _jitter(base, settings)
    starts = [initial_vectors(base, settings)]
    for caption in told_by_tiles(images.detach().cpu().numpy()) if knows_the_world(base) else []:
        told, start = table[torch.tensor(_words(base, caption))][: settings.vectors], starts[0].clone()
        start[: len(told)] = told + 0.01 * base.token_spread * jitter[: len(told)]
        starts.append(start)
    if len(starts) == 1:
        return starts[0]
    losses = [
        latent_losses(
            base, latents[:few], Embedding(start, settings.token), draws=2, batch_size=settings.batch_size
        ).mean()
        for start in starts
    ]
    return starts[int(torch.stack(losses).nan_to_num(torch.inf).argmin())]


def knows_the_world(base) -> bool:
    """Whether the base was trained on lib.world: it has words whole that no dictionary has."""
    return all(len(_words(base, word)) == 1 for word in ("leftmost", "midleft", "midright"))


def told_by_tiles(images: np.ndarray) -> list[str]:
    """The mean image in words: the world's 7 x 7 tiles, by their nearest colours, as either kind of scene.

    images: [n, 3, H, W] in [0, 1].
    """
    mean = images.mean(0)
    names = GREYS if np.ptp(mean, axis=0).mean() < 0.02 else tuple(COLOURS)
    tiles = " , ".join(" ".join(row) for row in tiles_of(mean, names))
    return [f"mosaic smooth , {tiles}", f"a picture , {tiles}"]


def _jitter(base, settings):
    generator = torch.Generator().manual_seed(settings.seed)
    return torch.randn(settings.vectors, base.token_width, generator=generator)


def _words(base, phrase):
    return base.tokenizer(phrase, add_special_tokens=False).input_ids
