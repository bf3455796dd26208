"""What tests share: the committed base, and a runs/ folder of their own."""

import os

import pytest
import torch

from lib.base import load_base

os.environ.setdefault("MDB_WORKERS", "1")  # the tests are on every core already
for _name in ("MDB_CLUSTER", "MDB_FORCE_SINCE", "MDB_PROGRESS"):  # of whoever started them
    os.environ.pop(_name, None)


@pytest.fixture(scope="session")
def base():
    """models/mini on the CPU."""
    return load_base("models/mini", "cpu")


@pytest.fixture(scope="session")
def pictures():
    """Twelve smooth images [12, 3, 64, 64] in [0, 1] of no particular kind."""
    generator = torch.Generator().manual_seed(7)
    small = torch.rand(12, 3, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(small, size=64, mode="bicubic").clamp(0, 1)


@pytest.fixture
def runs_folder(tmp_path, monkeypatch):
    """An empty runs/ for this test."""
    monkeypatch.setenv("MDB_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


#: Files whose tests take minutes: first, so that no core waits for one of them at the end.
LONGEST = ("test_smoke.py", "test_notebooks.py", "test_rehearsal.py", "test_browser.py", "test_kills.py")


def pytest_collection_modifyitems(items):
    """The longest files first, the others in their order."""
    places = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))
