"""Where benchmarks leave what they measured, for the table in README: results/benchmark-<name>.csv.

On a machine with a GPU that is benchmark-<name>-gpu.csv, beside what a CPU gave.
"""

import datetime
import platform
import resource
from pathlib import Path

import diffusers
import numpy as np
import pandas as pd
import torch

from lib.config import ROOT


def row(what: str, values, unit: str) -> dict:
    """One line: the median of the repetitions `values`, and their range."""
    values = np.atleast_1d(np.asarray(values, float))
    shown = {"value": np.median(values), "low": values.min(), "high": values.max()}
    return (
        {"what": what} | {k: float(f"{v:.4g}") for k, v in shown.items()} | {"n": len(values), "unit": unit}
    )


def save(name: str, rows: list[dict], folder: Path = ROOT / "results", prefix: str = "") -> pd.DataFrame:
    """Writes rows of `row` with the machine, the versions and the day, prints and returns them.

    prefix: they take the place of this machine's whose names begin so; an earlier table's others stay.
    """
    versions = {module.__name__: module.__version__ for module in (torch, diffusers)}
    where = {"machine": machine(), **versions, "python": platform.python_version()}
    name += "-gpu" if torch.cuda.is_available() else ""
    table = pd.DataFrame(rows).assign(**where, date=datetime.date.today().isoformat())
    folder.mkdir(parents=True, exist_ok=True)
    path, kept = folder / f"benchmark-{name}.csv", []
    if path.is_file():
        earlier = pd.read_csv(path)
        replaced = earlier.what.str.startswith(prefix) & (earlier.machine == where["machine"])
        kept = [earlier[~replaced]]
    pd.concat([*kept, table], ignore_index=True).to_csv(path, index=False)
    print(table.drop(columns=[*where, "date"]).to_string(index=False))
    return table


def peak_memory(device: torch.device) -> float:
    """MB that this process had at most; on a GPU what torch reserved there, which a card must have."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def machine() -> str:
    """The accelerator, or the processor and how many of its threads torch uses."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpu = platform.processor() or platform.machine()
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        names = [
            line.partition(":")[2].strip() for line in listed.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    return f"{cpu}, {torch.get_num_threads()} threads"
