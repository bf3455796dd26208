"""The sd2 profile's notebooks at Stable Diffusion 2's text width, latents and 512 pixels; random weights.

What is proven is shapes, precision and formats: random weights draw noise. The U-Net is narrower than its
model's, for a CPU's sake; one step at its own widths is compared with diffusers in test_inversion.py.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image

from lib import rehearsal
from lib.embedding import Embedding
from lib.run_all import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Two classes of noise, of another size than the base's."""
    place, rng = tmp_path_factory.mktemp("images") / "scans", np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for label, tone in (("healthy", 90), ("sick", 160)):
            folder = place / split / label
            folder.mkdir(parents=True)
            for i in range(3):
                pixels = np.clip(rng.normal(tone, 30, (300, 260)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{split}-{i}.png")
    return place


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory, scans):
    """(model folder, folder of the run): 02, 07 and 09 of the sd2 profile, done."""
    place = tmp_path_factory.mktemp("rehearsal")
    shape = replace(rehearsal.SHAPES["2"].reduced(), widths=(32, 64), attention_heads=(1, 2))
    model = rehearsal.write(place / "stable-diffusion-2", shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MDB_RUNS", str(place / "runs"))
        told = {"base": model, "output": place, "dataset": scans, "device": "cpu"}
        told |= {"captions": "{healthy: grey, sick: white}", "gap_vectors": "[8]"}
        words = [word for name, value in told.items() for word in ("-p", name, str(value))]
        assert main(["--profile", "rehearsal", "--only", "02,07,09", *words]) == 0
    return model, place


def test_vectors_are_as_wide_as_the_papers_and_images_512_pixels(rehearsed):
    _, place = rehearsed
    files = sorted((place / "runs" / "embeddings").rglob("*.safetensors"))
    vectors = [Embedding.load(file).vectors for file in files]
    assert {tuple(v.shape) for v in vectors} >= {(64, 1024)}
    assert all(v.isfinite().all() for v in vectors)
    drawn = [np.load(file) for file in (place / "runs").rglob("images.npy")]
    assert drawn and {a.shape[1:] for a in drawn} == {(3, 512, 512)}


def test_every_table_is_finite(rehearsed):
    _, place = rehearsed
    gap = pd.read_csv(place / "results" / "real-02_textual_inversion-gap-scans.csv")
    assert set(gap.condition) == {"empty", "caption", "8 vectors", "fine-tuned"}
    assert np.isfinite(gap.loss).all()
    for stem in ("07_interpolation", "09_inpainting"):
        table = pd.read_csv(place / "results" / f"real-{stem}-scans.csv")
        assert np.isfinite(table.select_dtypes("number")).all(axis=None), stem


def test_plain_diffusers_opens_what_was_trained(rehearsed):
    model, place = rehearsed
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    file = sorted((place / "runs" / "embeddings").rglob("*.safetensors"))[0]
    pipeline.load_textual_inversion(file)
    assert Embedding.load(file).token in pipeline.tokenizer.get_vocab()
