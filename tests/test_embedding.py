"""Embedding files of every tool, both ways; checks; tokens in prompts; plain diffusers."""

import ast
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lib.card import card
from lib.embedding import Embedding, EmbeddingError, Token, check_width, main, split_prompt

PAPER = sorted((Path(__file__).parents[2] / "shared" / "paper-embeddings").glob("*.pt"))
TARGETS = [
    ("diffusers", ".safetensors"),
    ("diffusers", ".bin"),
    ("diffusers", ".pt"),
    ("a1111", ".pt"),
    ("a1111", ".safetensors"),
    ("kohya", ".safetensors"),
    ("kohya", ".pt"),
]
META = {"step": "600", "base": "mini", "z": "ä\n", "a": "1"}


def numbers(count=3, width=8, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def same_bits(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())


@pytest.fixture
def emb():
    return Embedding(numbers(), "<tumour>", META)


def test_vectors_are_a_detached_float32_copy():
    source = torch.nn.Parameter(numbers().double())
    emb = Embedding(source)
    assert emb.vectors.dtype == torch.float32 and not emb.vectors.requires_grad
    before = emb.vectors.clone()
    with torch.no_grad():
        source.zero_()
    assert same_bits(emb.vectors, before)
    assert Embedding(numbers(1)[0]).vectors.shape == (1, 8)
    assert emb.nbytes == 3 * 8 * 4 and emb.token == "<name>" and emb.name == "name"


def test_an_embedding_can_be_a_weight_key(emb):
    twin = Embedding(emb.vectors, emb.token)
    assert len({emb: 0.3, twin: 0.7}) == 2
    assert emb.digest == twin.digest != Embedding(emb.vectors * 2).digest
    assert Embedding(torch.zeros(2, 8)).digest != Embedding(torch.zeros(4, 4)).digest


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.zeros(76, 8), "76 x 8 is no embedding: 1 to 75 vectors"),
        (torch.zeros(0, 8), "0 x 8 is no embedding"),
        (torch.zeros(3, 0), "3 x 0 is no embedding"),
        (torch.zeros(1, 3, 8), "1 x 3 x 8 is no embedding"),
        (torch.tensor(1.0), "a single number is no embedding"),
        (torch.zeros(3, 8, dtype=torch.long), "torch.int64 are no embedding"),
        (torch.tensor([[1.0, float("nan")]]), "1 of 2 numbers are not finite"),
        (torch.tensor([[1e300, 1.0]], dtype=torch.double), "1 of 2 numbers are not finite"),
        (torch.zeros(1).expand(70, 10**9), "too many for an embedding"),
        (torch.zeros(3, 8).to_sparse(), "dense tensor"),
        ([[1.0]], "dense tensor"),
    ],
)
def test_vectors_that_no_base_could_use(vectors, message):
    with pytest.raises(EmbeddingError, match=message):
        Embedding(vectors, "<tumour>")


@pytest.mark.parametrize("token", ["", "<>", "two words", "a,b", "a\nb", "a\x00b", None, 3])
def test_tokens_that_no_prompt_could_hold(token):
    with pytest.raises(EmbeddingError, match="must be one word") as caught:
        Embedding(numbers(), token)
    assert "\n" not in str(caught.value)


def test_provenance_is_strings(emb):
    with pytest.raises(EmbeddingError, match="'steps': 600 must be strings"):
        Embedding(numbers(), "<tumour>", {"steps": 600})


@pytest.mark.parametrize(("form", "suffix"), TARGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_format_gives_back_what_was_saved(tmp_path, form, suffix, dtype):
    emb = Embedding(numbers().to(dtype), "<tumour>", META, dtype)
    found = Embedding.load(emb.save(tmp_path / f"tumour{suffix}", form))
    assert same_bits(found.vectors, emb.vectors)
    assert found.dtype == dtype and found.token == "<tumour>"
    if suffix == ".safetensors" or form == "a1111":
        assert found.meta == META
    again = found.save(tmp_path / f"again{suffix}", "diffusers", dtype=torch.float32)
    assert same_bits(Embedding.load(again).vectors, emb.vectors)


@pytest.mark.parametrize(("form", "suffix"), TARGETS)
def test_the_same_embedding_gives_the_same_bytes(tmp_path, form, suffix):
    backwards = dict(reversed(META.items()))
    one = Embedding(numbers(), "<t>", META).save(tmp_path / f"one{suffix}", form)
    for i in range(3):  # another name, another order, again and again
        two = Embedding(numbers(), "<t>", backwards).save(tmp_path / f"two{i}{suffix}", form)
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("form", ["diffusers", "a1111", "kohya"])
@pytest.mark.parametrize("suffix", [".pt", ".bin"])
def test_an_archive_has_the_members_that_automatic1111_lets_in(tmp_path, emb, form, suffix):
    """By the rule of its modules/safe.py: data.pkl, version and data/<number>, in one folder."""
    path = emb.save(tmp_path / f"a{suffix}", form)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert all(re.match(r"^([^/]+)/((data/\d+)|version|(data\.pkl))$", name) for name in names)
    assert same_bits(Embedding.load(path).vectors, emb.vectors)


def test_an_archive_that_unpacks_to_much_is_refused(tmp_path):
    torch.save({"<m>": torch.zeros(2, 8), "junk": [torch.zeros(9_000_000)]}, tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in whole.namelist():
            bomb.writestr(name, whole.read(name))
    assert (tmp_path / "bomb.pt").stat().st_size < 1e6
    with pytest.raises(EmbeddingError, match="unpacks to 34 MB"):
        Embedding.load(tmp_path / "bomb.pt")


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, 8, device="meta"),
        lambda: torch.nested.nested_tensor([torch.zeros(2, 8)]),
        lambda: torch.zeros(2, 8, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_without_plain_numbers_are_refused(tmp_path, make):
    torch.save({"<m>": make()}, tmp_path / "a.pt")
    with pytest.raises(EmbeddingError):
        Embedding.load(tmp_path / "a.pt")


def test_what_a_header_says_is_shown_and_not_obeyed(tmp_path, capsys):
    evil = 'x"); __import__("os").system("id") #\x1b[2J\n| a | b'
    meta = {"base": evil, "settings": "[" * 100_000, "step": "9" * 5000}
    path = Embedding(numbers(), "<t>", meta).save(tmp_path / "a.safetensors")
    assert main(["inspect", str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    page = card(Embedding.load(path), path.name)
    code = page.split("```")[1].removeprefix("python")
    calls = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert {ast.unparse(call) for call in calls} == {
        "StableDiffusionPipeline.from_pretrained",
        "pipe.load_textual_inversion",
        "pipe",
    }
    assert "\x1b" not in page and "| a | b" not in page.split("```")[0]
    Embedding(numbers(), "<t>", meta).save(tmp_path / "a.pt", "a1111")


def test_files_are_what_the_other_tools_read(tmp_path, emb):
    emb.save(tmp_path / "a.safetensors")
    read = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert list(read) == ["<tumour>"] and same_bits(read["<tumour>"], emb.vectors)
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == META
    emb.save(tmp_path / "k.safetensors", "kohya")
    assert list(safetensors.torch.load_file(tmp_path / "k.safetensors")) == ["emb_params"]
    emb.save(tmp_path / "d.bin")
    assert list(torch.load(tmp_path / "d.bin", weights_only=True)) == ["<tumour>"]
    emb.save(tmp_path / "a.pt", "a1111")
    table = torch.load(tmp_path / "a.pt", weights_only=True)
    assert table["string_to_token"] == {"*": 265} and list(table["string_to_param"]) == ["*"]
    assert same_bits(table["string_to_param"]["*"], emb.vectors)
    assert table["name"] == "tumour" and table["step"] == 600
    assert table["sd_checkpoint"] is None and table["sd_checkpoint_name"] is None


def test_the_files_of_other_tools(tmp_path):
    vectors = numbers()
    a1111 = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": torch.nn.Parameter(vectors)},
        "name": "inner-50000",
        "step": 49999,
        "sd_checkpoint": None,
        "sd_checkpoint_name": "v2",
    }
    first = {  # the first textual inversion code: no name, a ParameterDict
        "string_to_token": {"*": torch.tensor(265)},
        "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)}),
    }
    cases = {
        "my file.pt": (a1111, "<my-file>"),
        "first.pt": (first, "<first>"),
        "k.pt": ({"emb_params": vectors}, "<k>"),
        "o.pt": ({"emp_params": vectors}, "<o>"),
        "star.bin": ({"*": vectors}, "<star>"),
        "learned_embeds.bin": ({"<Cat-Toy>": vectors}, "<cat-toy>"),
        "bare.bin": ({"cat-toy": vectors}, "cat-toy"),
        "<x>.pt": ({"emb_params": vectors}, "<x>"),
        ",.pt": ({"emb_params": vectors}, "<embedding>"),
    }
    for name, (content, token) in cases.items():
        torch.save(content, tmp_path / name)
        found = Embedding.load(tmp_path / name)
        assert (found.token, same_bits(found.vectors, vectors)) == (token, True), name
        assert Embedding.load(tmp_path / name, "<mine>").token == "<mine>"
    assert Embedding.load(tmp_path / "my file.pt").meta == {
        "name": "inner-50000",
        "step": "49999",
        "sd_checkpoint_name": "v2",
    }
    safetensors.torch.save_file({"emp_params": vectors}, tmp_path / "O.safetensors")
    assert Embedding.load(tmp_path / "O.safetensors").token == "<o>"
    os.rename(tmp_path / "O.safetensors", tmp_path / "wrong-ending.pt")
    assert same_bits(Embedding.load(tmp_path / "wrong-ending.pt").vectors, vectors)
    torch.save({"<t>": vectors}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert Embedding.load(tmp_path / "old.pt").token == "<t>"


@pytest.mark.skipif(not PAPER, reason="the paper's files are not beside the repository")
def test_the_papers_files_convert_to_every_format_and_back_bit_for_bit(tmp_path):
    assert len(PAPER) == 8
    for source in PAPER:
        original = torch.load(source, map_location="cpu", weights_only=True)
        vectors = original["string_to_param"]["*"].detach()
        emb = Embedding.load(source)
        assert emb.token == f"<{source.stem}>" and emb.vectors.shape == (64, 1024)
        assert emb.meta["name"] == original["name"]
        for form, suffix in TARGETS:
            there = emb.save(tmp_path / form / f"{source.stem}{suffix}", form)
            middle = Embedding.load(there)
            back = middle.save(tmp_path / "back" / source.name, "a1111")
            table = torch.load(back, weights_only=True)
            assert same_bits(table["string_to_param"]["*"], vectors)
            assert middle.token == emb.token and table["name"] == source.stem
            if suffix == ".safetensors" or form == "a1111":
                for key in ("step", "sd_checkpoint", "sd_checkpoint_name"):
                    assert table[key] == original[key]


class Spy:
    """A pickle of it creates a file when it is run."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("way", ["zip", "legacy", "plain", "plain2"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, way, recwarn):
    content = {"<t>": numbers(), "x": Spy(tmp_path / "ran")}
    file = tmp_path / "evil.pt"
    if way.startswith("plain"):
        file.write_bytes(pickle.dumps({"x": content["x"]}, protocol=2 if way == "plain2" else 4))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=way == "zip")
    with pytest.raises(EmbeddingError, match=r"evil\.pt: refused: ") as caught:
        Embedding.load(file)
    assert "\n" not in str(caught.value) and ".safetensors" in str(caught.value)
    assert not (tmp_path / "ran").exists() and not recwarn.list
    if way != "plain":
        assert "would run code (posix.mkdir)" in str(caught.value).replace("nt.", "posix.")
    if way == "zip":  # the trap is a real one
        torch.load(file, weights_only=False)
        assert (tmp_path / "ran").exists()


def test_files_that_are_no_embedding(tmp_path, emb):
    whole = emb.save(tmp_path / "whole.safetensors").read_bytes()
    pickled = emb.save(tmp_path / "whole.pt", "a1111").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-8])
    (tmp_path / "cut.pt").write_bytes(pickled[: len(pickled) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "picture.pt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (tmp_path / "folder.pt").mkdir()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2**26)
    tables = {
        "sdxl.pt": {"clip_l": numbers(), "clip_g": numbers()},
        "lora.pt": {"a": numbers(), "b": numbers()},
        "none.pt": {"epoch": 3},
        "words.pt": {"two words": numbers()},
        "star.pt": {"string_to_param": {"*": numbers(), "+": numbers()}},
        "list.pt": [numbers()],
        "ints.pt": {"<t>": torch.zeros(3, 8, dtype=torch.long)},
        "nan.pt": {"<t>": torch.full((3, 8), float("nan"))},
        "param.pt": {"string_to_param": 3},
    }
    for name, table in tables.items():
        torch.save(table, tmp_path / name)
    cases = {
        "nowhere.pt": "no such file",
        "folder.pt": "is a folder",
        "cut.safetensors": "damaged safetensors file",
        "cut.pt": "damaged",
        "empty.pt": "neither a .safetensors nor a .pt",
        "picture.pt": "neither a .safetensors nor a .pt",
        "model.safetensors": "64 MB is too large for an embedding",
        "sdxl.pt": "an SDXL embedding (clip_l, clip_g); only Stable Diffusion 1 and 2",
        "lora.pt": "holds 2 tensors (a, b)",
        "none.pt": "holds 0 tensors (none)",
        "words.pt": "token 'two words' must be one word",
        "star.pt": "holds 2 tensors (*, +)",
        "list.pt": "holds a list, not an embedding",
        "ints.pt": "torch.int64 are no embedding",
        "nan.pt": "24 of 24 numbers are not finite",
        "param.pt": "string_to_param is no table",
    }
    for name, message in cases.items():
        with pytest.raises(EmbeddingError) as caught:
            Embedding.load(tmp_path / name)
        text = str(caught.value)
        assert text.startswith(str(tmp_path / name)) and message in text and "\n" not in text
    assert Embedding.load(tmp_path / "words.pt", "<words>").token == "<words>"


def test_saving_what_cannot_be_saved(tmp_path):
    emb = Embedding(torch.full((1, 4), 1e5), "<t>")
    with pytest.raises(EmbeddingError, match=r"overflow torch\.float16: save as float32"):
        emb.save(tmp_path / "a.pt", dtype=torch.float16)
    with pytest.raises(EmbeddingError, match=r"cannot store torch\.float64"):
        emb.save(tmp_path / "a.pt", dtype=torch.float64)
    with pytest.raises(EmbeddingError, match="unknown embedding format 'invoke': one of diffusers"):
        emb.save(tmp_path / "a.pt", "invoke")
    with pytest.raises(EmbeddingError, match=r"unknown embedding file type '.ckpt'"):
        emb.save(tmp_path / "a.ckpt")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddingError, match="cannot be written"):
        emb.save(tmp_path / "file" / "a.pt")


def test_a_file_appears_whole_or_not_at_all(tmp_path, emb, monkeypatch):
    path = emb.save(tmp_path / "a.safetensors")
    before = path.read_bytes()

    def no(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", no)
    with pytest.raises(KeyboardInterrupt):
        Embedding(numbers(seed=1), "<tumour>").save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_width(tmp_path):
    path = Embedding(torch.ones(2, 768), "<t>").save(tmp_path / "sd1.safetensors")
    emb = Embedding.load(path)
    emb.check_width(768, "models/any")
    with pytest.raises(EmbeddingError) as caught:
        emb.check_width(1024, "models/sd2")
    text = str(caught.value)
    assert text.startswith(f"{path}: vectors are 768 wide (Stable Diffusion 1), base models/sd2")
    assert "takes 1024 (Stable Diffusion 2): use " in text and "\n" not in text
    with pytest.raises(EmbeddingError, match="x: vectors are 5 wide, base y takes 128: use"):
        check_width(5, 128, "x", "y")


@pytest.mark.parametrize(
    ("prompt", "tokens", "pieces"),
    [
        ("a scan of <t>", ["<t>"], ["a scan of ", Token("<t>")]),
        ("<t>", ["<t>"], [Token("<t>")]),
        ("", ["<t>"], []),
        ("plain", [], ["plain"]),
        ("pretumour tumours", ["tumour"], ["pretumour tumours"]),
        ("<tumour>x x<tumour> <tumour>_1", ["<tumour>"], ["<tumour>x x<tumour> <tumour>_1"]),
        ("<tumour>", ["tumour"], ["<tumour>"]),
        ("non-tumour <tumour tumour>", ["tumour"], ["non-tumour <tumour tumour>"]),
        ("<a>-b <a>", ["<a>", "<a>-b"], [Token("<a>-b"), " ", Token("<a>")]),
        ("a tumour, dark", ["tumour"], ["a ", Token("tumour"), ", dark"]),
        ("(<t>).", ["<t>"], ["(", Token("<t>"), ")."]),
        ("<t>-like", ["<t>"], [Token("<t>"), "-like"]),
        ("cat-toy cat", ["cat"], ["cat-toy ", Token("cat")]),
        ("cat-toy cat", ["cat", "cat-toy"], [Token("cat-toy"), " ", Token("cat")]),
        ("<a> and <b>", ["<a>", "<b>"], [Token("<a>"), " and ", Token("<b>")]),
        ("<a><b>", ["<b>", "<a>"], [Token("<a>"), Token("<b>")]),
        ("<a> <a>", ["<a>"], [Token("<a>"), " ", Token("<a>")]),
        ("A <T>", ["<t>"], ["A ", Token("<t>")]),
        ("a <t>", ["<T>"], ["a ", Token("<T>")]),
        ("a.c abc", ["a.c"], [Token("a.c"), " abc"]),
    ],
)
def test_split_prompt(prompt, tokens, pieces):
    found = split_prompt(prompt, tokens)
    assert found == pieces
    assert [isinstance(piece, Token) for piece in found] == [isinstance(p, Token) for p in pieces]
    assert "".join(found).lower() == prompt.lower()


def test_split_prompt_names_a_bad_token():
    with pytest.raises(EmbeddingError, match="prompt 'a b': token 'a b' must be one word"):
        split_prompt("a b", ["a b"])


def loader(width):
    """What plain diffusers loads embeddings into, with a text encoder of nothing but a table."""
    from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    pipe = TextualInversionLoaderMixin()
    pipe.tokenizer = CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77
    )
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    pipe.text_encoder = CLIPTextModel(config)
    pipe.components, pipe.hf_device_map = {}, None
    return pipe


def seen_by_diffusers(pipe, prompt):
    """The rows of the token table that plain diffusers looks up for a prompt."""
    prompt = pipe.maybe_convert_prompt(prompt, pipe.tokenizer)
    ids = pipe.tokenizer(prompt).input_ids[1:-1]
    return pipe.text_encoder.get_input_embeddings().weight[ids].detach()


@pytest.mark.parametrize(
    ("form", "suffix"), [("diffusers", ".safetensors"), ("diffusers", ".bin"), ("a1111", ".pt")]
)
@pytest.mark.parametrize("count", [1, 3, 64])
def test_plain_diffusers_opens_our_files(tmp_path, form, suffix, count):
    emb = Embedding(numbers(count, 16), "<Tumour>", META)
    path = emb.save(tmp_path / f"any{suffix}", form)
    pipe = loader(16)
    pipe.load_textual_inversion(str(path), token=None if form == "diffusers" else emb.token)
    assert set(emb.tokens) <= set(pipe.tokenizer.get_vocab())
    assert same_bits(seen_by_diffusers(pipe, "<tumour>"), emb.vectors)


@pytest.mark.skipif(not PAPER, reason="the paper's files are not beside the repository")
def test_plain_diffusers_opens_the_papers_files_once_converted(tmp_path):
    pipe = loader(1024)
    for source in PAPER:
        emb = Embedding.load(source)
        pipe.load_textual_inversion(str(emb.save(tmp_path / f"{source.stem}.safetensors")))
        assert same_bits(seen_by_diffusers(pipe, f"<{source.stem}>"), emb.vectors)


def test_command_line_converts_and_inspects(tmp_path, capsys):
    source = Embedding(numbers().half(), "<tumour>", META, torch.float16)
    source.save(tmp_path / "in.safetensors")
    line = [str(tmp_path / "in.safetensors"), str(tmp_path / "out.pt"), "--format", "a1111"]
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "lib.embedding", *line],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert (ran.returncode, ran.stderr) == (0, "") and ran.stdout.strip().endswith("out.pt")
    table = torch.load(tmp_path / "out.pt", weights_only=True)
    assert same_bits(table["string_to_param"]["*"], source.vectors.half())

    assert main([line[0], str(tmp_path / "32.bin"), "--dtype", "float32", "--token", "<x>"]) == 0
    table = torch.load(tmp_path / "32.bin", weights_only=True)
    assert list(table) == ["<x>"] and same_bits(table["<x>"], source.vectors)

    capsys.readouterr()
    assert main(["inspect", line[0]]) == 0
    said = capsys.readouterr().out
    size = (tmp_path / "in.safetensors").stat().st_size
    rms = source.vectors.square().mean().sqrt()
    for part in ("<tumour>", "3 x 8, float16", f"{size:,} bytes", f"{rms:.4f}", "base", "mini"):
        assert part in said

    assert main(["inspect", str(tmp_path / "none.pt")]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "no such file" in said.err


def test_a_card_says_what_the_header_says_and_no_more(tmp_path, emb, capsys):
    path = tmp_path / "tumour.safetensors"
    Embedding(emb.vectors, "<tumour>", META | {"settings": '{"steps": 7}', "licence": "CC0"}).save(path)
    assert main(["card", str(path)]) == 0
    page = (tmp_path / "tumour.md").read_text(encoding="utf-8")
    assert page.startswith("---\nlibrary_name: diffusers\n") and "# <tumour>" in page
    for part in ('load_textual_inversion("tumour.safetensors")', "| licence | CC0 |", "steps = 7"):
        assert part in page
    capsys.readouterr()
    (tmp_path / "tumour.md").unlink()
    (tmp_path / "tumour.md").mkdir()
    assert main(["card", str(path)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "tumour.md: cannot be written" in said.err
    bare = Embedding(emb.vectors, "<x>")
    assert "not recorded" in card(bare) and bare.digest in card(bare)
    assert "not recorded" in card(Embedding(emb.vectors, "<x>", {"settings": "lr 0.005", "versions": "[1]"}))
