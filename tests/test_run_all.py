"""run_all.sh and lib.run_all, on throw-away notebooks: order, progress, resumption, errors."""

import asyncio
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
import pytest
from PIL import Image

from lib import notebooks
from lib.config import ROOT
from lib.options import parser
from lib.progress import Listener, OutputError, outputs, progress
from lib.run_all import jobs, main, select
from lib.runs import TIMINGS
from lib.session import Session, environment, seconds_elsewhere
from lib.terminal import Estimate, table

PARAMETERS = 'output = "nowhere"\ndataset = None\nsteps = 2  # updates\nrate = 0.1'
SETTINGS = """from dataclasses import dataclass
from pathlib import Path
from lib.config import Config
from lib.progress import outputs, progress
from lib.runs import cached

@dataclass(frozen=True)
class Parameters(Config):
    output: str
    dataset: str | None
    steps: int
    rate: float

it = Parameters.of(globals())
folder = Path(it.output)"""
WORK = """for step in range(it.steps):
    progress(step + 1, it.steps, "training")
path = folder / f"{NAME}.txt"
path.write_text(path.read_text() + "again" if path.exists() else "once")
outputs(path)"""


def write_notebook(path, *sources):
    cells = [nbformat.v4.new_markdown_cell(f"# About {path.stem}")]
    for source in (PARAMETERS, SETTINGS, *sources):
        cells.append(nbformat.v4.new_code_cell(source.replace("NAME", repr(path.stem))))
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with one profile and one good notebook, 01_good; runs are kept in its runs/."""
    for name in ("notebooks", "params", "out"):
        (tmp_path / name).mkdir()
    write_notebook(tmp_path / "notebooks" / "01_good.ipynb", WORK)
    (tmp_path / "params" / "mini.yaml").write_text(f"common:\n  output: {tmp_path / 'out'}\n")
    for name in ("JUPYTER_PATH", "PYDEVD_DISABLE_FILE_VALIDATION"):  # main sets them
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("MDB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(notebooks, "library_digest", lambda: "as it is")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(root, capfd):
    """Calls main: its exit status, what it printed, and what it said on stderr."""

    def call(*argv):
        status = main(argv, root)
        said = capfd.readouterr()
        return status, said.out, said.err

    return call


def test_what_is_done_is_read_until_something_changes(root, run):
    made = root / "out" / "01_good.txt"
    status, said, _ = run()
    assert status == 0
    assert made.read_text() == "once"
    assert "[1/1] 01_good  done" in said
    assert "out/01_good.txt" in said.splitlines()[-2]
    executed = nbformat.read(root / "runs" / "executed" / "mini" / "01_good.ipynb", 4)
    assert executed.cells[-1].outputs
    assert "01_good" in str(json.loads((root / "runs" / "timings.json").read_text()))
    assert not list((root / "runs").rglob("*partial*"))

    status, said, _ = run()
    assert (status, made.read_text()) == (0, "once")
    assert "01_good  read" in said

    status, said, _ = run("--list")
    assert status == 0
    assert "done" in said and "About 01_good" in said

    made.unlink()  # a file that it declared is gone
    assert run()[0] == 0
    assert made.read_text() == "once"

    assert run("--force")[0] == 0
    assert made.read_text() == "onceagain"

    assert run("-p", "steps", "3")[0] == 0
    assert made.read_text() == "onceagainagain"


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_what_changes_while_a_notebook_runs_is_done_again(root, run, monkeypatch, force):
    made = root / "out" / "01_good.txt"
    monkeypatch.setattr(notebooks, "library_digest", lambda: f"edited: {made.exists()}")
    assert run(*force)[0] == 0 and made.read_text() == "once"
    assert run()[0] == 0 and made.read_text() == "onceagain"


def test_a_notebook_is_told_of_the_cluster(root, run, monkeypatch):
    monkeypatch.setenv("MDB_CLUSTER", "")  # main sets it
    asked = 'import os\npath = folder / "it.txt"\npath.write_text(os.environ["MDB_CLUSTER"])\noutputs(path)'
    write_notebook(root / "notebooks" / "02_asked.ipynb", asked)
    assert run("--only", "02", "--cluster", "tcp://host:8786")[0] == 0
    assert (root / "out" / "it.txt").read_text() == "tcp://host:8786"


def test_a_notebook_that_fails_stops_the_run_and_is_named_with_its_cell(root, run):
    write_notebook(root / "notebooks" / "02_bad.ipynb", "a = 1", "a / 0")
    write_notebook(root / "notebooks" / "03_after.ipynb", WORK)
    status, said, error = run()
    assert status == 1
    last = error.strip().splitlines()[-1]
    assert last == "run_all.sh: 02_bad, code cell 4 of 4: ZeroDivisionError: division by zero"
    assert "Traceback" in error
    assert "\x1b" not in error
    rows = {line.split()[0]: line.split()[1] for line in said.splitlines() if line[:1] == "0"}
    assert rows == {"01_good": "done", "02_bad": "failed", "03_after": "not"}
    assert not (root / "out" / "03_after.txt").exists()
    assert (root / "runs" / "executed" / "mini" / "02_bad.ipynb").exists()


def test_bad_input_is_one_line_without_traceback(root, run):
    source = "from lib.errors import UserError\nclass DataError(UserError): ..."
    write_notebook(root / "notebooks" / "01_good.ipynb", source, "raise DataError('no a.png: add it')")
    status, said, error = run()
    assert (status, said) == (1, "")
    assert error == "run_all.sh: 01_good, code cell 4 of 4: DataError: no a.png: add it\n"


def test_a_value_of_the_wrong_type_is_one_line(run):
    status, _, error = run("-p", "steps", "many")
    assert status == 1
    expected = "code cell 2 of 3: ConfigError: parameter steps = 'many' is a str, not an int\n"
    assert error.endswith(expected)
    assert error.count("\n") == 1


def test_a_kernel_that_dies_is_named(root, run):
    write_notebook(root / "notebooks" / "01_good.ipynb", "import os; os._exit(1)")
    status, _, error = run()
    assert status == 1
    assert "01_good, code cell 3 of 3: its kernel died" in error.splitlines()[-1]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--profile", "minj"), "unknown profile 'minj'; did you mean mini?"),
        (("--only", "01,07"), "unknown notebook '07'; there is 01_good"),
        (("--only", "01_god"), "unknown notebook '01_god'; did you mean 01_good?"),
        (("--only", ","), "no notebook"),
        (("-p", "step", "3"), "no parameter 'step' in 01_good; did you mean steps?"),
        (("-p", "steps"), "-p: expected 2 arguments"),
        (("-p", "steps", "2024-01-01"), "-p steps = 2024-01-01 is a date"),
        (("-p", "steps", "{1: 2}"), "-p steps has the key 1: write it as a string"),
        (("--frce",), "unrecognized arguments: --frce"),
    ],
)
def test_an_unknown_name_is_one_line_and_status_2(run, argv, words):
    status, said, error = run(*argv)
    assert (status, said) == (2, "")
    assert words in error
    assert error.startswith("run_all.sh: ")
    assert error.count("\n") == 1


def test_a_parameter_of_the_profile_that_no_notebook_has_is_named(root, run):
    for text in ("01_good:\n  step: 3\n", "common:\n  step: 3\n"):
        (root / "params" / "mini.yaml").write_text(text)
        status, _, error = run()
        assert status == 2
        assert "has no parameter 'step'; did you mean steps?" in error
        assert "mini.yaml" in error
    (root / "params" / "mini.yaml").write_text("command:\n  worker: 1\n")
    assert run()[0] == 2 and "command has no parameter 'worker'; did you mean workers?" in run()[2]
    for value in ("two", "0", "true"):
        (root / "params" / "mini.yaml").write_text(f"command:\n  workers: {value}\n")
        assert run()[0] == 2 and "a number of processes, at least 1" in run()[2]


def test_a_file_that_is_no_notebook_is_named(root, run):
    (root / "notebooks" / "02_torn.ipynb").write_text('{"cells": [')
    status, _, error = run()
    assert status == 1
    assert "02_torn.ipynb is not a Jupyter notebook" in error
    assert error.count("\n") == 1


def test_what_the_command_line_means(root):
    for stem in ("00_zero", "91_extra"):
        write_notebook(root / "notebooks" / f"{stem}.ipynb", WORK)
    (root / "images" / "chest").mkdir(parents=True)

    def made(*typed, only=None):
        arguments = Namespace(profile="mini", only=only, p=[typed] if typed else [])
        return jobs(arguments, root)

    assert [job.notebook.stem for job in made()] == ["00_zero", "01_good"]
    assert [job.notebook.stem for job in made(only="91, 01_good")] == ["01_good", "91_extra"]
    for name in ("images", "./images", "../" + root.name + "/images/chest"):
        path = made("dataset", name)[0].parameters["dataset"]
        assert path == str(Path(name).resolve())
    assert made("dataset", "phantom:chest")[0].parameters["dataset"] == "phantom:chest"
    assert made("dataset", "./typo")[0].parameters["dataset"] == str(root / "typo")
    for name in ("scans #2", "#scans", "scans: new", "2021-05-03"):  # YAML would take them for something else
        (root / name).mkdir()
        assert made("dataset", name)[0].parameters["dataset"] == str(root / name)
    assert made("rate", "5e-4")[0].parameters["rate"] == 5e-4
    plain, changed = made()[0], made("steps", "3")[0]
    assert plain.folder != changed.folder  # neither overwrites what the other has done
    assert plain.digest != changed.digest
    assert plain.lock == changed.lock == made("dataset", "phantom:chest")[0].lock  # who write the same files
    assert len({plain.lock, made("output", "else")[0].lock, made("dataset", "images")[0].lock}) == 3
    one = made("dataset", "images")[0].digest
    (root / "images" / "a.png").write_bytes(b"a")
    assert made("dataset", "images")[0].digest != one


def test_a_change_of_what_computes_redoes_a_notebook_and_the_shell_does_not(root, monkeypatch):
    digests = set()
    for state in ("as it is", "as it is", "changed"):
        monkeypatch.setattr(notebooks, "library_digest", lambda state=state: state)
        digests.add(jobs(Namespace(profile="mini", only=None, p=[]), root)[0].digest)
    assert len(digests) == 2
    monkeypatch.undo()
    modules = {path.stem for path in (ROOT / "lib").glob("*.py")}
    assert modules > notebooks.SHELL
    named = []
    monkeypatch.setattr(notebooks, "code_digest", lambda *names, now: named.extend(names) or "")
    notebooks.library_digest.__wrapped__()
    assert set(named) == {f"lib.{module}" for module in modules - notebooks.SHELL}


def test_the_end_of_the_cell_that_was_interrupted_is_not_told(root, monkeypatch, capsys, caplog):
    async def cell():
        raise RuntimeError("the cell was interrupted")

    def interrupted(self):
        loop = asyncio.new_event_loop()
        self.task = loop.create_task(cell())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "run", interrupted)
    try:
        assert main([], root) == 130
        gc.collect()
    finally:
        logging.getLogger("asyncio").setLevel(logging.NOTSET)
    assert not caplog.records
    assert "interrupted; all finished work is kept" in capsys.readouterr().err
    assert main(["--force"], root) == 130
    assert "kept: without --force it goes on from there" in capsys.readouterr().err


def test_interrupted_and_run_again_it_goes_on(root):
    """Ctrl-C in the second notebook: exit status 130; the next run reads what was finished."""
    slow = """def make(place):
    (place / "x").write_text("x")
    with (folder / "made.txt").open("a") as log:
        print("made", file=log)
cached("things", 1, make)"""
    wait = """import time
for step in range(6000):
    progress(step, 6000, "waiting")
    if (folder / "go").exists(): break
    time.sleep(0.05)"""
    write_notebook(root / "notebooks" / "02_slow.ipynb", slow, wait, WORK)
    code = """import signal, sys
from pathlib import Path
from lib import notebooks, run_all
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell puts in the background
notebooks.library_digest = lambda: "as it is"
sys.exit(run_all.main(sys.argv[2:], Path(sys.argv[1])))"""
    command = [sys.executable, "-c", code, str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    reports = root / "runs" / "executed" / "mini" / ".02_slow.progress"
    deadline = time.monotonic() + 240
    while not (reports.exists() and "waiting" in reports.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, error = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "02_slow   interrupted" in said
    last = error.strip().splitlines()[-1]
    assert last == ("run_all.sh: interrupted; all finished work is kept: the same command goes on from there")
    (root / "out" / "go").touch()
    again = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert "01_good  read" in again.stdout
    assert "02_slow  done" in again.stdout
    assert (root / "out" / "01_good.txt").read_text() == "once"
    assert (root / "out" / "made.txt").read_text() == "made\n"


def test_reports_travel_line_by_line(tmp_path, monkeypatch):
    path = tmp_path / "reports"
    monkeypatch.setenv("MDB_PROGRESS", str(path))
    listener = Listener(path)
    listener.poll()
    assert listener.total == 0
    for step in range(1, 301):
        progress(step, 300, f"loss {step}")
    listener.poll()
    assert (listener.step, listener.total, listener.text) == (300, 300, "loss 300")
    assert len(path.read_text().splitlines()) < 50  # not one line a step
    with path.open("a") as file:
        file.write('{"step": 1, "tot')
    listener.poll()
    with path.open("a") as file:
        file.write('al": 2, "text": "b"}\n')
    listener.poll()
    assert (listener.step, listener.total, listener.text) == (1, 2, "b")
    with path.open("a") as file:
        file.write('{"step": 7, "to')  # torn by a full disk
    made = tmp_path / "a.png"
    made.write_text("a")
    outputs([made], str(made))
    listener.new_cell()
    assert listener.outputs == [str(made)]
    assert listener.total == 0
    with pytest.raises(OutputError, match="b.png is missing or empty"):
        outputs(made, tmp_path / "b.png")


def test_jupyterlab_shows_one_line_that_is_redrawn(root, monkeypatch):
    monkeypatch.delenv("MDB_PROGRESS", raising=False)
    source = "for step in range(1, 301):\n    progress(step, 300, 'loss')"
    write_notebook(root / "notebooks" / "01_good.ipynb", source)
    path = root / "notebooks" / "01_good.ipynb"
    done = papermill.execute_notebook(path, None, kernel_name="python3", progress_bar=False)
    (shown,) = done.cells[-1].outputs
    assert "300/300 loss" in shown["data"]["text/plain"]
    assert "█" * 20 in shown["data"]["text/plain"]


def test_after_an_interruption_the_time_left_is_told_by_what_was_done_since(monkeypatch):
    """A training that goes on from its checkpoint first tells of what it had: at once, and of a thousand."""
    shown, now = [], [100.0]
    handle = Namespace(update=lambda data, raw: shown.append(data["text/plain"]))
    monkeypatch.delenv("MDB_PROGRESS", raising=False)
    monkeypatch.setattr("IPython.get_ipython", object)
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: handle)
    monkeypatch.setattr("lib.progress.time.monotonic", lambda: now[0])
    progress(1, 1500, "from the beginning")
    for step in range(50, 1001, 50):
        now[0] += 0.001
        progress(step, 1500, "what it had")
    for step in range(1001, 1101):
        now[0] += 1
        progress(step, 1500, "anew")
    assert "1100/1500 anew  1:40, 6:40 left" in shown[-1]
    progress(1, 1500, "another loop")
    now[0] += 10
    progress(11, 1500, "another loop")
    assert "11/1500 another loop  0:10, 24:49 left" in shown[-1]


def test_an_hour_of_waiting_for_another_run_is_none_of_work(root, run, monkeypatch):
    clock, waited = time.monotonic, []
    monkeypatch.setattr("lib.session.time.monotonic", lambda: clock() + 3600 * len(waited))

    @contextmanager
    def slow(*_):
        waited.append(True)
        yield

    monkeypatch.setattr("lib.session.locked", slow)
    status, said, _ = run("--only", "01")
    assert status == 0 and json.loads((root / "runs" / TIMINGS).read_text())["mini/01_good"] < 3600


def test_the_time_left_comes_from_earlier_runs_or_from_what_is_done():
    known = Estimate({"a": 4, "b": 4}, {"a": 10.0, "b": 20.0}, {})
    assert known.left("a", 4.0, 1, 1.0, 0.0) == 26.0
    unknown = Estimate({"a": 4, "b": 4}, {}, {})
    assert unknown.left("a", 4.0, 0, 4.0, 0.0) is None
    # One cell took 2 s, half of the next takes 3 s: 3 s more for it, 2 s for each of the two after.
    assert unknown.left("a", 5.0, 1, 3.0, 0.5) == pytest.approx(7.0 + 12.0)
    assert unknown.left("a", 9.0, 2, 5.0, 0.0) is None  # a cell longer than any before it
    unknown.finish("a", 12.0)
    assert unknown.left("b", 3.0, 1, 0.0, 0.0) == pytest.approx(9.0)


def test_the_time_left_is_another_machines_at_this_ones_pace():
    found = Estimate({"a": 4, "b": 4, "c": 4}, {}, {"a": 10.0, "b": 20.0, "c": 60.0})
    assert found.left("a", 4.0, 1, 1.0, 0.0) == 86.0  # nothing is done: as fast as there
    found.finish("a", 30.0)
    assert found.left("b", 10.0, 1, 1.0, 0.0) == pytest.approx(50.0 + 180.0)
    # Longer than expected: a cell took 89 s, and so may the two after the one that it is in.
    assert found.left("b", 90.0, 1, 1.0, 0.0) == pytest.approx(266.0 + 60.0 * (30.0 + 90.0 + 266.0) / 30.0)
    assert found.left("b", 90.0, 1, 89.0, 0.0) is None
    partly = Estimate({"a": 4, "b": 4}, {}, {"a": 10.0})
    assert partly.left("a", 4.0, 0, 4.0, 0.0) is None


@pytest.mark.parametrize("profile", ["mini", "smoke"])
def test_the_default_notebooks_were_timed_elsewhere(profile):
    assert seconds_elsewhere(profile).keys() == {path.stem for path in select(ROOT / "notebooks", None)}
    assert min(seconds_elsewhere(profile).values()) > 0 and seconds_elsewhere("none") == {}


def test_a_table_has_columns():
    assert table(("a", "bb"), [("ccc", "d\ne"), ("f", "")]).splitlines() == [
        "a    bb",
        "---  --",
        "ccc  d",
        "     e",
        "f",
    ]


FAKE_PYTHON = """#!/usr/bin/env bash
echo "$*" >> "$LOG"
case "$*" in
    *"import hashlib"*) exec "$REAL" "$@" ;;
    *"pip install"*) echo "what pip says"; sleep "${PIP_TAKES:-0}"; [ -z "${BROKEN:-}" ] ;;
    *lib.run_all*) echo "ran ${*: -2}" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of run_all.sh with a .venv whose python only notes how it is called."""
    place = tmp_path / "a folder"
    (place / ".venv" / "bin").mkdir(parents=True)
    for name in ("run_all.sh", "pyproject.toml"):
        (place / name).write_bytes((ROOT / name).read_bytes())
    python = place / ".venv" / "bin" / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    return place


def shell(checkout, *argv, **environment):
    log = checkout / "log"
    log.unlink(missing_ok=True)
    environment = os.environ | {"LOG": str(log), "REAL": sys.executable} | environment
    done = subprocess.run(
        ["bash", str(checkout / "run_all.sh"), *argv],
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    return done, log.read_text() if log.exists() else ""


def test_run_all_sh_installs_once_and_again_when_the_requirements_change(checkout):
    done, calls = shell(checkout, "--only", "02")
    assert done.returncode == 0, done.stderr
    assert calls.count("pip install") == 1
    assert done.stdout.splitlines()[-1] == "ran --only 02"
    done, calls = shell(checkout, "-p", "two words")
    assert "pip install" not in calls
    assert done.stdout == "ran -p two words\n"
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("# another\n")
    assert shell(checkout)[1].count("pip install") == 1
    moved = checkout.rename(checkout.with_name("moved"))
    assert shell(moved)[1].count("pip install") == 1


def test_a_link_to_run_all_sh_runs_where_it_leads(checkout, tmp_path):
    other = tmp_path / "another project"
    (other / ".venv").mkdir(parents=True)
    (other / ".venv" / "precious").write_text("here")
    (other / "run_all.sh").symlink_to(checkout / "run_all.sh")
    done = subprocess.run(
        ["bash", str(other / "run_all.sh"), "--only", "02"],
        capture_output=True,
        text=True,
        env=os.environ | {"LOG": str(checkout / "log"), "REAL": sys.executable},
    )
    assert done.returncode == 0 and done.stdout.endswith("ran --only 02\n")
    assert [path.name for path in (other / ".venv").iterdir()] == ["precious"]


def test_of_two_at_once_one_installs(checkout):
    environment = os.environ | {"LOG": str(checkout / "log"), "REAL": sys.executable, "PIP_TAKES": "1"}
    both = [
        subprocess.Popen(["bash", str(checkout / "run_all.sh")], env=environment, stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [one.wait(timeout=60) for one in both] == [0, 0]
    calls = (checkout / "log").read_text()
    assert calls.count("pip install") == 1 and calls.count("lib.run_all") == 2


def test_an_output_that_cannot_be_written_is_told_before_any_work(root, run, monkeypatch):
    (root / "shut").mkdir(mode=0o500)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != root / "shut")  # root writes anywhere
    status, said, error = run("-p", "output", str(root / "shut" / "deeper"))
    assert (status, said) == (2, "") and "no folder that can be written to" in error


def test_an_output_that_is_a_file_is_told_before_any_work(root, run):
    (root / "file").write_text("")
    status, said, error = run("-p", "output", str(root / "file"))
    assert (status, said) == (2, "") and error.count("\n") == 1
    assert "no folder that can be written to" in error


@pytest.mark.parametrize("name", ["weights", "theirs", "tables", "pictures"])
def test_what_lies_in_a_folder_that_is_read_is_an_input(root, name):
    write_notebook(root / "notebooks" / "06_reads.ipynb", f'{name} = "folder"')
    (root / "folder").mkdir()
    notebook = notebooks.Notebook.load(root / "notebooks" / "06_reads.ipynb")
    digests = []
    for text in ("one", "two"):
        (root / "folder" / "file").write_text(text)
        digests.append(notebooks.Job(notebook, {name: str(root / "folder")}, root / "out").digest)
    assert digests[0] != digests[1]


def test_images_of_a_class_that_is_named_across_the_splits_are_an_input(root, run, monkeypatch):
    """`folder/tumour` is no folder, but `folder/train/tumour` and `folder/test/tumour` are."""
    write_notebook(root / "notebooks" / "06_reads.ipynb", 'dataset = "folder"')
    for split in ("train", "test"):
        (root / "folder" / split / "tumour").mkdir(parents=True)
    monkeypatch.chdir(root)
    digests = []
    for shade in (1, 2):
        Image.new("L", (8, 8), shade).save(root / "folder" / "train" / "tumour" / "a.png")
        typed = ["--only", "06", "-p", "dataset", "folder/tumour"]
        (job,) = jobs(parser().parse_args(typed), root)
        assert job.parameters["dataset"] == str(root / "folder" / "tumour")
        digests.append(job.digest)
    assert digests[0] != digests[1]
    for spec in ("phantom:chest", "typo", "folder/typo"):  # as they were typed
        (job,) = jobs(parser().parse_args(["--only", "06", "-p", "dataset", spec]), root)
        assert job.parameters["dataset"] == spec and job.digest


def test_help_needs_no_installation(checkout):
    for name in ("__init__.py", "errors.py", "options.py"):
        (checkout / "lib").mkdir(exist_ok=True)
        (checkout / "lib" / name).write_bytes((ROOT / "lib" / name).read_bytes())
    done, calls = shell(checkout, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: ./run_all.sh") and "--only" in done.stdout
    assert "pip install" not in calls


def test_an_installation_that_fails_shows_why_and_is_tried_again(checkout):
    done, calls = shell(checkout, BROKEN="1")
    assert done.returncode == 1
    assert "what pip says" in done.stderr
    assert "run_all.sh: the installation failed; its whole log is" in done.stderr
    assert "lib.run_all" not in calls
    done, calls = shell(checkout)
    assert done.returncode == 0
    assert "pip install" in calls


def test_without_a_recent_python_it_says_so(checkout, tmp_path):
    (checkout / ".venv" / "bin" / "python").unlink()
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "dirname", "mkdir", "readlink"):
        found = subprocess.run(["which", name], capture_output=True, text=True, check=True)
        (tools / name).symlink_to(found.stdout.strip())
    (tools / "python3").write_text("#!/bin/bash\nexit 1\n")  # an older one fails the question
    (tools / "python3").chmod(0o755)
    done, _ = shell(checkout, PATH=str(tools))
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed, and none was found" in done.stderr


def test_smoke_starts_no_other_processes_unless_told_to(monkeypatch):
    monkeypatch.delenv("MDB_WORKERS")
    smoke, mini = (jobs(parser().parse_args(["--profile", name]), ROOT)[0] for name in ("smoke", "mini"))
    assert environment(smoke, None)["MDB_WORKERS"] == "1" and "MDB_WORKERS" not in environment(mini, None)
    monkeypatch.setenv("MDB_WORKERS", "2")
    assert environment(smoke, None)["MDB_WORKERS"] == "2"


def test_a_kernel_is_told_what_force_is_to_redo():
    assert environment(Namespace(parameters={}, workers=None), 5.5)["MDB_FORCE_SINCE"] == "5.5"
    assert "MDB_FORCE_SINCE" not in environment(Namespace(parameters={}, workers=None), None)


@pytest.mark.parametrize(
    "told, offline",
    [
        ({"base": "models/mini"}, True),
        ({"base": "models/mini", "weights": None}, True),
        ({"base": "models/mini", "weights": 9}, True),  # of 07: numbers of another kind
        ({"base": "owner/name"}, False),
        ({"base": "models/mini", "weights": "microsoft/resnet-18"}, False),
    ],
)
def test_only_a_hub_id_opens_the_network(told, offline):
    assert ("HF_HUB_OFFLINE" in environment(Namespace(parameters=told, workers=None), None)) is offline
