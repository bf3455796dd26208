"""Sweeps give the same however they are run, and nothing that was finished is done again."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from functools import partial

import joblib
import pandas as pd
import pytest
import torch

from lib.artefacts import trained
from lib.base import load_base
from lib.config import ROOT
from lib.datasets import load_images
from lib.inversion import InversionSettings
from lib.pipelines import BaseError
from lib.runs import runs_root
from lib.sweep import SweepError, _loaded, sweep, workers

SETTINGS = InversionSettings("<x>", vectors=2, steps=3, batch_size=2, record_every=1)


def calls():
    images = load_images("phantom:chest/healthy", 4)
    return [partial(trained, images=images, settings=replace(SETTINGS, seed=seed)) for seed in range(3)]


def pid(base, n):
    return os.getpid(), n, torch.get_num_threads()


def test_the_order_is_that_of_the_calls(base, monkeypatch):
    monkeypatch.setenv("MDB_WORKERS", "2")
    found = sweep(base, [partial(pid, n=n) for n in range(6)])
    assert [n for _, n, _ in found] == list(range(6))
    assert os.getpid() not in {process for process, *_ in found}
    assert {threads for *_, threads in found} == {max(1, joblib.cpu_count() // 2)}


def test_two_workers_give_what_one_gives(base, tmp_path, monkeypatch):
    found = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, joblib.cpu_count() // 2))  # as each of two workers has
    for n in ("1", "2"):
        monkeypatch.setenv("MDB_RUNS", str(tmp_path / n))
        monkeypatch.setenv("MDB_WORKERS", n)
        found[n] = sweep(base, calls())
    torch.set_num_threads(threads)
    for one, other in zip(found["1"], found["2"], strict=True):
        assert torch.equal(one.embedding.vectors, other.embedding.vectors)
        assert one.records.loss.tolist() == other.records.loss.tolist()
    assert not torch.equal(found["1"][0].embedding.vectors, found["1"][1].embedding.vectors)


def test_what_is_finished_is_not_done_again(base, runs_folder, monkeypatch):
    monkeypatch.setenv("MDB_WORKERS", "2")
    first = sweep(base, calls()[:2])
    marks = {path: path.stat().st_mtime_ns for path in runs_folder.rglob("done.json")}
    again = sweep(base, calls())
    assert [run.seconds for run in again[:2]] == [run.seconds for run in first]
    assert len(marks) == 2 and all(path.stat().st_mtime_ns == mark for path, mark in marks.items())


def test_a_worker_that_is_replaced_is_no_news(base, monkeypatch, recwarn):
    """loky warns of one that has grown by 300 MB; others' warnings are let through."""

    class Replaced(joblib.Parallel):
        def __call__(self, jobs):
            warnings.warn("A worker stopped while some jobs were given to the executor.", stacklevel=2)
            warnings.warn("something else", stacklevel=2)
            return iter([(i, i) for i, _ in enumerate(jobs)])

    monkeypatch.setenv("MDB_WORKERS", "2")
    monkeypatch.setattr(joblib, "Parallel", Replaced)
    assert sweep(base, [partial(pid, n=n) for n in range(2)]) == [0, 1]
    assert [str(w.message) for w in recwarn] == ["something else"]


def note_and_sleep(base, n):
    (runs_root() / f"{os.getpid()}.pid").touch()
    time.sleep(600)


def alive(number):
    psutil = pytest.importorskip("psutil")  # ipykernel brings it
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_workers_do_not_outlive_who_started_them(runs_folder):
    """Killed, a run leaves nobody behind who would hold its locks and its cores."""
    runs_folder.mkdir()
    code = (
        "from functools import partial\nfrom lib.base import load_base\nfrom lib.sweep import sweep\n"
        "from test_sweep import note_and_sleep\n"
        "sweep(load_base('models/mini', 'cpu'), [partial(note_and_sleep, n=n) for n in (0, 1)])"
    )
    told = os.environ | {"MDB_WORKERS": "2", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    run = subprocess.Popen([sys.executable, "-c", code], env=told, cwd=ROOT)
    until = time.monotonic() + 240
    while len(started := list(runs_folder.glob("*.pid"))) < 2:
        assert time.monotonic() < until and run.poll() is None
        time.sleep(0.2)
    run.kill()
    run.wait()
    until = time.monotonic() + 60
    while any(alive(int(path.stem)) for path in started):
        assert time.monotonic() < until, "a worker is still there"
        time.sleep(0.2)


def fail(base, path):
    load_base(path)


def test_an_error_is_raised_as_it_was(base, monkeypatch):
    monkeypatch.setenv("MDB_WORKERS", "2")
    with pytest.raises(BaseError, match="nowhere/at/all"):
        sweep(base, [partial(fail, path="nowhere/at/all")] * 2)


@pytest.mark.parametrize("asked", ["0", "many", "-1", "1.5"])
def test_a_number_of_workers_is_one(base, monkeypatch, asked):
    monkeypatch.setenv("MDB_WORKERS", asked)
    with pytest.raises(SweepError, match="MDB_WORKERS"):
        workers(base)


def test_a_cluster_that_is_not_there_is_named(base, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setenv("MDB_CLUSTER", "tcp://127.0.0.1:9")
    with pytest.raises(SweepError, match="127.0.0.1:9"):
        sweep(base, [partial(pid, n=n) for n in range(2)])


@pytest.fixture
def cluster(runs_folder, monkeypatch):
    """Two worker processes of one thread each, and the sweep told of them."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as made:
        monkeypatch.setenv("MDB_CLUSTER", made.scheduler_address)
        yield made


def test_a_killed_worker_of_a_cluster_costs_only_what_it_was_at(base, cluster, runs_folder, monkeypatch):
    """Six trainings, one of two workers killed after the second: the same table, nothing finished redone."""
    images = load_images("phantom:chest/healthy", 4)
    longer = replace(SETTINGS, steps=12)
    many = [partial(trained, images=images, settings=replace(longer, seed=seed)) for seed in range(6)]
    marks = {}

    def kill():
        # A folder that is still being written has a hidden name.
        while len(done := list(runs_folder.glob("*/[!.]*/done.json"))) < 2:
            time.sleep(0.02)
        marks.update({path: path.stat().st_mtime_ns for path in done})
        os.kill(cluster.workers[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    found = sweep(base, many)
    killer.join(timeout=60)
    assert 2 <= len(marks) < 6
    assert all(path.stat().st_mtime_ns == mark for path, mark in marks.items())
    assert len(list(runs_folder.rglob("done.json"))) == 6
    monkeypatch.delenv("MDB_CLUSTER")
    monkeypatch.setenv("MDB_RUNS", str(runs_folder.parent / "local"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    local = sweep(base, many)
    torch.set_num_threads(threads)
    for one, other in zip(found, local, strict=True):
        assert torch.equal(one.embedding.vectors, other.embedding.vectors)
        timed = ["seconds"]
        pd.testing.assert_frame_equal(one.records.drop(columns=timed), other.records.drop(columns=timed))


def test_a_cluster_whose_workers_wait_in_a_queue_is_waited_for(base, runs_folder, monkeypatch):
    """The one that comes has two threads, which ask for the model at once."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    calls = [partial(pid, n=n) for n in range(2)]
    with distributed.LocalCluster(
        n_workers=0, threads_per_worker=2, processes=True, dashboard_address=None
    ) as made:
        monkeypatch.setenv("MDB_CLUSTER", made.scheduler_address)
        monkeypatch.setattr("lib.sweep.WAIT", 0.2)
        with pytest.raises(SweepError, match="no worker came to the cluster"):
            sweep(base, calls)
        monkeypatch.setattr("lib.sweep.WAIT", 120)
        threading.Timer(1.0, made.scale, (1,)).start()
        assert [n for _, n, _ in sweep(base, calls)] == [0, 1]


def test_a_worker_that_would_compute_with_another_model_says_so(base):
    assert _loaded(base.source, "cpu", base.dtype, base.digest).digest == base.digest
    with pytest.raises(SweepError, match="a worker finds another model there"):
        _loaded(base.source, "cpu", base.dtype, "of another")
