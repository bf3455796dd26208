"""Executes the numbered notebooks in order; run_all.sh installs what is needed and calls this."""

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib import specs
from lib.config import ROOT, ConfigError, check_value, digest, load_profile, nearest, parse_value, resolve
from lib.errors import UserError
from lib.notebooks import INPUTS, Job, Notebook, NotebookFailed, use_own_kernel
from lib.options import OptionError, parser
from lib.runs import runs_root
from lib.session import Session, listing
from lib.terminal import plain_text


def select(folder: Path, only: str | None) -> list[Path]:
    """The notebooks that `only` names by number or stem; without it, those numbered below 90."""
    everything = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if only is None:
        return [path for path in everything if path.name < "9"]
    chosen = set()
    for name in filter(None, (part.strip() for part in only.split(","))):
        matches = {path for path in everything if name in (path.stem, path.stem[:2], path.name)}
        if not matches:
            stems = [path.stem for path in everything]
            raise ConfigError(f"unknown notebook {name!r}{nearest(name, stems)}")
        chosen |= matches
    return sorted(chosen)


def absolute(name: str, value: Any) -> Any:
    """A path typed on the command line, as seen from the notebooks' working folder."""
    if isinstance(value, str) and (name in INPUTS or "/" in value):
        path = Path(os.path.expanduser(value))
        if path.exists() or value.startswith(("./", "../", "~")) or specs.is_class_of_splits(value):
            return str(path.resolve())
        return specs.absolute(value)  # "chexpert:my/folder"
    return value


def jobs(arguments: Namespace, root: Path) -> list[Job]:
    """The selected notebooks with their parameters; raises ConfigError for any unknown name."""
    profile = load_profile(arguments.profile, root)
    everything = {p.stem: Notebook.load(p) for p in (root / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    known = {notebook.stem: notebook.parameters for notebook in everything.values()}
    known |= {"common": sum(known.values(), ()), "command": ("workers",)}
    for stem, values in profile.items():
        names = known[stem]
        for name in values.keys() - names:
            where = f"{root / 'params' / arguments.profile}.yaml: {stem}"
            raise ConfigError(f"{where} has no parameter {name!r}{nearest(name, names)}")
    workers = profile.get("command", {}).get("workers")
    if workers is not None and (type(workers) is not int or workers < 1):
        path = root / "params" / f"{arguments.profile}.yaml"
        raise ConfigError(f"{path}: command.workers = {workers!r}: a number of processes, at least 1")
    selected = [everything[path.stem] for path in select(root / "notebooks", arguments.only)]
    if not selected:
        raise ConfigError(f"no notebooks in {root / 'notebooks'}")
    typed = {}
    for name, text in arguments.p:
        names = {n for notebook in selected for n in notebook.parameters}
        if name not in names:
            stems = ", ".join(notebook.stem for notebook in selected)
            raise ConfigError(f"no parameter {name!r} in {stems}{nearest(name, names)}")
        typed[name] = absolute(name, text if name in INPUTS and Path(text).exists() else parse_value(text))
        check_value(typed[name], f"-p {name}")
    folder = runs_root() / "executed"
    made = []
    for notebook in selected:
        mine = {name: value for name, value in typed.items() if name in notebook.parameters}
        values = profile.get("common", {}) | profile.get(notebook.stem, {}) | mine
        values = {name: value for name, value in values.items() if name in notebook.parameters}
        variant = f"{arguments.profile}-{digest(mine)[:8]}" if mine else arguments.profile
        made.append(Job(notebook, values, folder / variant, workers))
    return made


def check_outputs(todo: Sequence[Job]) -> None:
    """Raises ConfigError for a folder that figures and tables cannot be written to, before hours of work."""
    for output in sorted({str(job.parameters["output"]) for job in todo if "output" in job.parameters}):
        folder = resolve(output)
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise ConfigError(f"output = {output}: {there} is no folder that can be written to: name another")


def check_datasets(todo: Sequence[Job]) -> None:
    """Raises DatasetError for a data set that is not there, before a kernel is started to find out."""
    named = {spec for job in todo if isinstance(spec := job.parameters.get("dataset"), str)}
    if named:
        from lib.datasets import check  # slow to import

        for spec in sorted(named):
            check(spec)


def render(done: list[Job], root: Path) -> Path:
    """Renders all notebooks, those of `done` and earlier ones as executed; the page to begin with."""
    from lib.pages import write_pages  # nbconvert is slow to import

    sources = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    earlier = [done[0].folder / source.name for source in sources]
    target = runs_root() / "html" / done[0].folder.name
    pages = write_pages(sources, [*earlier, *(job.executed for job in done)], target)
    return next((page for page in pages if page.name == "index.html"), pages[0])


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """The exit status: 0 done, 1 a notebook failed, 2 a name that is unknown, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--test" in argv:
        rest = argv[argv.index("--test") + 1 :]
        os.chdir(root)
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker of one thread on each core
        workers = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"]
        os.execv(sys.executable, [sys.executable, "-m", "pytest", *workers, *rest])
    use_own_kernel()
    os.environ["MDB_RUNS"] = str(runs_root())  # kernels work in another folder
    session = None
    try:
        arguments = parser().parse_args(argv)
        if arguments.cluster:
            os.environ["MDB_CLUSTER"] = arguments.cluster
        todo = jobs(arguments, root)
        if arguments.list:
            print(listing(todo))
            return 0
        check_outputs(todo)
        check_datasets(todo)
        session = Session(todo, arguments.force)
        session.run()
        print(session.summary())
        if arguments.html:
            print(f"pages: {render(todo, root)}")
        return 0
    except (ConfigError, OptionError) as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return 2
    except NotebookFailed as error:
        if error.traceback:
            print(plain_text(error.traceback, sys.stderr), file=sys.stderr)
        return _stop(session, f"run_all.sh: {error.line}", 1)
    except UserError as error:
        return _stop(session, f"run_all.sh: {error}", 1)
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # or the cell has the last word
        again = "without --force it" if arguments.force else "the same command"
        kept = f"interrupted; all finished work is kept: {again} goes on from there"
        return _stop(session, f"run_all.sh: {kept}", 130)


def _stop(session: Session | None, line: str, status: int) -> int:
    """Says last what happened; before it the table, where there is more than that to tell."""
    if session and session.finished:
        print(session.summary(), flush=True)
    print(line, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
