"""lib.runs: artefacts are whole and marked, or not there; a full disk is named."""

import errno
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import time

import pytest

from lib import runs
from lib.base import load_base
from lib.config import ROOT
from lib.datasets import load_images
from lib.embedding import Embedding
from lib.errors import UserError
from lib.runs import DiskFullError, Run, atomic_write, cached, code_digest, path_digest


def test_a_finished_run_is_read_by_the_next(tmp_path):
    made = []

    def make(folder):
        made.append(1)
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text("a")

    folders = {cached("things", {"k": 1}, make, root=tmp_path) for _ in range(2)}
    (folder,) = folders
    assert made == [1]
    assert (folder / "sub" / "a.txt").read_text() == "a"
    marker = json.loads((folder / "done.json").read_text())
    assert marker["key"] == {"k": 1}
    assert marker["files"] == {"sub/a.txt": 1}
    assert cached("things", {"k": 2}, make, root=tmp_path) != folder


def test_the_environment_names_the_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MDB_RUNS", str(tmp_path / "elsewhere"))
    folder = cached("things", 1, lambda folder: None)
    assert folder.is_relative_to(tmp_path / "elsewhere" / "things")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="name another folder in the environment variable MDB_RUNS"):
        cached("part", {}, lambda folder: None, tmp_path / "file" / "runs")


def test_what_raises_leaves_nothing(tmp_path):
    run = Run(tmp_path, "things", 1)
    with pytest.raises(KeyboardInterrupt), run.writing() as folder:
        (folder / "half").write_text("a")
        raise KeyboardInterrupt
    assert not run.done
    assert not run.folder.exists()
    assert [path.suffix for path in run.folder.parent.iterdir()] == [".lock"]


def test_a_killed_writer_leaves_nothing_to_read_and_can_be_followed(tmp_path):
    run = Run(tmp_path, "things", 1)
    process = multiprocessing.get_context("fork").Process(target=_die_writing, args=(run,))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert not run.done
    assert any(run.folder.parent.rglob("half"))
    folder = cached("things", 1, lambda folder: (folder / "whole").write_text("a"), root=tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["done.json", "whole"]
    assert not any(run.folder.parent.rglob("half"))


def _die_writing(run):
    with run.writing() as folder:
        (folder / "half").write_text("a")
        os._exit(9)


def test_a_damaged_run_is_done_again(tmp_path):
    folder = cached("things", 1, lambda folder: (folder / "a").write_text("abc"), root=tmp_path)
    run = Run(tmp_path, "things", 1)
    assert run.done
    (folder / "a").write_text("ab")
    assert not run.done
    cached("things", 1, lambda folder: (folder / "a").write_text("abc"), root=tmp_path)
    assert run.done
    (folder / "done.json").write_text("{")
    assert not run.done


def test_scratch_outlives_an_interruption_and_goes_with_success(tmp_path):
    run = Run(tmp_path, "things", 1)
    atomic_write(run.scratch / "checkpoint", b"1")
    with pytest.raises(RuntimeError), run.writing():
        raise RuntimeError("interrupted")
    assert (run.scratch / "checkpoint").exists()
    with run.writing():
        pass
    assert not run.scratch.exists()


def test_force_redoes_each_run_once(tmp_path, monkeypatch):
    made = []
    cached("things", 1, lambda folder: made.append(1), root=tmp_path)
    monkeypatch.setenv("MDB_FORCE_SINCE", repr(time.time()))
    for _ in range(3):
        cached("things", 1, lambda folder: made.append(1), root=tmp_path)
    assert made == [1, 1]


def test_of_two_processes_one_makes_and_the_other_reads(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_make_slowly, args=(tmp_path, i)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len((tmp_path / "made").read_text().splitlines()) == 1
    assert len(list((tmp_path / "things").glob("[!.]*"))) == 1


def _make_slowly(root, number):
    def make(folder):
        with (root / "made").open("a") as log:
            log.write(f"{number}\n")
        for part in range(5):
            (folder / f"{part}").write_text(str(number))
            time.sleep(0.02)

    folder = cached("things", 1, make, root=root)
    assert len({(folder / f"{part}").read_text() for part in range(5)}) == 1


def test_atomic_write_replaces_whole_files_only(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    atomic_write(path, "one")
    assert atomic_write(path, lambda temporary: temporary.write_text("two")) == path
    assert path.read_text() == "two"

    def fail(temporary):
        assert temporary.suffix == ".txt"
        assert temporary.parent == path.parent
        temporary.write_text("thr")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        atomic_write(path, fail)
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def _fill(path):
    """Writes to a device that is always full."""
    path.write_bytes(b"some of it")
    with open("/dev/full", "wb", buffering=0) as device:
        device.write(b"a")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line_and_keeps_what_was_done(tmp_path):
    done = cached("things", 1, lambda folder: (folder / "a").write_text("a"), root=tmp_path)
    with pytest.raises(DiskFullError) as caught:
        cached("things", 2, lambda folder: _fill(folder / "a"), root=tmp_path)
    folder = Run(tmp_path, "things", 2).folder
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    assert (done / "a").read_text() == "a"
    with pytest.raises(DiskFullError, match="MDB_RUNS"):
        atomic_write(tmp_path / "file", _fill)
    assert not list(tmp_path.glob("*file*"))


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), False),
        (OSError(errno.EACCES, "no permission"), False),
    ],
)
def test_what_counts_as_a_full_disk(tmp_path, error, full):
    assert runs.is_disk_full(error, tmp_path / "not" / "there") is full


def test_code_digest_sees_code_and_not_comments(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "some_code_to_digest.py"
    digests = []
    for text in ("a = 1\n", "# why\na  =  1\n", "a = 2\n"):
        source.write_text(text)
        digests.append(code_digest("some_code_to_digest"))
    assert digests[0] == digests[1] != digests[2]
    assert code_digest("lib.runs") != code_digest("lib.runs", "lib.config")


def test_code_digest_of_lib_is_of_what_runs_and_not_of_what_was_edited_since(tmp_path):
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    program = """
from pathlib import Path
from lib.runs import code_digest
before, path = code_digest("lib.auc"), Path("lib/auc.py")
path.write_text(path.read_text() + "ADDED = 1\\n")
assert code_digest("lib.auc") == before != code_digest("lib.auc", now=True)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_a_full_disk_is_told_alike_by_a_worker():
    error = DiskFullError("/data/runs")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_what_is_not_unicode_and_what_cannot_be_read_stop_nothing(tmp_path, monkeypatch):
    name = os.fsdecode(b"scan-\xe9.png")
    assert atomic_write(tmp_path / "table.csv", name).read_bytes() == b"scan-\xe9.png"
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(b"a")
    whole = path_digest(tmp_path / "set")

    def refuse(path):
        raise PermissionError(path)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "read_bytes", refuse)
        assert path_digest(tmp_path / "set") != whole


def test_path_digest_follows_links_and_ends_where_they_go_round(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "set" / "normal").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "round").symlink_to(tmp_path / "set")
    before = path_digest(tmp_path / "set")
    (tmp_path / "real" / "a.png").write_bytes(b"1")
    assert path_digest(tmp_path / "set") != before


def test_path_digest_follows_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = path_digest(tmp_path)
    os.utime(tmp_path / "a", (0, 0))
    assert path_digest(tmp_path) == first
    (tmp_path / "a").write_text("2")
    assert path_digest(tmp_path) != first
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = path_digest(tmp_path)
    (tmp_path / "b").write_text("1")
    assert path_digest(tmp_path) not in (first, renamed)


def test_a_file_system_that_locks_no_files_is_one_line(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(UserError, match="its file system locks no files .No locks available.: name another"):
        cached("things", 1, lambda folder: None, tmp_path)


def test_a_home_of_nobody_is_a_folder_that_is_not_there():
    for read in (lambda: load_base("~nosuchuser/models"), lambda: load_images("~nosuchuser/images")):
        with pytest.raises(UserError, match="~nosuchuser"):
            read()
    with pytest.raises(UserError, match="~nosuchuser"):
        Embedding.load("~nosuchuser/file.safetensors")
