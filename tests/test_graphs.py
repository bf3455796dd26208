"""What is recorded on a GPU and replayed equals what is computed plainly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.base import load_base
from lib.config import ROOT
from lib.denoising import denoising_loss
from lib.graphs import loss_of
from lib.inversion import invert
from lib.mini import build_tokenizer
from lib.pretrain import Trainer
from lib.sampling import generate
from lib.shards import Phase, PretrainSettings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(scope="module")
def base():
    return load_base(ROOT / "models" / "mini", "cuda")


def drawn(base, n, seed):
    generator = torch.Generator("cuda").manual_seed(seed)
    shape = (n, *base.latent_shape)
    latents, noise = (torch.randn(shape, generator=generator, device="cuda") for _ in range(2))
    states = torch.randn((n, base.max_tokens, base.token_width), generator=generator, device="cuda")
    times = torch.randint(1000, (n,), generator=generator, device="cuda")
    return latents, noise, times, states.requires_grad_()


def test_a_replayed_loss_and_its_gradient_are_the_plain_ones(base):
    replayed = loss_of(base)
    for n, seed in ((4, 0), (4, 1), (2, 2), (4, 3)):
        found, plain = drawn(base, n, seed), drawn(base, n, seed)
        losses, expected = replayed(*found), denoising_loss(base, *plain)
        losses.mean().backward()
        expected.mean().backward()
        assert torch.allclose(losses, expected, rtol=1e-3)
        close = torch.nn.functional.cosine_similarity(
            found[-1].grad.flatten(), plain[-1].grad.flatten(), dim=0
        )
        assert close > 0.999


def test_pictures_are_those_of_the_cpu(base):
    on_cpu = load_base(ROOT / "models" / "mini", "cpu")
    what = "plain grey , middle left large black circle"
    found, expected = (generate(b, what, 4, steps=8, guidance=2.0) for b in (base, on_cpu))
    assert (found - expected).abs().max() < 0.02


def test_an_embedding_learns_on_a_gpu(base):
    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.4
    found = [invert(base, images, "<x>", 4, steps=12, seed=0).vectors for _ in range(2)]
    assert torch.isfinite(found[0]).all() and torch.allclose(*found, atol=0.05)


def test_pretraining_replays_its_updates(tmp_path):
    settings = PretrainSettings(batch_size=8, samples=8 * 40, rate=2e-3, warmup=2, widths=(32, 32, 32))
    settings = replace(settings, curriculum=(Phase(10**6, 1.5),))
    latents = np.random.default_rng(0).standard_normal((16, 24, 16, 16)).astype(np.float16)
    trainer = Trainer(settings, build_tokenizer(tmp_path), tmp_path / "diffusion.pt", "cuda")
    losses = [r.loss for r in trainer.run(latents, ["plain red", "plain blue"] * 8, every=80)]
    assert losses[-1] < losses[0] < 2
