"""Settings of the pre-training and its files: painted scenes with captions, a fixed number a file."""

import json
import os
from dataclasses import dataclass

import numpy as np

from lib import scenes
from lib.painting import render

SHARD = 2048  # scenes a file; the last one of a kind may have fewer


@dataclass(frozen=True)
class Phase:
    """What the U-Net is shown until `samples` scenes have been.

    mosaics, singles   the share of scenes of one kind alone (lib.world.kind); the rest is drawn from all
    noise_bias         timesteps are 1000 (1 - u^bias), u uniform in [0, 1): only near pure noise do captions
                       decide, and there the larger bias lingers
    """

    samples: int
    noise_bias: float
    mosaics: float = 0.0
    singles: float = 0.0


#: Mosaics first, which teach places fastest. Then everything, which taught no place of a single object in
#: 600,000 scenes; 90,000 of single objects, near pure noise, did. The fourth phase keeps both; the last one
#: turns from layout to outlines, which the others starved: they hardly saw little noise.
CURRICULUM = (
    Phase(32_000, 2.0, mosaics=1.0),
    Phase(650_000, 2.0),
    Phase(740_000, 8.0, singles=1.0),
    Phase(860_000, 3.0, singles=0.15),
    Phase(1_068_000, 1.5),
)


@dataclass(frozen=True)
class PretrainSettings:
    """The whole recipe; the defaults are those of the first of the five runs that made models/mini.

    scenes are drawn by lib.scenes.sample_scene, objects beside them by sample_object. optimizer: adamw, or
    muon for all matrices and convolutions inside (Jordan et al. 2024) and AdamW for the rest. half: whether
    matrix products are computed in bfloat16 on a CPU too, as they always are on a GPU; it pays where the
    CPU has instructions for it. fine_attention: whether the last level upwards, where texture is drawn,
    attends to the words as the coarser ones do. Widths are channels, sizes pixels, rates per update;
    `samples` counts scenes shown to the U-Net, `decoder_samples` those shown to the autoencoder's decoder,
    repeats included.
    """

    side: int = 64
    scenes: int = 163_840
    objects: int = 0
    latent_channels: int = 12
    autoencoder_widths: tuple[int, ...] = (24, 48, 64)
    decoder_samples: int = 68_000
    decoder_batch_size: int = 16
    decoder_rate: float = 2e-3
    widths: tuple[int, ...] = (48, 96, 160)
    fine_attention: bool = False
    text_width: int = 128
    text_layers: int = 2
    samples: int = 1_068_000
    curriculum: tuple[Phase, ...] = CURRICULUM
    batch_size: int = 16
    optimizer: str = "adamw"
    rate: float = 1e-3
    warmup: int = 500  # updates
    decay_share: float = 0.25  # last share of the samples, over which the rate falls to zero
    weight_decay: float = 0.01
    ema: float = 0.999
    caption_dropout: float = 0.1
    half: bool = False
    seed: int = 0


@dataclass(frozen=True)
class PretrainRecord:
    """One line of the training log."""

    stage: str
    samples: int
    loss: float
    rate: float
    seconds: float


def shard_names(settings):
    """The names of all shards: first the scenes', then the objects'."""
    kinds = {"scenes": settings.scenes, "objects": settings.objects}
    return [f"{kind}-{index:05d}" for kind, n in kinds.items() for index in range(-(-n // SHARD))]


def write_shard(folder, name, settings):
    """Paints a file of n <= SHARD scenes: uint8 [n, 3, side, side], their captions; skips what is there."""
    captions, images = folder / f"{name}.json", folder / f"{name}.npy"
    if captions.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    kind, index = name.split("-")
    stream, sample = {"objects": (1, scenes.sample_object), "scenes": (2, scenes.sample_scene)}[kind]
    rng = np.random.default_rng([settings.seed, stream, int(index)])
    n = min(SHARD, getattr(settings, kind) - int(index) * SHARD)
    painted = [sample(rng) for _ in range(n)]
    pixels = np.stack([np.uint8(np.rint(render(s, settings.side) * 255)) for s in painted])
    replace_file(images, lambda path: np.save(path, pixels))
    replace_file(captions, lambda path: path.write_text(json.dumps([s.caption() for s in painted])))


def replace_file(path, write):
    """Calls `write(path)` on a file beside `path` and renames it: the file is there whole or not at all."""
    part = path.with_name(f"part-{os.getpid()}-{path.name}")
    write(part)
    part.replace(path)


def load_pixels(folder, name):
    """The pictures of one shard, as `write_shard` kept them."""
    return np.load(folder / f"{name}.npy")
