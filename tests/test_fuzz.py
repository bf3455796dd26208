"""Every reader of a stranger's file: what is valid, mutated many times, loads or ends in one of our errors.

Never another exception, a hang, a file that the reader wrote, or code that a file brought along.
"""

import json
import os
import shutil
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from made_archives import MadePiCai, write_chexpert, write_dicom, write_pcam, xray
from PIL import Image

from lib.base import load_base
from lib.config import ROOT, load_profile
from lib.datasets import load_images
from lib.embedding import Embedding
from lib.errors import UserError

MANY = int(os.environ.get("MDB_MUTATIONS") or 150)  # a reader; 1000 takes five minutes
SECONDS = 30  # that a reader may take for one file

TOKENS = [
    b"\x00" * 8,
    b"\xff" * 8,
    b"../../../../tmp/x",
    b"<|endoftext|>",
    b"\r\n",
    b"nan",
    b"1e999",
    b"{",
    b"]",
]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three of: bits turned, bytes overwritten, cut short, doubled, taken out, put in."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(1, len(data))))
        if rng.random() < 0.5:  # most formats have what matters at the start
            at = int(at * rng.random() ** 4)
        length = int(rng.integers(1, 64))
        kind = rng.integers(6)
        if kind == 0 and data:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + length] = rng.bytes(length)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            del data[at : at + length]
        else:
            data[at:at] = TOKENS[int(rng.integers(len(TOKENS)))]
    return bytes(data)


class HungError(BaseException):
    """No Exception: what a reader makes of those is an answer."""


@contextmanager
def no_longer_than(seconds):
    def stop(*_):
        raise HungError(f"no answer within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attack(file, read, seed, n=MANY):
    """`read()` after each of n mutations of `file`, which is then as it was; how many loaded."""
    original, loaded = file.read_bytes(), 0
    here = {p: p.stat().st_mtime_ns for p in file.parent.rglob("*") if p.is_file()}
    for i in range(n):
        content = mutated(original, np.random.default_rng([seed, i]))
        file.write_bytes(content)
        try:
            with no_longer_than(SECONDS):
                read()
            loaded += 1
        except UserError as error:
            assert str(error) and len(str(error).splitlines()) == 1, f"mutation {i}: {error}"
        except Exception as error:
            file.write_bytes(original)
            raise AssertionError(f"{file.name}, mutation {i}: {type(error).__name__}: {error}") from error
    file.write_bytes(original)
    after = {p: p.stat().st_mtime_ns for p in file.parent.rglob("*") if p.is_file() and p != file}
    assert after == {p: t for p, t in here.items() if p != file}, "the reader wrote beside the file"
    read()  # what was valid is valid still
    return loaded


@pytest.mark.parametrize(
    "suffix, kind",
    [(".safetensors", "diffusers"), (".safetensors", "kohya"), (".pt", "a1111"), (".bin", "diffusers")],
)
def test_embedding_files(tmp_path, suffix, kind):
    file = Embedding(torch.randn(4, 32), "<x>", {"steps": "3"}).save(tmp_path / f"x{suffix}", kind)
    attack(file, lambda: Embedding.load(file), 1)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".dcm"])
def test_images(tmp_path, suffix):
    """A good picture stays beside the mutated one, so that it can be skipped."""
    (tmp_path / "scans").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    for name in ("a", "b"):
        file = tmp_path / "scans" / f"{name}{suffix}"
        if suffix == ".dcm":
            write_dicom(file, pixels[:, :, 0], PatientID=name, WindowCenter=128, WindowWidth=256)
        else:
            Image.fromarray(pixels).save(file)
    attack(tmp_path / "scans" / f"b{suffix}", lambda: load_images(str(tmp_path / "scans"), None, None, 16), 2)


def test_params(tmp_path):
    (tmp_path / "params").mkdir()
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    file = tmp_path / "params" / "mine.yaml"
    shutil.copy(ROOT / "params" / "mini.yaml", file)
    attack(file, lambda: load_profile("mine", tmp_path), 3)


def test_chexpert_tables(tmp_path):
    names = ("No_Finding", "Cardiomegaly")
    rows = [xray(10 * i + j, **{name: "1.0"}) for i, name in enumerate(names) for j in range(9)]
    root = write_chexpert(tmp_path / "CheXpert-v1.0-small", rows)
    read = lambda: load_images(f"chexpert:{root}?classes=healthy,cardiomegaly", None, None, 16)  # noqa: E731
    attack(root / "train.csv", read, 4)


@pytest.mark.slow
def test_pcam_arrays(tmp_path):
    root = write_pcam(tmp_path / "pcam", {"train": 8, "valid": 4, "test": 4}, side=32)
    file = root / "camelyonpatch_level_2_split_train_x.h5"
    attack(file, lambda: load_images(f"pcam:{root}", 3, "train", 16, label="normal", fewer=True), 5)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["t2w", "gland", "marksheet"])
def test_picai_volumes_masks_and_table(tmp_path, what):
    made = MadePiCai(tmp_path)
    for patient in (1, 2):
        made.study(patient, tumour=patient == 1)
    made.close()
    pattern = {
        "t2w": "images/1/*_t2w.mha",
        "gland": "**/whole_gland/**/1_*.nii.gz",
        "marksheet": "**/marksheet.csv",
    }
    file = next(tmp_path.glob(pattern[what]))
    attack(file, lambda: load_images(made.spec, None, None, 16, fewer=True), 6, MANY // 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"],
)
def test_model_folders(tmp_path, part):
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "models" / "mini", folder)
    attack(folder / part, lambda: load_base(folder, "cpu"), 7, MANY // 10)


def test_weights_that_are_no_safetensors(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "models" / "mini", folder)
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    attack(file, lambda: load_base(folder, "cpu"), 8, MANY // 15)


def test_a_name_is_no_way_out(tmp_path):
    """Tokens and classes become parts of file names: none of them leaves its folder."""
    for token in (
        "<../x>",
        "</etc/passwd>",
        "<a\\b>",
        "<a\nb>",
        "<a\x00b>",
        "<a b>",
        "<>",
        "",
        "<" + 200 * "x",
    ):
        with pytest.raises(UserError) as caught:
            Embedding(torch.zeros(1, 8), token)
        assert len(str(caught.value).splitlines()) == 1
    (tmp_path / "scans" / "..hidden").mkdir(parents=True)
    Image.new("L", (9, 9)).save(tmp_path / "scans" / "..hidden" / "a.png")
    with pytest.raises(UserError):
        load_images(f"{tmp_path}/scans/../../../../etc", None, None, 16)


def test_an_image_that_unpacks_to_gigabytes_is_refused(tmp_path):
    """A PNG of a few kilobytes whose header claims 60,000 x 60,000 pixels."""
    (tmp_path / "scans").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "scans" / "good.png")
    bomb = tmp_path / "scans" / "bomb.png"
    Image.new("1", (60_000, 3000)).save(bomb, optimize=True)
    data = bytearray(bomb.read_bytes())
    data[20:24] = (60_000).to_bytes(4, "big")
    bomb.write_bytes(data)
    images = load_images(str(tmp_path / "scans"), None, None, 16)
    assert len(images) == 1 and "bomb.png" in json.dumps(images.skipped)
