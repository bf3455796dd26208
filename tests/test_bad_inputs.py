"""Bad input is one clear line: one table of what people get wrong, and of what they are told.

Damaged files stand beside the reader that meets them: test_embedding, test_chexpert, test_picai, test_pcam,
test_base (model folders), test_config (profiles), and test_fuzz for what nobody thought of.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from lib.base import load_base
from lib.classify import Cases, Classifier, ClassifierSettings, Training
from lib.datasets import load_images
from lib.embedding import Embedding
from lib.errors import UserError
from lib.inversion import InversionSettings, invert, invert_many
from lib.sampling import generate, inpaint


def cases(n):
    """n cases of 8 x 8 pixels, half of each class."""
    images = np.random.default_rng(n).random((n, 3, 8, 8), np.float32)
    return Cases(images, np.arange(n) % 2 == 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """scans/ has train, val and test with two classes; plain/ three images; none/ nothing; texts/ a text."""
    place = tmp_path_factory.mktemp("place")
    folders = {
        f"scans/{s}/{c}": n for s, n in (("train", 6), ("val", 2), ("test", 4)) for c in ("normal", "tumour")
    }
    for name, n in (folders | {"plain": 3}).items():
        (place / name).mkdir(parents=True)
        for i in range(n):
            Image.new("L", (9, 9), 20 * i).save(place / name / f"p{i}.png")
    (place / "none").mkdir()
    (place / "texts").mkdir()
    (place / "texts" / "a.txt").write_text("x")
    return place


PIXELS = torch.zeros(2, 3, 64, 64)


def embeddings(base, *tokens):
    """One of a single vector for each token."""
    return [Embedding(torch.ones(1, base.token_width), token) for token in tokens]


ONE_CLASS = Cases(np.zeros((3, 3, 8, 8), np.float32), np.ones(3, bool))

#: What is done, in a place and with a base -> what the line says.
IMAGES = {
    lambda p: load_images(p / "scan"): "scan: no such folder or class: there are none, pl",
    lambda p: load_images("/nowhere/at/all"): "/nowhere/at/all: no such folder",
    lambda p: load_images(p / "none"): "none: no images in this folder: put files of type",
    lambda p: load_images(p / "texts"): "texts: no images in this folder",
    lambda p: load_images(p / "texts" / "a.txt"): "a.txt: a file, not a folder",
    lambda p: load_images(""): "no data set named",
    lambda p: load_images(p / "scans" / "cyst"): "cyst: no such folder or class: there are normal, t",
    lambda p: load_images(p / "scans", label="cyst"): "no class 'cyst': there are normal, tumour",
    lambda p: load_images(p / "scans" / "tumour", label="normal"): "names class 'tumour', label='nor",
    lambda p: load_images(p / "scans", n=7): "'normal' has 6 readable images in split 'train', 7 ask",
    lambda p: load_images(p / "scans", n=8): "at most 6 or take another split (split='all' has 12)",
    lambda p: load_images(p / "scans", n=0): "n=0 must be a whole number from 1 up",
    lambda p: load_images(p / "scans", n=2.0): "n=2.0 must be a whole number",
    lambda p: load_images(p / "scans", side=None): "side=None must be a whole number from 1 up",
    lambda p: load_images(p / "scans", seed=-1): "seed=-1 must be a whole number from 0 up",
    lambda p: load_images(p / "scans", split="dev"): "unknown split 'dev': one of train, val, test",
    lambda p: load_images(p / "scans", patient_pattern="("): "no regular expression",
    lambda p: load_images(p): "has folders for the splits in it",
    lambda p: load_images("dicom:/x"): "unknown prefix 'dicom': one of phantom:",
    lambda p: load_images("phantom:knee"): "no phantom 'knee': there are prostate, chest, histol",
    lambda p: load_images("phantom:chest/x"): "no class 'x': there are healthy, cardiomegaly, ",
    lambda p: load_images("phantom:chest", split="all"): "name the split train, val or test",
}
MODELS = {
    lambda b: load_base("models/maxi/none"): "no such model folder: name a diffusers folder or a hub id",
    lambda b: load_base("models/mini", "gpu9"): "device 'gpu9' cannot be used",
    lambda b: b.encode(PIXELS[:0]): "n at least 1",
    lambda b: b.encode(PIXELS[:, :1]): "2 x 1 x 64 x 64",
    lambda b: b.encode(PIXELS[..., :32, :32]): "takes n x 3 x 64 x 64",
    lambda b: b.encode(PIXELS + 255): "scale them to",
    lambda b: b.encode(PIXELS / 0): "without nan",
    lambda b: b.embed(["<x>"], {"<x>": torch.zeros(80, b.token_width)}): "vectors would be cut off: shorten",
    lambda b: b.embed(["<x>"], {"<x>": torch.zeros(1, 768)}): "vectors are 768 wide (Stable Diffusion 1)",
}
PICTURES = {
    lambda b: generate(b, "plain red", 0): "n = 0",
    lambda b: generate(b, "plain red", 1, steps=0): "steps = 0",
    lambda b: generate(b, "plain red", 1, sampler="heun"): "ddim, euler_a, dpm",
    lambda b: generate(b, "plain red", 1, guidance=float("nan")): "finite",
    lambda b: generate(b, "plain red", 1, steps=1001): "at most 1000",
    lambda b: generate(b, embeddings(b, "<x>")[0], 1, prompt="plain red"): "holds no {} as a word of its own",
    lambda b: generate(b, dict.fromkeys(embeddings(b, "<a>", "<X>", "<x>"), 1), 1): "share the token <x>",
    lambda b: inpaint(b, "plain red", PIXELS[0], np.zeros((64, 64))): "empty",
    lambda b: inpaint(b, "plain red", PIXELS[0], np.ones((32, 32))): "32",
}
TRAININGS = {
    lambda b: InversionSettings("<x>", vectors=0): "vectors",
    lambda b: InversionSettings("<x>", steps=0): "steps",
    lambda b: InversionSettings("<x>", learning_rate=-1.0): "learning_rate",
    lambda b: InversionSettings("<x>", decay="exponential"): "decay",
    lambda b: InversionSettings("<x>", templates=("no place",)): "templates",
    lambda b: InversionSettings("x", templates=("many {}s",)): "as a word of its own",
    lambda b: InversionSettings("<x>", seed=-1): "seed = -1",
    lambda b: invert_many(b, {"<x>": PIXELS, "<X>": PIXELS}, vectors=1): "apart in more than case",
    lambda b: invert(b, PIXELS, "two words", vectors=1, steps=1): "token 'two words' must be one word",
    lambda b: invert(b, PIXELS, "<x>", vectors=1, steps=1, init=" "): "no word to start from",
}
CLASSIFIERS = {
    lambda b: cases(10).take(12): "there are 5 and 5",
    lambda b: cases(10).take(3): "half of each class",
    lambda b: ClassifierSettings(steps=0): "steps = 0",
    lambda b: ClassifierSettings(learning_rate=float("nan")): "positive number",
    lambda b: ClassifierSettings(decay="step"): "cosine or constant",
    lambda b: Classifier(ClassifierSettings(weights="/no/such/folder")): "microsoft/resnet-18",
    lambda b: Training(ONE_CLASS, cases(8), ClassifierSettings(width=4)): "both classes",
    lambda b: Training(cases(8), cases(6), ClassifierSettings(width=4)).best: "iterate",
}


def one_line(call, given, said):
    with pytest.raises(UserError) as caught:
        call(given)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_crowded_place_is_not_listed(tmp_path):
    for i in range(40):
        (tmp_path / f"study-{i:02}").mkdir()
    one_line(load_images, tmp_path / "study-7", "there are study-")
    with pytest.raises(UserError) as caught:
        load_images(tmp_path / "mine")
    assert "study" not in str(caught.value).replace(str(tmp_path), "")


@pytest.mark.parametrize(("call", "said"), IMAGES.items(), ids=IMAGES.values())
def test_images(call, said, place):
    one_line(call, place, said)


EVERYTHING_ELSE = MODELS | PICTURES | TRAININGS | CLASSIFIERS


@pytest.mark.parametrize(("call", "said"), EVERYTHING_ELSE.items(), ids=EVERYTHING_ELSE.values())
def test_models_pictures_trainings_and_classifiers(call, said, base):
    one_line(call, base, said)
