"""Independent computations at once: on the cores of this machine, or on a Dask cluster.

A sweep is a list of functions of the base. What they make is kept in runs/ by digest, so that a sweep
which is interrupted goes on from what is there, whoever made it. No computation knows of another; how many
workers there are changes the last bits only, since it decides how many threads each has.

MDB_WORKERS    how many processes; unset: one a core, and one where the base is on an accelerator
MDB_CLUSTER    the address of a Dask scheduler, tcp://host:8786, whose workers have this repository; the first
               of them is waited for, a day at most
"""

import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import joblib

from lib.base import Base, load_base
from lib.errors import UserError
from lib.progress import progress

_loading = threading.Lock()  # a worker of several threads: transformers cannot load two models at a time
WAIT = 24 * 3600  # seconds in which a cluster's first worker comes: jobs wait in queues


class SweepError(UserError):
    """A number of workers, or a cluster, that cannot be used."""


def sweep(base: Base, calls: Sequence[Callable[[Base], Any]], text: str = "") -> list[Any]:
    """`[call(base) for call in calls]`, several at a time; what `call` is must be picklable.

    Workers load the base from where it was loaded; `text` names the calls to whoever watches. A single
    worker, a single call or a base that was not loaded from a folder or the hub: one after the other, here.
    Raises what a call raises, and SweepError.
    """
    address = os.environ.get("MDB_CLUSTER")
    n = min(workers(base), len(calls)) if base.source else 1
    if len(calls) < 2 or not base.source or (n < 2 and not address):
        return [call(base) for call in calls]
    results: list[Any] = [None] * len(calls)
    parent = None if address else os.getpid()
    told = {name: os.environ.get(name) for name in ("MDB_RUNS", "MDB_FORCE_SINCE")}
    with _cluster(address) if address else _processes(n), warnings.catch_warnings():
        # loky replaces a worker that has grown by 300 MB, as one that fine-tunes a U-Net does, and warns.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        known = base.source, str(base.device), base.dtype, base.digest
        jobs = (joblib.delayed(_work)(i, call, told, parent, known) for i, call in enumerate(calls))
        progress(0, len(calls), text)
        finished = joblib.Parallel(return_as="generator_unordered", pre_dispatch="all")(jobs)
        for done, (i, result) in enumerate(finished, 1):
            results[i] = result
            progress(done, len(calls), text)
    return results


def workers(base: Base) -> int:
    """Processes on this machine. Raises SweepError for MDB_WORKERS that is no number of them."""
    asked = os.environ.get("MDB_WORKERS")
    if asked is None:
        return joblib.cpu_count() if base.device.type == "cpu" else 1
    if not asked.isdigit() or int(asked) < 1:
        raise SweepError(f"MDB_WORKERS = {asked!r}: a number of processes, at least 1")
    return int(asked)


def _processes(n: int):
    threads = max(1, joblib.cpu_count() // n)
    # Large arrays are shared between processes; "c": torch warns of arrays that cannot be written.
    return joblib.parallel_config("loky", n_jobs=n, inner_max_num_threads=threads, mmap_mode="c")


@contextmanager
def _cluster(address: str):
    try:
        from distributed import Client
    except ImportError as error:
        raise SweepError(
            f"the cluster {address} needs dask: .venv/bin/pip install --editable '.[cluster]'"
        ) from error
    try:
        client = Client(address, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise SweepError(f"no Dask scheduler answers at {address}: start one, or leave it out") from error
    with client:
        if not client.ncores():
            progress(0, 1, f"waiting for a worker of {address}")
            try:
                client.wait_for_workers(1, timeout=WAIT)
            except TimeoutError as error:
                raise SweepError(f"no worker came to the cluster {address} in {WAIT / 3600:.0f} h") from error
        with joblib.parallel_config("dask", client=client):
            yield


def _work(i, call, told, parent, known):
    if parent is not None:
        _die_with(parent)
    os.environ.pop("MDB_PROGRESS", None)  # the one that sweeps reports
    for name, value in told.items():  # a worker may be older than what this process was told
        os.environ.pop(name, None)
        os.environ.update({} if value is None else {name: value})
    with _loading:
        base = _loaded(*known)
    return i, call(base)


@lru_cache(1)
def _die_with(parent: int) -> None:
    """Ends this worker when its parent is gone: killed, that cannot stop what it started."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@lru_cache(1)
def _loaded(source: str, device: str, dtype: Any, digest: str) -> Base:
    base = load_base(source, device, dtype)
    if base.digest != digest:
        raise SweepError(
            f"{source}: a worker finds another model there, or a copy with other dates: give all workers the "
            "same folder, or copy it with its dates (rsync -a)"
        )
    return base
