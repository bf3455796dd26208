"""What embeddings look like as files and as vectors: sizes, formats, norms, angles; no base needed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.embedding import Embedding, EmbeddingError

#: file suffix and format of every kind of file that `Embedding.save` writes
FORMATS = (
    (".safetensors", "diffusers"),
    (".safetensors", "a1111"),
    (".safetensors", "kohya"),
    (".pt", "a1111"),
    (".bin", "diffusers"),
)


def file_table(embedding: Embedding, folder: Path) -> pd.DataFrame:
    """One row a format: bytes of the file, and whether reading it gives the same numbers, bit for bit."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for suffix, name in FORMATS:
        path = embedding.save(folder / f"{embedding.name}-{name}{suffix}", name)
        back = Embedding.load(path)
        rows.append(
            {
                "format": name,
                "suffix": suffix,
                "bytes": path.stat().st_size,
                "numbers": embedding.nbytes,
                "exact": back.digest == embedding.digest,
            }
        )
    return pd.DataFrame(rows)


def norm_table(embeddings: Mapping[str, Embedding], walks: Mapping[str, float]) -> pd.DataFrame:
    """One row an embedding: root mean square of its coordinates, beside that of a random walk.

    walks: by name how far the latter gets, `walk_of` the rates of the updates; norms that agree with it tell
    of drift and not of the images. Vectors of one embedding that all point one way have `cosine` 1,
    unrelated ones 0.
    """
    rows = []
    for name, embedding in embeddings.items():
        rms = float(embedding.vectors.square().mean().sqrt())
        rows.append(
            {
                "embedding": name,
                "vectors": len(embedding.vectors),
                "width": embedding.vectors.shape[1],
                "rms": rms,
                "walk": walks[name],
                "ratio": rms / walks[name],
                "cosine": within(embedding),
            }
        )
    return pd.DataFrame(rows)


def walk_of(rates: Sequence[float]) -> float:
    """How far updates of these learning rates move a coordinate, as root mean square, without a goal.

    An update moves a coordinate by about its rate, whichever way, however flat the loss: Adam's each one, and
    Muon's in the root mean square. The squares add up, and n updates of one rate come to rate * sqrt(n).
    """
    return float(np.sqrt(np.square(rates).sum()))


def likely_steps(embeddings: Mapping[str, Embedding], rate: float, choices: Sequence[int]) -> dict[str, int]:
    """Name -> that of `choices` whose random walk comes nearest to the embedding's norm."""
    norms = {name: float(e.vectors.square().mean().sqrt()) for name, e in embeddings.items()}
    return {name: min(choices, key=lambda n: abs(norm - walk_of([rate] * n))) for name, norm in norms.items()}


def released(folder: Path) -> dict[str, Embedding]:
    """Name -> embedding of every .pt file of a folder. Raises EmbeddingError for none, or several sizes."""
    found = {path.stem: Embedding.load(path) for path in sorted(folder.glob("*.pt"))}
    sizes = {tuple(embedding.vectors.shape) for embedding in found.values()}
    if len(sizes) != 1:
        what = f"embeddings of {len(sizes)} sizes" if sizes else "no .pt file"
        raise EmbeddingError(f"{folder}: {what}: a folder with .pt files of one number and width of vectors")
    return found


def within(embedding: Embedding) -> float:
    """Mean cosine between two of an embedding's vectors; nan for a single one."""
    unit = _unit(embedding)
    n = len(unit)
    return float((unit @ unit.T).sum() - n) / (n * (n - 1)) if n > 1 else np.nan


def between(embeddings: Mapping[str, Embedding]) -> pd.DataFrame:
    """Mean cosine of vectors at the same place in two embeddings of one size; [n, n], 1 on the diagonal."""
    units = {name: _unit(embedding) for name, embedding in embeddings.items()}
    table = [[float((a * b).sum(1).mean()) for b in units.values()] for a in units.values()]
    return pd.DataFrame(table, index=list(units), columns=list(units))


def _unit(embedding):
    vectors = embedding.vectors.double().numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
