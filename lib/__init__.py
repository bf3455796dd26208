"""Medical images from a frozen diffusion model and a few trained token vectors.

    from lib import Embedding, load_base, load_images, invert, invert_many, generate, inpaint, save_images

The names are imported when they are first used, so that `import lib` costs nothing.

Threads that wait for each other spin for microseconds and then sleep (GOMP_SPINCOUNT), unless that or
OMP_WAIT_POLICY is set, or torch was imported before: torch's spin on, and beside other work on the same cores
take many times as long (benchmarks/neighbour.py).
"""

import os
from importlib import import_module

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

_HOMES = {
    "Embedding": "lib.embedding",
    "load_base": "lib.base",
    "load_images": "lib.datasets",
    "invert": "lib.inversion",
    "invert_many": "lib.inversion",
    "generate": "lib.sampling",
    "inpaint": "lib.sampling",
    "save_images": "lib.sampling",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'lib' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
