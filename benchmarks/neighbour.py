"""What two jobs on the same cores cost each other: python -m benchmarks.neighbour [--pairs 3]

Draws eight pictures on all threads, in one process and in two at once: with threads that spin for as long as
they wait for each other, as torch's do, and with threads that soon sleep (lib/__init__.py), in turn.
"""

import argparse
import os
import subprocess
import sys
import time

from benchmarks.tables import row, save
from lib.base import load_base
from lib.config import ROOT
from lib.sampling import generate

FIRST = {"spin": "torch", "sleep": "lib"}  # what is imported first decides it
SETTINGS = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
REPEATS = 2  # drawings of a process


def seconds(n: int = 8, steps: int = 10) -> float:
    """Mean seconds of drawing n pictures, after a first drawing that does not count."""
    base = load_base("models/mini", "cpu")
    draw = {"guidance": 2.0, "sampler": "ddim", "seed": 0}
    generate(base, "a picture", n, steps=1, **draw)
    started = time.perf_counter()
    for _ in range(REPEATS):
        generate(base, "a picture", n, steps=steps, **draw)
    return (time.perf_counter() - started) / REPEATS


def measure(first: str, jobs: int) -> float:
    """Mean `seconds` of so many processes at once, which import `first` first."""
    program = f"import {first}; from benchmarks.neighbour import seconds; print(seconds())"
    command = [sys.executable, "-c", program]
    unset = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    started = [subprocess.Popen(command, cwd=ROOT, env=unset, **streams) for _ in range(jobs)]
    return sum(float(job.communicate()[0].split()[-1]) for job in started) / jobs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=3)
    pairs = parser.parse_args().pairs
    rows = []
    for jobs, place in ((1, "one job"), (2, "two jobs at once")):
        found = {way: [] for way in FIRST}
        for _ in range(pairs):
            for way, first in FIRST.items():
                found[way].append(measure(first, jobs))
        rows += [row(f"eight pictures, {place}: threads {way}", times, "s") for way, times in found.items()]
        ratios = [spin / sleep for spin, sleep in zip(*found.values(), strict=True)]
        rows.append(row(f"{place}: threads that spin / that sleep", ratios, "1"))
    save("neighbour", rows)


if __name__ == "__main__":
    main()
