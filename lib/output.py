"""Where a notebook's figures and tables go, and which it wrote."""

from pathlib import Path

from lib import figures
from lib.card import card
from lib.config import digest, resolve
from lib.embedding import Embedding
from lib.phantoms import MODALITIES
from lib.progress import outputs
from lib.runs import atomic_write, runs_root
from lib.specs import file_name_of, is_own, place_of


class Output:
    """The files of one notebook: <root>/figures/<notebook>.png, .pdf and <root>/results/<notebook>.csv.

    Numbers measured on a data set of the user's go to results/real-<notebook>-<name>.csv, and the
    figures, which show patients, to runs/real/<name>/, where git does not look; so do tables of patients.
    Embeddings go to <root>/embeddings/<name>-<class>.safetensors, which git leaves out too.

    <name> is lib.specs.file_name_of the data set; where that is another's already, six digits that name its
    place follow.
    """

    def __init__(self, root: str, notebook: str, dataset: str | None = None):
        self._root = resolve(root)
        self._notebook, self._written = notebook, []
        self._real = _claimed(dataset) if is_own(dataset) else None

    @property
    def real(self) -> bool:
        """Whether this notebook runs on a data set of the user's."""
        return self._real is not None

    def figure(self, fig, part: str = "") -> list[Path]:
        """Saves a figure as PNG and PDF; `part` follows the notebook's name."""
        folder = self._private if self.real else self._root
        paths = figures.save(fig, self._notebook + (f"-{part}" if part else ""), folder / "figures")
        self._written += paths
        return paths

    def table(self, frame, part: str = "") -> Path:
        """Saves a pandas DataFrame as CSV, numbers to six significant digits."""
        name = self._notebook + (f"-{part}" if part else "")
        name = name if not self.real else f"real-{name}-{self._real}"
        return self._csv(frame, self._root / "results" / f"{name}.csv")

    def patients(self, frame, part: str) -> Path:
        """Saves a DataFrame that names patients of the user's: to runs/real/<name>/, as the figures."""
        return self._csv(frame, self._private / "results" / f"{self._notebook}-{part}.csv")

    def embedding(self, learned: Embedding, name: str, label: str) -> Path:
        """Saves what was learned of a class, under a name that a person finds, and a page about it (.md)."""
        file = "-".join(f"{self._real or name} {label}".split()) + ".safetensors"
        path = learned.save(self._root / "embeddings" / file)
        self._written += [path, atomic_write(path.with_suffix(".md"), card(learned, file))]
        return path

    def declare(self) -> list[str]:
        """Checks that every file is there and tells run_all.sh; a notebook's last line."""
        return outputs(self._written)

    @property
    def _private(self) -> Path:
        return runs_root() / "real" / str(self._real)

    def _csv(self, frame, path: Path) -> Path:
        text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        self._written.append(atomic_write(path, text))
        return path


def _claimed(dataset: str) -> str:
    """The name of a data set's files. Who comes first with a name keeps it, by a note in runs/real/<name>/;
    a folder's own name is no more than that, and results of two hospitals must not be taken for one's. The
    phantoms' names are theirs."""
    name, place = file_name_of(dataset), place_of(dataset)
    note = runs_root() / "real" / name / "dataset.txt"
    if not note.exists():
        atomic_write(note, (place + "\n").encode("utf-8", "surrogateescape"))
    first = note.read_text(encoding="utf-8", errors="surrogateescape").strip()
    return name if first == place and name not in MODALITIES else f"{name}-{digest(place)[:6]}"
