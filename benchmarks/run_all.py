"""Minutes a notebook takes, and an unchanged rerun.

    python -m benchmarks.run_all [--profile mini] [--folder NEW]

Runs into a new folder, so that nothing that was made before is read; without --folder it is not kept.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from benchmarks.tables import row, save


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="mini")
    parser.add_argument("--folder", type=Path, help="a new folder for figures/, results/ and runs/")
    asked = parser.parse_args()
    profile, rows = asked.profile, []
    if asked.folder:
        asked.folder.mkdir(parents=True)
    with nullcontext(asked.folder.resolve()) if asked.folder else tempfile.TemporaryDirectory() as place:
        told = os.environ | {"MDB_RUNS": f"{place}/runs"}
        command = [sys.executable, "-m", "lib.run_all", "--profile", profile, "-p", "output", place]
        for text in ("from nothing", "unchanged, again"):
            started = time.perf_counter()
            subprocess.run(command, check=True, env=told)
            rows.append(row(f"{profile}, {text}", (time.perf_counter() - started) / 60, "minutes"))
        timings = json.loads((Path(place) / "runs" / "timings.json").read_text())
    for name, seconds in timings.items():
        rows.append(row(f"{profile}: {name.partition('/')[2]}", seconds / 60, "minutes"))
    save(f"run_all-{profile}", rows)


if __name__ == "__main__":
    main()
