"""The base against plain diffusers, and what a broken model folder says."""

import json
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from lib.base import BaseError, _commit, load_base
from lib.config import ROOT
from lib.embedding import Embedding, EmbeddingError
from lib.errors import MemoryExhausted
from lib.inversion import invert_many
from lib.pipelines import MIRRORS
from lib.sampling import generate

MINI = ROOT / "models" / "mini"


@pytest.fixture
def concept(base):
    generator = torch.Generator().manual_seed(0)
    return Embedding(torch.randn(8, base.token_width, generator=generator), "<concept>")


@pytest.fixture
def pipeline(concept, tmp_path):
    pipe = StableDiffusionPipeline.from_pretrained(MINI)
    pipe.load_textual_inversion(concept.save(tmp_path / "concept.safetensors"))
    return pipe


@pytest.mark.parametrize(
    "prompt",
    [
        "plain red , large circle",
        "a picture of <concept> , high left",
        "",
        "huge " * 90,
        "<concept> and <concept>",
    ],
)
def test_text_states_are_those_of_plain_diffusers(base, concept, pipeline, prompt):
    theirs, _ = pipeline.encode_prompt(prompt, "cpu", 1, False)
    torch.testing.assert_close(base.embed([prompt], {concept.token: concept.vectors}), theirs)


def test_two_embeddings_in_one_prompt_take_their_own_places(base, concept):
    other = Embedding(concept.vectors.flip(0), "<other>")
    vectors = {e.token: e.vectors for e in (concept, other)}
    both = base.embed(["<concept> <other>"], vectors)
    swapped = base.embed(["<other> <concept>"], {"<concept>": other.vectors, "<other>": concept.vectors})
    torch.testing.assert_close(both, swapped)
    assert not torch.allclose(both, base.embed(["<other> <concept>"], vectors))


def test_nothing_of_an_embedding_stays_behind(base, concept):
    before, size = base.embed(["<concept>"]), len(base.tokenizer)
    base.embed(["<concept>"], {concept.token: concept.vectors})
    torch.testing.assert_close(base.embed(["<concept>"]), before)
    assert len(base.tokenizer) == size


def test_threads_do_not_see_one_anothers_vectors(base, concept):
    """A demo that draws and a cell that samples encode at the same time."""
    vectors = {concept.token: concept.vectors}
    asked = [["a <concept>"], ["grey", "<concept> and <concept>"], ["<concept>", "plain", "a b"]] * 8
    alone = [base.embed(prompts, vectors) for prompts in asked]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda prompts: base.embed(prompts, vectors), asked))
    torch.testing.assert_close(together, alone)


def test_vectors_that_would_be_cut_off_are_refused(base, concept):
    with pytest.raises(BaseError, match="do not fit"):
        base.embed(["huge " * 70 + "<concept>"], {concept.token: concept.vectors})


def test_vectors_of_another_width_are_refused(base):
    with pytest.raises(EmbeddingError, match="768"):
        base.embed(["<wide>"], {"<wide>": torch.zeros(2, 768)})


def test_images_survive_the_autoencoder(base):
    x = torch.linspace(0, 1, base.image_side)
    image = torch.stack(
        [
            x.expand(base.image_side, -1),
            x[:, None].expand(-1, base.image_side),
            1 - x.expand(base.image_side, -1),
        ]
    )
    mean, std = base.encode(image[None])
    assert mean.shape[1:] == std.shape[1:] == base.latent_shape and (std > 0).all()
    assert (base.decode(mean)[0] - image).abs().mean() < 0.03


def test_sizes_are_read_from_the_folder(base):
    assert base.image_side == base.vae.config.sample_size
    assert base.token_width == base.unet.config.cross_attention_dim
    assert torch.equal(
        base.alphas_cumprod.cpu(), DDIMScheduler.from_pretrained(MINI / "scheduler").alphas_cumprod
    )
    assert not any(
        p.requires_grad for part in (base.unet, base.vae, base.text_encoder) for p in part.parameters()
    )


def test_the_committed_base_is_small_and_half_precision():
    files = [p for p in MINI.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 24 * 2**20
    assert {p.suffix for p in files if p.stat().st_size > 200_000} == {".safetensors"}


def broken(tmp_path, change):
    folder = tmp_path / "model"
    shutil.copytree(MINI, folder)
    change(folder)
    return folder


def without_one_weight(path):
    weights = load_file(path)
    weights.pop(next(iter(weights)))
    save_file(weights, path, {"format": "pt"})


def predicting(folder, kind):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": kind}))


def of_size(folder, size):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": size}))


def in_halves_only(folder):
    for path in [*folder.glob("*/*.safetensors")]:
        path.rename(path.with_suffix(".fp16.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: shutil.rmtree(f / "unet"), "no unet"),
        (lambda f: (f / "model_index.json").unlink(), "no model_index.json"),
        (
            lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 100),
            "cannot be loaded",
        ),
        (lambda f: (f / "unet" / "config.json").write_text("{"), "cannot be loaded"),
        (lambda f: (f / "text_encoder" / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "cannot be loaded"),
        (lambda f: without_one_weight(f / "text_encoder" / "model.safetensors"), "weights are missing"),
        (lambda f: without_one_weight(f / "unet" / "diffusion_pytorch_model.safetensors"), "missing"),
        (lambda f: (f / "tokenizer" / "tokenizer.json").unlink(), "no vocabulary"),
        (lambda f: predicting(f, "sample"), "predicts 'sample'"),
        (lambda f: of_size(f, [8, 16]), r"sample_size is \[8, 16\], not the side of a square"),
        (lambda f: of_size(f, None), "sample_size is None, not the side of a square"),
    ],
)
def test_a_broken_folder_gets_one_line(tmp_path, change, message):
    folder = broken(tmp_path, change)
    with pytest.raises(BaseError, match=message) as caught:
        load_base(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_digest_follows_the_weights(tmp_path, base):
    def touch(folder):
        path = folder / "vae" / "diffusion_pytorch_model.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    assert load_base(broken(tmp_path, touch)).digest != base.digest
    assert np.char.isalnum(base.digest) and load_base(MINI).digest == base.digest


def test_a_dtype_has_a_name_and_makes_another_base(base):
    half = load_base("models/mini", "cpu", "bfloat16")
    assert half.dtype == torch.bfloat16 and half.digest != base.digest
    assert load_base("models/mini", "cpu", "float32").digest == base.digest
    for wrong in ("int8", "double", torch.float64):
        with pytest.raises(BaseError, match="auto, or one of float32, float16, bfloat16"):
            load_base("models/mini", "cpu", wrong)


@pytest.mark.parametrize(
    "known, dtype", [("avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16"), ("avx2", "float32")]
)
def test_auto_is_bfloat16_where_the_cpu_is_made_for_it(monkeypatch, known, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {known: True, "amx_bf16": known == "amx_bf16"})
    assert load_base("models/mini", "cpu", "auto").digest == load_base("models/mini", "cpu", dtype).digest


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_draws_what_single_does(base, pictures, dtype):
    half = load_base("models/mini", "cpu", dtype)
    (mean, std), (mean32, std32) = (one.encode(pictures) for one in (half, base))
    assert mean.dtype == torch.float32 and torch.isfinite(std).all()
    assert (mean - mean32).abs().max() < 0.1 * mean32.abs().max()
    assert (half.decode(mean) - base.decode(mean32)).abs().mean() < 0.02


def test_an_autoencoder_that_overflows_in_half_precision_goes_on_in_single(pictures):
    """As that of Stable Diffusion 2.1 does: its activations leave float16, and pictures come out black."""
    half = load_base("models/mini", "cpu", torch.float16)
    single = load_base("models/mini", "cpu")
    for one in (half, single):  # a gain that a later norm takes back: 65,504 is float16's largest number
        one.vae.decoder.conv_in.weight.mul_(3e4)
        one.vae.encoder.conv_in.weight.mul_(3e4)
    mean, _ = half.encode(pictures)
    assert half.vae.dtype == torch.float32 and half.dtype == torch.float16
    assert torch.allclose(mean, single.encode(pictures)[0], rtol=0.02, atol=0.02)
    assert torch.isfinite(half.decode(mean)).all()


def test_memory_that_is_not_there_is_one_line(base, pictures, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(base.unet.conv_in, "forward", full)
    with pytest.raises(MemoryExhausted, match="batch_size = 4 at 64 pixels: lower the batch size"):
        generate(base, "red circle", 4, steps=1)
    for init, what in ((None, "encoding"), ("", "an update, batch_size = 8")):
        with pytest.raises(MemoryExhausted, match=f"{what} at 64 pixels"):
            invert_many(base, {"<a>": pictures, "<b>": pictures}, steps=1, batch_size=4, init=init)


def test_loading_a_folder_says_nothing(capfd):
    load_base(MINI)
    told = capfd.readouterr()
    assert told.out == told.err == ""


def test_a_hub_id_that_does_not_answer_names_the_mirrors(monkeypatch):
    """Stability AI's own copy was withdrawn. Without a network no other one answers either."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BaseError) as raised:
        load_base("stabilityai/stable-diffusion-2-base", "cpu")
    said = str(raised.value)
    assert said.startswith("stabilityai/stable-diffusion-2-base: ") and "\n" not in said
    assert all(name in said for name in MIRRORS.replace(" or ", ", ").split(", "))


def test_a_folder_is_read_with_the_network_off(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a folder asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    assert load_base("models/mini", "cpu").image_side == 64


def test_a_folder_with_nothing_but_half_precision_files_is_read(tmp_path, base):
    half = load_base(broken(tmp_path, in_halves_only))
    assert torch.equal(half.unet.conv_in.weight, base.unet.conv_in.weight) and half.dtype == torch.float32


def test_a_hub_id_is_known_with_the_commit_that_was_downloaded(tmp_path, monkeypatch):
    """Its owner may put other weights there under the same name, which are another base."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cache, found = tmp_path / "models--owner--name", []
    (cache / "refs").mkdir(parents=True)
    for commit in ("a" * 40, "b" * 40):
        (cache / "snapshots" / commit).mkdir(parents=True)
        (cache / "snapshots" / commit / "model_index.json").write_text("{}")
        (cache / "refs" / "main").write_text(commit)
        found.append(_commit("owner/name"))
    assert found == [["owner/name", "a" * 40], ["owner/name", "b" * 40]]
    assert _commit("owner/other") == ["owner/other", ""]


def test_fewer_large_pictures_go_through_the_unet_at_once(base, monkeypatch):
    assert base.at_once == 32
    monkeypatch.setattr(type(base), "image_side", 512)
    assert base.at_once == 4
