"""What users of other trainers complain of, by the thread: none of it happens here.

Threads without an address are issues and pull requests of the repository that a test's name begins with.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib.base import BaseError, load_base
from lib.embedding import Embedding, EmbeddingError, split_prompt
from lib.inversion import InversionSettings, invert, train
from lib.sampling import generate, inpaint

SMALL = {"vectors": 3, "steps": 2, "batch_size": 2}


def test_diffusers_4450_every_one_of_several_vectors_is_trained(base, pictures):
    first, *_, last = train(base, pictures, InversionSettings("<x>", record_every=1, **SMALL))
    assert ((last.vectors - first.vectors).abs().amax(1) > 0).all()


def test_diffusers_7856_unloading_leaves_nothing(base, pictures):
    """There, tokens `<x>_1` stay in the tokenizer. Here, nothing is loaded into it."""
    before = len(base.tokenizer), base.tokenizer.get_vocab().keys(), base.embed(["<x>"])
    generate(base, Embedding(torch.randn(3, base.token_width), "<x>"), 1, steps=1)
    assert (len(base.tokenizer), base.tokenizer.get_vocab().keys()) == before[:2]
    assert torch.equal(base.embed(["<x>"]), before[2])


def test_diffusers_507_1009_1176_1665_the_vocabulary_does_not_drift(base, pictures):
    before = base.token_table.clone()
    invert(base, pictures, "<x>", **SMALL)
    assert torch.equal(base.token_table, before)


def test_diffusers_10373_another_width_is_named(base):
    with pytest.raises((BaseError, EmbeddingError)) as raised:
        base.embed(["<x>"], {"<x>": torch.zeros(2, 768)})
    assert "768" in str(raised.value) and str(base.token_width) in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        {"emb_params": torch.randn(2, 8)},  # taken for a token of that name there
        {"<x>": torch.randn(2, 8)},
        {"<x>": torch.randn(8)},
        {"emp_params": torch.randn(2, 8)},
    ],
)
def test_diffusers_3198_5327_8854_whoever_wrote_a_file_it_opens(tmp_path, content):
    save_file(content, tmp_path / "x.safetensors")
    found = Embedding.load(tmp_path / "x.safetensors")
    assert found.token == "<x>"
    assert torch.equal(found.vectors, next(iter(content.values())).reshape(-1, 8))


def test_diffusers_7511_an_embedding_of_sdxl_is_refused_by_name(tmp_path):
    save_file({"clip_l": torch.randn(2, 768), "clip_g": torch.randn(2, 1280)}, tmp_path / "x.safetensors")
    with pytest.raises(EmbeddingError, match="SDXL"):
        Embedding.load(tmp_path / "x.safetensors")


def test_diffusers_2052_kohya_2132_a_resumed_run_knows_its_step(base, pictures, tmp_path):
    """There it starts again at step 0, with the rate of step 0."""
    settings = InversionSettings("<x>", **SMALL | {"steps": 6}, record_every=1, checkpoint_every=1)
    path = tmp_path / "checkpoint.pt"
    for record in train(base, pictures, settings, None, path):
        if record.step == 4:
            break
    resumed = list(train(base, pictures, settings, None, path))
    assert [record.step for record in resumed] == [1, 2, 3, 4, 5, 6]
    assert [r.learning_rate for r in resumed] == [settings.rate(i) for i in range(6)]


def test_automatic1111_4032_dafusion_24_rinongal_92_a_seed_gives_the_same_again(base, pictures):
    one, two, other = (invert(base, pictures, "<x>", seed=seed, **SMALL).vectors for seed in (5, 5, 6))
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_automatic1111_5715_no_nan_in_half_precision(dtype):
    """tests/test_base.py shows the fall back; this, that a picture is never silently black."""
    drawn = generate(load_base("models/mini", "cpu", dtype), "red circle", 1, steps=2)
    assert torch.isfinite(drawn).all() and drawn.std() > 0.01


def test_rinongal_61_words_beside_the_token_are_heard(base, pictures):
    """There an overfitted embedding drowns the prompt. Here words beside it still colour the picture."""
    learned = {"n": 1, "steps": 4, "embeddings": (invert(base, pictures, "<x>", **SMALL),)}
    captions = ("plain red , <x>", "plain blue , <x>")
    red, blue = (generate(base, caption, **learned).mean((0, 2, 3)) for caption in captions)
    assert red[0] - red[2] > blue[0] - blue[2] + 0.2


def test_diffusers_5364_the_loss_on_held_out_images_is_reported(base, pictures):
    *_, last = train(base, pictures[:6], InversionSettings("<x>", **SMALL), pictures[6:])
    assert np.isfinite(last.validation_loss)


def test_diffusers_3880_what_is_not_masked_stays_as_it_was(base, pictures):
    mask = np.zeros((64, 64), bool)
    mask[30:34, 30:34] = True
    painted = inpaint(base, "red circle", pictures[0], mask, steps=2, blur=0)
    assert torch.equal(painted[0][:, ~mask], pictures[0][:, ~mask])


def test_a_token_inside_a_word_is_a_word():
    """Prompts expanded by plain replacement come apart where a token is part of another word."""
    assert split_prompt("tumours of tumour", ["tumour"])[0] != "tumour"
