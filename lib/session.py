"""One command's notebooks, run in order: what each is told, how far they are, what came of it."""

import csv
import json
import os
import time
from pathlib import Path

from lib.config import ROOT, is_hub_id
from lib.notebooks import Job
from lib.progress import Listener, duration
from lib.runs import TIMINGS, atomic_write, locked, runs_root, timings
from lib.terminal import Estimate, Status, table


class Session:
    """One command: runs jobs in order, shows how far they are, and sums up."""

    def __init__(self, todo: list[Job], force: bool):
        self._jobs, self._rows = todo, {}
        self._since = time.time() if force else None
        known = timings()
        self._estimate = Estimate(
            {job.notebook.stem: job.notebook.cells for job in todo},
            {j.notebook.stem: known[_timing_name(j)] for j in todo if _timing_name(j) in known},
            seconds_elsewhere(todo[0].folder.name),  # the profile's name, or of what was changed in it: none
        )

    def run(self) -> None:
        """Raises what stops it: NotebookFailed, UserError, KeyboardInterrupt."""
        for number, job in enumerate(self._jobs, 1):
            self._label = f"[{number}/{len(self._jobs)}] {job.notebook.stem}"
            self._started, self._cell, self._listener = time.monotonic(), 0, None
            self._waits, self._cell_started = False, self._started
            try:
                with Status(lambda job=job: self._line(job)), locked(job.lock, self._wait):
                    status, files = self._finish(job)
            except BaseException as error:
                status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
                self._rows[job.notebook.stem] = (status, self._time(), "")
                raise
            shown = "\n".join(_short(path) for path in files)
            self._rows[job.notebook.stem] = (status, self._time(), shown)
            print(f"{self._label}  {status}  {self._time()}", flush=True)

    def _finish(self, job: Job) -> tuple[str, list[str]]:
        """ "read" or "done", and the notebook's files."""
        self._started = time.monotonic()  # not when it began to wait for another run
        files = None if self._since else job.finished()
        if files is not None:
            self._estimate.finish(job.notebook.stem, None)
            return "read", files
        files = job.execute(environment(job, self._since), self._listen, self._start_cell)
        seconds = time.monotonic() - self._started
        self._estimate.finish(job.notebook.stem, seconds)
        known = timings() | {_timing_name(job): round(seconds, 1)}
        atomic_write(runs_root() / TIMINGS, json.dumps(known, indent=1, sort_keys=True))
        return "done", files

    def _time(self) -> str:
        return duration(time.monotonic() - self._started)

    def summary(self) -> str:
        """The table of all notebooks: status, time, files."""
        stems = [job.notebook.stem for job in self._jobs]
        rows = [(stem, *self._rows.get(stem, ("not run", "", ""))) for stem in stems]
        folders = sorted({_short(job.folder) for job in self._jobs})
        return (
            table(("notebook", "status", "time", "files"), rows)
            + f"\nexecuted notebooks: {', '.join(folders)}"
        )

    @property
    def finished(self) -> bool:
        """Whether any notebook is done."""
        return any(status in ("done", "read") for status, *_ in self._rows.values())

    def _wait(self) -> None:
        self._waits = True

    def _listen(self, listener: Listener) -> None:
        self._listener = listener

    def _start_cell(self, number: int) -> None:
        self._cell, self._cell_started = number, time.monotonic()

    def _line(self, job: Job) -> str:
        """[2/4] 02_textual_inversion  cell 5/9  tumour 300/600  1:23, about 4:10 left"""
        elapsed, listener = time.monotonic() - self._started, self._listener
        if listener is None:
            return f"{self._label}  {'waiting for another run' if self._waits else 'starting'}"
        listener.poll()
        share = listener.step / listener.total if listener.total else 0.0
        in_cell = time.monotonic() - self._cell_started
        done = max(self._cell - 1, 0)
        left = self._estimate.left(job.notebook.stem, elapsed, done, in_cell, share)
        steps = f"  {listener.text} {listener.step}/{listener.total}" if listener.total else ""
        rest = "" if left is None else f", about {duration(left)} left"
        cell = f"cell {self._cell}/{job.notebook.cells}" if self._cell else "starting"
        return f"{self._label}  {cell}{steps}  {duration(elapsed)}{rest}"


def seconds_elsewhere(profile: str) -> dict[str, float]:
    """Notebook -> seconds of the run that benchmarks/run_all.py timed; of another profile, none."""
    path = ROOT / "results" / f"benchmark-run_all-{profile}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["what"].partition(": "), float(row["value"])) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError):
        return {}
    return {stem: 60 * minutes for (_, _, stem), minutes in rows if stem}


def _timing_name(job: Job) -> str:
    return f"{job.folder.name}/{job.notebook.stem}"


def _short(path: str | Path) -> str:
    """Relative to where the user is, if it lies below."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def listing(todo: list[Job]) -> str:
    """The notebooks of `todo` as a table: which are finished, and the minutes they last took."""
    known = timings()
    rows = []
    for job in todo:
        seconds = known.get(_timing_name(job))
        state = "to do" if job.finished() is None else "done"
        rows.append((job.notebook.stem, state, duration(seconds) if seconds else "", job.notebook.title))
    return table(("notebook", "status", "took", "title"), rows)


def environment(job: Job, since: float | None) -> dict[str, str]:
    """What the kernel is told: no network unless a hub id is named, what --force is to redo, and how many
    processes to train in where the profile says.
    """
    told = {} if since is None else {"MDB_FORCE_SINCE": repr(since)}
    if job.workers is not None:
        told["MDB_WORKERS"] = os.environ.get("MDB_WORKERS", str(job.workers))
    if any(is_hub_id(job.parameters.get(name)) for name in ("base", "weights")):
        return told
    return told | {"HF_HUB_OFFLINE": "1"}
