"""Pictures a second against diffusers' own pipeline: python -m benchmarks.sampling [--pairs 5]

Both draw the same prompt on the same weights with the same solver, steps and guidance, in turn; first it is
seen that they draw the same pictures from the same noise.
"""

import argparse
import time

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from benchmarks.tables import row, save
from lib.base import load_base
from lib.config import resolve
from lib.sampling import generate

PROMPT = "plain grey , middle left pair large soft upright coal oval"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="models/mini")
    parser.add_argument("--device")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 8, 32])
    asked = parser.parse_args()
    base = load_base(asked.base, asked.device, asked.dtype)
    pipeline = StableDiffusionPipeline.from_pretrained(
        resolve(asked.base), safety_checker=None, torch_dtype=base.dtype
    ).to(base.device)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    side, rows = base.image_side, []

    def theirs(n):
        noise = [torch.randn(base.latent_shape, generator=torch.Generator().manual_seed(i)) for i in range(n)]
        drawn = pipeline(
            PROMPT,
            height=side,
            width=side,
            num_images_per_prompt=n,
            num_inference_steps=asked.steps,
            guidance_scale=2.0,
            latents=torch.stack(noise).to(base.device, base.dtype),
            output_type="pt",
        )
        return drawn.images.float().cpu()

    def ours(n):
        return generate(base, PROMPT, n, guidance=2.0, steps=asked.steps, sampler="ddim", batch_size=n)

    apart = float((ours(4) - theirs(4)).abs().max())
    rows.append(row("largest difference of a pixel from diffusers' pictures", apart, "of 1"))
    for n in asked.images:
        ratios, speeds = [], []
        ours(n), theirs(n)  # in which memory is laid out
        for _ in range(asked.pairs):
            started = time.perf_counter()
            ours(n)
            middle = time.perf_counter()
            theirs(n)
            ratios.append((time.perf_counter() - middle) / (middle - started))
            speeds.append(n / (middle - started))
        rows.append(row(f"{n} at once, {asked.steps} steps", speeds, "images/s"))
        rows.append(row(f"{n} at once, {asked.steps} steps: diffusers' pipeline / ours", ratios, "1"))
    save("sampling", rows)


if __name__ == "__main__":
    main()
