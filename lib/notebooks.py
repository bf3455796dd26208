"""One notebook: what it declares, whether it is done already, and its execution by papermill."""

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from lib.config import ROOT, digest, resolve
from lib.errors import UserError
from lib.progress import Listener
from lib.runs import (
    FULL_TEXT,
    DiskFullError,
    atomic_write,
    code_digest,
    is_disk_full,
    naming_full_disk,
    path_digest,
)
from lib.specs import is_own, local_folders

#: Modules that run notebooks: no result depends on them, so their change redoes nothing.
SHELL = {
    "__init__",
    "errors",
    "notebooks",
    "options",
    "pages",
    "progress",
    "run_all",
    "session",
    "sweep",
    "terminal",
}
#: Parameters whose value may name a local file or folder that the notebook reads.
INPUTS = ("dataset", "base", "weights", "theirs", "tables", "pictures")


class NotebookError(UserError):
    """A file that is not a notebook."""


class NotebookFailed(Exception):
    """A cell raised, or the kernel died. `line` says all; `traceback` is "" for a UserError."""

    def __init__(self, line: str, traceback: str = ""):
        super().__init__(line)
        self.line, self.traceback = line, traceback


@dataclass(frozen=True)
class Notebook:
    """A notebook file: its title, the names of its parameters, the number of its code cells."""

    path: Path
    title: str
    parameters: tuple[str, ...]
    cells: int
    source_digest: str

    @property
    def stem(self) -> str:
        """The file's name without .ipynb."""
        return self.path.stem

    @classmethod
    def load(cls, path: Path) -> "Notebook":
        """Reads `path`; raises NotebookError if it is no notebook."""
        from papermill.inspection import inspect_notebook

        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
        except (ValueError, KeyError, TypeError) as error:
            raise NotebookError(f"{path} is not a Jupyter notebook: {error!r}") from error
        lines = [line for kind, text in sources if kind == "markdown" for line in text.splitlines()]
        return cls(
            path=path,
            title=next((line[2:].strip() for line in lines if line.startswith("# ")), path.stem),
            parameters=tuple(inspect_notebook(path)),
            cells=sum(kind == "code" and bool(text.strip()) for kind, text in sources),
            source_digest=digest([source for source in sources if source[0] == "code"]),
        )


@dataclass(frozen=True)
class Job:
    """A notebook with the parameters to inject, the folder for what comes of it, and how many processes
    train for it where MDB_WORKERS says nothing (None: lib.sweep decides)."""

    notebook: Notebook
    parameters: dict[str, Any]
    folder: Path
    workers: int | None = None

    @property
    def executed(self) -> Path:
        """The executed notebook."""
        return self.folder / f"{self.notebook.stem}.ipynb"

    @property
    def lock(self) -> Path:
        """The file that is held while this notebook runs, by whoever writes the same figures and tables."""
        dataset = self.parameters.get("dataset")
        real = dataset if isinstance(dataset, str) and is_own(dataset) else None
        named = digest([str(resolve(str(self.parameters.get("output", ".")))), real])
        return self.folder.parent / f".{self.notebook.stem}-{named[:8]}.lock"

    @property
    def _marker(self) -> Path:
        return self._hidden("json")

    def _hidden(self, ending: str) -> Path:
        return self.folder / f".{self.notebook.stem}.{ending}"

    @cached_property
    def digest(self) -> str:
        """Names everything that the notebook's results depend on."""
        inputs = {}
        for name in INPUTS:
            value = self.parameters.get(name)
            for text in value if isinstance(value, list) else [value]:
                for file in local_folders(text) if isinstance(text, str) else ():
                    if resolve(file).exists():
                        inputs[file] = path_digest(resolve(file))
        source = self.notebook.source_digest
        return digest([source, self.parameters, inputs, library_digest()])

    def finished(self) -> list[str] | None:
        """The files of an earlier execution of the same; None if it has to be done (again)."""
        try:
            marker = json.loads(self._marker.read_text(encoding="utf-8"))
            if marker["digest"] != self.digest or not self.executed.is_file():
                return None
            unchanged = all(path_digest(Path(f)) == d for f, d in marker["files"].items())
        except (OSError, ValueError, KeyError, AttributeError):  # no marker, or no such file
            return None
        return list(marker["files"]) if unchanged else None

    def execute(
        self,
        environment: dict[str, str],
        on_start: Callable[[Listener], None],
        on_cell: Callable[[int], None],
    ) -> list[str]:
        """Runs the notebook in a new kernel; returns the files it declared.

        `on_start` gets the listener to its reports, `on_cell` the number of each code cell, from 1.
        Raises NotebookFailed and DiskFullError; the notebook as far as it came is kept then.
        """
        digest = self.digest  # of what it begins with, whatever is edited meanwhile
        partial, reports, log = (self._hidden(e) for e in ("partial.ipynb", "progress", "log"))
        with naming_full_disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for stale in (self._marker, partial, reports):
            stale.unlink(missing_ok=True)
        listener = Listener(reports)
        on_start(listener)
        count = _CellCount(listener, on_cell)
        environment = os.environ | environment | {"MDB_PROGRESS": str(reports)}
        try:
            with log.open("w") as stream:
                _papermill(self, partial, environment, count, stream)
            listener.poll()
        except Exception as error:
            raise self._failure(error, count.cell, log) from error
        finally:
            for path in (reports, log):
                path.unlink(missing_ok=True)
            if partial.exists():
                os.replace(partial, self.executed)
        files = {path: path_digest(Path(path)) for path in listener.outputs}
        atomic_write(self._marker, json.dumps({"digest": digest, "files": files}))
        return listener.outputs

    def _failure(self, error: Exception, cell: int, log: Path) -> Exception:
        """The error that one line can tell."""
        where = f"{self.notebook.stem}, code cell {cell} of {self.notebook.cells}"
        if hasattr(error, "ename"):
            line = f"{where}: {error.ename}: {error.evalue}".rstrip(": ")
            # A UserError shows itself as this one line; any other traceback has several.
            if error.traceback == [f"{error.ename}: {error.evalue}"]:
                return NotebookFailed(line)
            if FULL_TEXT in error.evalue:
                return NotebookFailed(f"{line}; all finished work is kept: make room, run it again")
            return NotebookFailed(line, "\n".join(error.traceback))
        if is_disk_full(error, self.folder):
            return DiskFullError(self.folder)
        if type(error).__name__ == "DeadKernelError":
            said = log.read_text(encoding="utf-8", errors="replace").splitlines()
            said = [line for line in said if not line.startswith("[IPKernelApp]")]
            return NotebookFailed(f"{where}: its kernel died (out of memory?)", "\n".join(said[-9:]))
        return NotebookFailed(f"{where}: {type(error).__name__}: {error}")


class _CellCount:
    """Numbers the code cells as the notebook's file has them, without papermill's own."""

    def __init__(self, listener: Listener, on_cell: Callable[[int], None]):
        self.cell, self._listener, self._on_cell = 0, listener, on_cell

    def __call__(self, cell: Any, cell_index: int) -> None:
        if "injected-parameters" not in cell.metadata.get("tags", []):
            self.cell += 1
            self._listener.new_cell()
            self._on_cell(self.cell)


@lru_cache
def library_digest() -> str:
    """Of all code that computes, the embedded base, and the style of the figures."""
    modules = sorted(p.stem for p in (ROOT / "lib").glob("*.py") if p.stem not in SHELL)
    files = [ROOT / "models" / "mini", ROOT / "figures" / "paper.mplstyle"]
    code = code_digest(*(f"lib.{m}" for m in modules), now=True)
    return digest([code, [path_digest(f) for f in files]])


def _papermill(job: Job, target: Path, environment: dict, on_cell_execute, stream) -> None:
    import papermill
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines

    class Engine(NBClientEngine):
        """papermill's own engine, with a hook at each cell and the kernel's stderr in a file."""

        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, start_timeout=60, **_):
            client = PapermillNotebookClient(
                nb_man,
                kernel_name=kernel_name,
                startup_timeout=start_timeout,
                timeout=None,
                log=logging.getLogger("papermill"),
                on_cell_execute=on_cell_execute,
                store_widget_state=False,  # a notebook restored from it shows dead widgets
            )
            client.execute(env=environment, stdout=stream, stderr=stream)

    papermill_engines.register("medical-diffusion", Engine)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it logs is raised as well
    papermill.execute_notebook(
        str(job.notebook.path),
        str(target),
        parameters=job.parameters,
        engine_name="medical-diffusion",
        kernel_name="python3",
        progress_bar=False,
        start_timeout=120,
        cwd=str(job.notebook.path.parent),
    )


def use_own_kernel() -> None:
    """Makes `python3` this interpreter's kernel, whatever the user has installed elsewhere."""
    os.environ["JUPYTER_PATH"] = str(Path(sys.prefix) / "share" / "jupyter")
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # no warning of frozen modules
