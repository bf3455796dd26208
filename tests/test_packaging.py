"""The repository as a package: dependencies, environment, notebooks and licence agree."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import lib
from lib.config import ROOT, load_profile
from lib.notebooks import Notebook

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REQUIRED = PROJECT["project"]["dependencies"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
PROFILES = sorted(path.stem for path in (ROOT / "params").glob("*.yaml"))
#: What is imported under another name than it is installed by, or comes with another package.
DISTRIBUTIONS = {
    "IPython": "ipykernel",
    "PIL": "pillow",
    "huggingface_hub": "huggingface-hub",
    "nbformat": "papermill",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def name_of(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9_.-]+", requirement).group().lower()


def code_of(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def imports(*folders: str) -> set[str]:
    """Names of the distributions that the code of these folders imports."""
    sources = [p.read_text(encoding="utf-8") for f in folders for p in (ROOT / f).rglob("*.py")]
    if "notebooks" in folders:
        magic = re.compile(r"^\s*[%!].*$", re.MULTILINE)
        sources += [magic.sub("", code) for path in NOTEBOOKS for code in code_of(path)]
    modules = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module.split(".")[0])
    ours = {"lib", "benchmarks", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    foreign = modules - set(sys.stdlib_module_names) - ours
    return {DISTRIBUTIONS.get(module, module).lower() for module in foreign}


def test_every_dependency_is_used_or_says_why_it_is_there():
    used = imports("lib", "notebooks", "benchmarks", "tests")
    reasons = PROJECT["tool"]["dependency-reasons"]
    everything = {name_of(r) for r in [*REQUIRED, *sum(EXTRAS.values(), [])]}
    assert everything - used - set(reasons) == set()
    assert set(reasons) - everything == set(), "a reason for what is no dependency"
    assert set(reasons) & used == set(), "imported, so no reason is needed"


def test_everything_imported_is_a_dependency():
    required = {name_of(requirement) for requirement in REQUIRED}
    optional = {name_of(requirement) for requirement in EXTRAS["cluster"]}  # asked for by name, see lib.sweep
    assert imports("lib", "notebooks") - required == optional
    everything = required | {name_of(r) for r in sum(EXTRAS.values(), [])}
    assert imports("tests", "benchmarks") - everything == set()


def test_versions_are_pinned():
    for requirement in [*REQUIRED, *sum(EXTRAS.values(), [])]:
        assert re.fullmatch(r"[a-z0-9-]+==\d+\.\d+\.(\*|\d+)", requirement), requirement


def test_environment_yml_agrees_with_pyproject():
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = content["dependencies"]
    assert content["name"] == PROJECT["project"]["name"]
    assert f"python{PROJECT['project']['requires-python']}" in conda
    assert sorted(pip["pip"]) == sorted([*REQUIRED, *EXTRAS["dev"], "-e ."])


def test_licence_and_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == PROJECT["project"]["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    paper = citation["preferred-citation"]
    assert paper["url"].endswith("2303.13430")
    families = [author["family-names"] for author in paper["authors"]]
    assert families == ["Wilde", "Saha", "Rooij", "Broek", "Huisman", "Litjens"]


def test_import_of_lib_is_cheap():
    code = "import sys, lib; print(len(set(sys.modules) & {'torch', 'numpy', 'diffusers'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
    assert set(lib.__all__) <= set(dir(lib))


@pytest.mark.parametrize(
    "given, found",
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_that_wait_soon_sleep_unless_the_user_says_otherwise(monkeypatch, given, found):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    program = "import lib, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == found, done.stderr


@pytest.mark.parametrize("name", lib.__all__)
def test_every_public_name_is_there(name):
    assert callable(getattr(lib, name))


def public(tree, prefix=""):
    """(name, node) of what a module or a class shows."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{prefix}{node.name}.")


@pytest.mark.parametrize("path", sorted((ROOT / "lib").glob("*.py")), ids=lambda path: path.stem)
def test_what_is_public_says_what_it_is(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert [name for name, node in public(tree) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_set_parameters_that_exist(profile):
    content = load_profile(profile)
    known = {path.stem: set(Notebook.load(path).parameters) for path in NOTEBOOKS}
    known |= {"common": set().union(*known.values()), "command": {"workers"}}
    for stem, values in content.items():
        assert set(values) <= known[stem]


def test_these_profiles_are_there():
    assert PROFILES == ["full", "mini", "rehearsal", "sd2", "smoke"]


def test_a_rehearsal_goes_through_every_notebook_of_sd2():
    own = yaml.safe_load((ROOT / "params" / "rehearsal.yaml").read_text(encoding="utf-8"))
    assert own["extends"] == "sd2" and set(own) - {"extends"} == set(load_profile("sd2"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_is_without_output(self, path):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            assert not cell.get("outputs"), cell["source"]
            assert cell.get("execution_count") is None
            assert "papermill" not in cell["metadata"]
        assert not {"papermill", "widgets"} & set(notebook["metadata"])

    def test_names_the_kernel_python3(self, path):
        metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
        assert metadata["kernelspec"]["name"] == "python3"

    def test_has_one_parameters_cell_of_literals_and_it_is_the_first(self, path):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        tagged = ["parameters" in cell["metadata"].get("tags", []) for cell in code]
        assert tagged == [True] + [False] * (len(code) - 1)
        for statement in ast.parse("".join(code[0]["source"])).body:
            assert isinstance(statement, ast.Assign), ast.unparse(statement)
            ast.literal_eval(statement.value)
        assert ".of(globals())" in "".join(code[1]["source"])

    def test_runs_by_hand_as_run_all_runs_it(self, path):
        """The defaults are those of params/mini.yaml, so that JupyterLab reads what was made already."""
        mini = yaml.safe_load((ROOT / "params" / "mini.yaml").read_text(encoding="utf-8"))
        wanted = mini["common"] | mini.get(path.stem, {})
        for statement in ast.parse(code_of(path)[0]).body:
            name = statement.targets[0].id
            if name in wanted:
                assert ast.literal_eval(statement.value) == wanted[name], name

    def test_is_short_and_neither_installs_nor_edits_the_path(self, path):
        code = code_of(path)
        assert sum(len(cell.splitlines()) for cell in code) <= 150
        for banned in ("sys.path", "pip install", "!pip", "%pip"):
            assert banned not in "\n".join(code)
