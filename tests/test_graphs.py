"""What is recorded on a GPU and replayed equals what is computed plainly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib import rehearsal
from lib.base import load_base
from lib.config import ROOT
from lib.denoising import denoising_loss
from lib.graphs import loss_of
from lib.inversion import invert
from lib.mini import build_tokenizer
from lib.predictor import Predictor
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
    drawing = {"steps": 8, "guidance": 2.0, "batch_size": 3}  # two batches, of two sizes
    found, expected = (generate(b, what, 4, **drawing) for b in (base, on_cpu))
    assert (found - expected).abs().max() < 0.02


@pytest.mark.parametrize("version", ["1", "2"])
def test_predictions_at_every_step_are_diffusers_own(tmp_path, version):
    one = load_base(rehearsal.write(tmp_path / "sd", rehearsal.SHAPES[version].reduced()), "cuda")
    times, noise = torch.tensor([900, 500, 100, 20], device="cuda"), drawn(one, 2, 0)[0]
    states = one.embed(["grey", ""]).detach()
    predict = Predictor(one.unet, states, times)
    for step, time in enumerate(times):
        with torch.no_grad():
            told = states.repeat_interleave(2, 0)
            plain = one.unet(noise.repeat(2, 1, 1, 1), time, encoder_hidden_states=told).sample
        assert torch.allclose(predict(noise, step), plain, atol=1e-2, rtol=1e-2)


def test_an_embedding_learns_what_it_learns_on_a_cpu(base):
    on_cpu = load_base(ROOT / "models" / "mini", "cpu")
    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.4
    trained = {"vectors": 4, "seed": 0, "init": ""}
    start = invert(on_cpu, images, "<x>", steps=1, **trained).vectors
    found, expected = (invert(b, images, "<x>", steps=12, **trained).vectors - start for b in (base, on_cpu))
    assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.9


def test_pretraining_replays_what_it_computes(tmp_path):
    settings = PretrainSettings(batch_size=8, samples=8 * 40, rate=2e-3, warmup=2, widths=(32, 32, 32))
    settings = replace(settings, curriculum=(Phase(10**6, 1.5),))
    latents = np.random.default_rng(0).standard_normal((16, 24, 16, 16)).astype(np.float16)
    tokenizer, losses = build_tokenizer(tmp_path), []
    for name in ("replayed", "plain"):
        trainer = Trainer(settings, tokenizer, tmp_path / name, "cuda")
        if name == "plain":
            trainer._recorded = lambda function, *inputs: function(*inputs)
        losses.append([r.loss for r in trainer.run(latents, ["plain red", "plain blue"] * 8, every=80)])
        assert name == "plain" or trainer._recorded._graphs
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0][-1] < losses[0][0]
