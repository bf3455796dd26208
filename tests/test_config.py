"""lib.config: typed parameters, profiles and digests."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from lib import config
from lib.config import ROOT, Common, Config, ConfigError, digest, load_profile, located, parse_value


@dataclass(frozen=True)
class Settings(Config):
    steps: int
    rate: float
    dataset: str | None = None
    seeds: tuple[int, ...] = (0,)
    sampler: Literal["ddim", "euler_a"] = "ddim"
    flip: bool = False


def test_values_take_the_types_of_the_fields():
    it = Settings.of({"steps": 3, "rate": 1, "dataset": "a", "seeds": [1, 2], "flip": True})
    assert it == Settings(3, 1.0, "a", (1, 2), "ddim", True)
    assert isinstance(it.rate, float)
    with pytest.raises(AttributeError):
        it.steps = 4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stesp": 3}, "unknown parameter stesp = 3; did you mean steps"),
        ({"steps": 3.0}, "parameter steps = 3.0 is a float, not an int"),
        ({"steps": True}, "parameter steps = True is a bool"),
        ({"rate": "5e-4"}, "parameter rate = '5e-4' is a str, not a float; write 5.0e-4"),
        ({"rate": "1e3"}, "write 1.0e+3"),
        ({"dataset": 7}, "parameter dataset = 7 is an int, not a str | None"),
        ({"seeds": [1, "a"]}, "parameter seeds = [1, 'a']"),
        ({"sampler": "dim"}, "parameter sampler = 'dim'"),
        ({"flip": 1}, "parameter flip = 1 is an int, not a bool"),
        ({"dataset": Path("a")}, "is a PosixPath, not a str | None; run the parameters cell again"),
        ({"dataset": ["a"] * 99}, "... is a list, not a str | None"),
    ],
)
def test_a_wrong_value_is_named_with_the_way_out(values, words):
    with pytest.raises(ConfigError) as caught:
        Settings.of({"steps": 3, "rate": 0.1} | values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Seeded(Common):
    few_seeds: list[int]
    lengths: list[int]


def test_no_seeds_are_refused_and_other_empty_lists_are_not():
    shared = {"profile": "mini", "base": "b", "output": ".", "device": None, "dtype": None, "seed": 0}
    assert Seeded.of(shared | {"few_seeds": [0], "lengths": []}).lengths == []
    with pytest.raises(ConfigError, match=r"parameter few_seeds = \[\]: at least one seed"):
        Seeded.of(shared | {"few_seeds": [], "lengths": [1]})


def test_a_missing_parameter_is_named():
    with pytest.raises(ConfigError, match="parameter steps is missing"):
        Settings.of({"rate": 0.1})


def test_in_a_notebook_only_the_leading_literals_are_parameters():
    """Names that a notebook makes for itself are no parameters when its second cell runs again."""
    cells = [
        "",
        "steps = 3  # updates\nrate = 0.1",
        "# Parameters\nsteps = 5\n",
        "later = 1 + len('a')",
    ]
    namespace = {"In": cells, "Out": {}, "steps": 5, "rate": 0.1, "later": 2, "n": 4}
    assert Settings.of(namespace) == Settings(5, 0.1)
    injected = [*cells[:2], "# Parameters\nstep = 5\n", *cells[3:]]
    with pytest.raises(ConfigError, match="unknown parameter step = 5; did you mean steps"):
        Settings.of(namespace | {"In": injected, "step": 5})


@pytest.fixture
def root(tmp_path):
    (tmp_path / "params").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "02_first.ipynb").write_text("{}")
    return tmp_path


def test_a_profile_is_read(root):
    text = "common:\n  seed: 0\n02_first:\n  rate: 5.0e-4\n  names: [a, b]\n"
    (root / "params" / "mini.yaml").write_text(text)
    expected = {"common": {"seed": 0}, "02_first": {"rate": 5.0e-4, "names": ["a", "b"]}}
    assert load_profile("mini", root) == expected


def test_a_profile_sets_what_differs_from_the_one_it_extends(root):
    (root / "params" / "mini.yaml").write_text("common:\n  seed: 0\n02_first:\n  rate: 1\n  n: 2\n")
    (root / "params" / "full.yaml").write_text("extends: mini\n02_first:\n  n: 9\n")
    assert load_profile("full", root) == {"common": {"seed": 0}, "02_first": {"rate": 1, "n": 9}}


def test_profiles_that_extend_each_other_are_refused(root):
    for name, other in (("mini", "full"), ("full", "mini")):
        (root / "params" / f"{name}.yaml").write_text(f"extends: {other}\n")
    with pytest.raises(ConfigError, match="extends = 'mini': name another profile"):
        load_profile("mini", root)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("extends: mini", "extends = 'mini': name another profile"),
        ("extends: [mini]", "extends = ['mini']: name another profile"),
        ("02_fist:\n  a: 1", "no notebook is named '02_fist'; did you mean 02_first?"),
        ("02_first:\n  rate: 5e-4", "02_first.rate is the string '5e-4'; write 5.0e-4"),
        ("02_first:\n  rates: [1.0, 1e-3]", "02_first.rates[1] is the string '1e-3'"),
        ("02_first:\n  day: 2024-01-01", "02_first.day = 2024-01-01 is a date"),
        ("02_first: 3", "02_first = 3: expected a mapping"),
        ("- a", "expected a mapping of notebooks"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_faulty_profile_names_file_and_key(root, text, words):
    (root / "params" / "mini.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_profile("mini", root)
    assert words in str(caught.value)
    assert str(root / "params" / "mini.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["minj", "../params/mini"])
def test_an_unknown_profile_names_those_that_exist(root, name):
    (root / "params" / "mini.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"unknown profile '.*'; .*mini"):
        load_profile(name, root)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("5e-4", 5e-4),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ("phantom:chest/effusion", "phantom:chest/effusion"),
        ('"5"', "5"),
        ("[prostate", "[prostate"),
        ("a caption, with words", "a caption, with words"),
    ],
)
def test_values_typed_on_the_command_line(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_digests_tell_values_apart_and_nothing_else():
    values = [
        None,
        0,
        1,
        1.0,
        True,
        "1",
        "a",
        [],
        {},
        [1],
        {"a": 1},
        b"a",
        b"b",
        np.zeros(2),
        np.zeros(2, np.float32),
        np.zeros((1, 2)),
        np.ones(2),
    ]
    assert len({digest(value) for value in values}) == len(values)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(Settings(1, 2.0)) == digest(Settings(steps=1, rate=2.0))
    assert digest(Settings(1, 2.0)) != digest(Settings(2, 2.0))
    assert digest(np.arange(4).reshape(2, 2).T) == digest(np.array([[0, 2], [1, 3]]))
    assert digest(np.float64(0.1)) == digest(0.1)
    assert digest(Path("a/b")) == digest("a/b")
    with pytest.raises(TypeError, match="no digest for an object"):
        digest(object())


def test_digests_are_the_same_in_another_process():
    expression = "digest({'b': [1, 2.5, None, 'ü'], 'a': np.arange(3, dtype='<i4')})"
    code = f"import numpy as np; from lib.config import digest; print({expression})"
    there = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert {run.stdout.strip() for run in there} == {eval(expression)}


def test_resolve_looks_here_first_then_in_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.resolve("lib") == config.ROOT / "lib"
    (tmp_path / "lib").mkdir()
    assert config.resolve("lib") == tmp_path.resolve() / "lib"
    assert config.resolve(tmp_path) == tmp_path.resolve()
    monkeypatch.setattr(config, "ROOT", tmp_path.resolve())
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert config.resolve(".") == tmp_path.resolve()
    assert config.resolve("lib") == tmp_path.resolve() / "lib"


def test_a_path_is_found_from_the_root_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert located("models/mini") == ROOT / "models" / "mini" and located("nowhere") == Path("nowhere")
    (tmp_path / "models" / "mini").mkdir(parents=True)
    assert located("models/mini") == Path("models/mini")
