"""What is drawn of a class's difference from the healthy one."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lib.concepts import Concepts, concepts, emphasised
from lib.datasets import load_images
from lib.embedding import Embedding
from lib.inpainting import summarise
from lib.inversion import InversionSettings
from lib.sampling import generate
from lib.sweep import sweep


@pytest.fixture
def embeddings(base):
    """Of healthy, sick and worse."""
    generator = torch.Generator().manual_seed(3)
    return [
        Embedding(torch.randn(4, base.token_width, generator=generator), f"<{label}>")
        for label in ("healthy", "sick", "worse")
    ]


def test_the_weights_add_what_tells_each_from_healthy(embeddings):
    healthy, sick, worse = embeddings
    assert emphasised(healthy, [sick], 1) == {sick: 1}
    assert emphasised(healthy, [sick], 3) == {healthy: -2, sick: 3}
    assert emphasised(healthy, [sick, worse], 2) == {healthy: -3, sick: 2, worse: 2}
    assert emphasised(healthy, [sick], 0) == emphasised(healthy, [healthy], 3) == {healthy: 1}


def test_the_difference_grows_with_its_weight(base, embeddings, monkeypatch):
    """One step of the solver is linear in what it is told: twice the difference moves it twice as far."""
    latents = []
    monkeypatch.setattr(base, "decode", lambda z: latents.append(z) or torch.zeros(1, 3, 64, 64))
    for times in (0, 1, 2):
        generate(base, emphasised(embeddings[0], embeddings[1:2], times), 1, guidance=1.0, steps=1, seed=5)
    first, second = latents[1] - latents[0], latents[2] - latents[0]
    assert first.abs().max() > 5e-4 and torch.allclose(second, 2 * first, atol=5e-6)


def test_what_is_emphasised_is_compared_with_the_healthy_alike():
    values = {("original", 1): 0.0, ("diseased", 1): 0.3, ("healthy", 1): 0.1}
    values |= {("diseased", 3): 0.8, ("healthy", 3): -0.2}
    row = {"dataset": "prostate", "class": "tumour", "shape": "disc"}
    rows = [
        row | {"condition": condition, "emphasis": times, "image": i, "contrast": value + 0.01 * i}
        for (condition, times), value in values.items()
        for i in range(4)
    ]
    summary = summarise(pd.DataFrame(rows), {("prostate", "disc"): 0.5})
    gain = summary.set_index(["condition", "emphasis"]).gain
    assert gain["diseased", 1] == pytest.approx(0.2) and gain["diseased", 3] == pytest.approx(1.0)
    assert gain["original", 1] == pytest.approx(-0.1) and np.allclose(gain["healthy"], 0)


def test_a_folder_of_a_modalitys_name_is_no_phantom():
    of = {
        spec: Concepts("histology", spec, {}, {}, None).modality
        for spec in ("phantom:histology", "data/histology", "picai:images,labels")
    }
    assert of == {"phantom:histology": "histology", "data/histology": "", "picai:images,labels": "prostate"}


@pytest.mark.parametrize("missing, taken", [("test", "val train"), ("val", "test train"), ("", "test val")])
def test_healthy_images_are_of_two_splits_that_have_some(tmp_path, missing, taken):
    """A hash of few patients may give a split none of the healthy ones; a folder need not have it at all."""
    for split in {"train", "val", "test"} - {missing}:
        folder = tmp_path / split / "healthy"
        folder.mkdir(parents=True)
        for i in range(3):
            Image.new("L", (8, 8)).save(folder / f"{split}-{i}.png")
    images = load_images(str(tmp_path), 2, "train", 8)
    both = Concepts("set", str(tmp_path), {"healthy": None}, {"healthy": images}, None).healthy_images(
        2, 3, 0
    )
    assert " ".join(part.split for part in both) == taken and [len(part) for part in both] == [2, 3]


def test_what_is_there_is_read_without_a_worker(base, runs_folder, monkeypatch):
    """Embeddings and readers are made in a sweep, each once; the second time nothing is left to sweep."""
    swept = []

    def watched(base, calls, text=""):
        swept.append(len(calls))
        return sweep(base, calls, text)

    monkeypatch.setattr("lib.artefacts.sweep", watched)
    monkeypatch.setattr("lib.concepts.sweep", watched)
    settings = InversionSettings(vectors=1, steps=1, batch_size=2)
    given = base, "phantom:prostate", settings, 2, 2, 0, 20
    first, again = [list(concepts(*given)) for _ in range(2)]
    assert swept == [1, 1, 0, 0]
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.reader.weights, other.reader.weights)
        assert all(torch.equal(e.vectors, other.embeddings[k].vectors) for k, e in one.embeddings.items())
