"""Minutes a notebook takes, and an unchanged rerun.

    python -m benchmarks.run_all [--profile mini] [--folder NEW | --done]

Runs into a new folder, so that nothing that was made before is read; without --folder it is not kept. With
--done it times the rerun alone, and takes the minutes from the run that was made here, from nothing and
without an interruption.
"""

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from benchmarks.tables import row, save
from lib.runs import TIMINGS, runs_root


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="mini")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--folder", type=Path, help="a new folder for figures/, results/ and runs/")
    where.add_argument("--done", action="store_true", help="./run_all.sh was run here: time it again alone")
    asked = parser.parse_args()
    if asked.done:
        minutes, again = timed_notebooks(runs_root(), f"{asked.profile}/*"), run(asked.profile)
        first = sum(minutes.values())
    else:
        if asked.folder:
            asked.folder.mkdir(parents=True)
        with nullcontext(asked.folder.resolve()) if asked.folder else tempfile.TemporaryDirectory() as place:
            told = {"MDB_RUNS": f"{place}/runs"}
            first, again = (run(asked.profile, "-p", "output", place, **told) for _ in range(2))
            minutes = timed_notebooks(Path(place) / "runs", f"{asked.profile}-*/*")
    rows = [
        row(f"{asked.profile}, from nothing", first, "minutes"),
        row(f"{asked.profile}, unchanged, again", again, "minutes"),
        *(row(f"{asked.profile}: {stem}", taken, "minutes") for stem, taken in minutes.items()),
    ]
    save(f"run_all-{asked.profile}", rows)


def run(profile: str, *options: str, **told: str) -> float:
    """Minutes of one run."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "lib.run_all", "--profile", profile, *options]
    subprocess.run(command, check=True, env=os.environ | told)
    return (time.perf_counter() - started) / 60


def timed_notebooks(runs: Path, pattern: str) -> dict[str, float]:
    """Notebook -> minutes of its last execution, of those named by a pattern in a runs/ folder's timings."""
    found = json.loads((runs / TIMINGS).read_text(encoding="utf-8"))
    return {Path(name).name: found[name] / 60 for name in fnmatch.filter(found, pattern)}


if __name__ == "__main__":
    main()
