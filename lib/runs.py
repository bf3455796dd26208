"""Artefact folders keyed by a digest, written atomically and finished by a marker.

A key is whatever determines an artefact: its settings, the digests of its inputs, and
`code_digest` of the modules that make it. What is finished is read; what was interrupted is absent.
"""

import ast
import errno
import fcntl
import importlib.util
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lib.config import ROOT, digest, plain
from lib.errors import UserError

MARKER = "done.json"
TIMINGS = "timings.json"
FULL_TEXT = "No space left on device"


class DiskFullError(UserError):
    """The disk is full; nothing that was finished is lost."""

    def __init__(self, path: str | Path):
        self.path = path
        super().__init__(
            f"the disk that holds {path} is full; all finished work is kept: make room, or name "
            "another folder in the environment variable MDB_RUNS, and run it again"
        )

    def __reduce__(self):  # or a worker's would be told as the path of another
        return type(self), (self.path,)


def runs_root() -> Path:
    """runs/ in the repository, or the folder named by the environment variable MDB_RUNS."""
    named = os.environ.get("MDB_RUNS")
    return Path(os.path.expanduser(named)).absolute() if named else ROOT / "runs"


def timings() -> dict[str, float]:
    """ "profile/notebook" -> seconds of its last execution under `runs_root()`."""
    try:
        return json.loads((runs_root() / TIMINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or cut short by hand: nothing depends on it
        return {}


def code_digest(*modules: str, now: bool = False) -> str:
    """A digest of the named modules' code ("lib.inversion"), blind to comments and layout.

    With the versions of the libraries that do the arithmetic. It does not follow imports: name every module
    whose change should redo the work. Of lib, it is the code that this process runs, however the files have
    changed since it began; `now`: as they are on the disk.
    """
    trees = {}
    for module in modules:
        source = None if now else _BEGUN_WITH.get(module)
        if source is None:
            source = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
        trees[module] = _tree(source)
    return digest([trees, _versions()])


@lru_cache(maxsize=256)  # a second for all of lib, and every artefact asks
def _tree(source):
    return ast.dump(ast.parse(source))


@lru_cache
def _versions():
    return {name: version(name) for name in ("torch", "diffusers", "transformers")}


#: Module -> its source when this process began, of lib.
_BEGUN_WITH = {
    f"lib.{path.stem}": path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py")
}


def path_digest(path: Path) -> str:
    """A digest of a file, or of a folder's file names with their contents, links followed.

    Beyond 64 MiB in all, or where one cannot be read, sizes and times of change stand for the contents.
    """
    files = [path] if path.is_file() else sorted(_files(path))
    states = {str(p.relative_to(path)): (p, p.stat()) for p in files}
    if sum(state.st_size for _, state in states.values()) <= 64 * 2**20:
        try:
            return digest({name: p.read_bytes() for name, (p, _) in states.items()})
        except OSError:  # whoever reads the images leaves that one out by name
            pass
    return digest({name: [s.st_size, s.st_mtime_ns] for name, (_, s) in states.items()})


def _files(folder):
    """Every file below a folder, each folder once however many links lead to it."""
    seen = {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, followlinks=True):
        for name in sorted(folders):
            real = os.path.realpath(Path(place, name))
            if real in seen:
                folders.remove(name)
            seen.add(real)
        yield from (path for name in names if (path := Path(place, name)).is_file())


def is_disk_full(error: BaseException | None, folder: Path) -> bool:
    """Whether `error`, or what caused it, came of a full disk under `folder`.

    Libraries hide the errno: safetensors keeps its text only, torch.save not even that.
    """
    while error is not None:
        if isinstance(error, DiskFullError) or FULL_TEXT in str(error):
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, RuntimeError) and "failed writing file" in str(error):
            while not folder.exists():
                folder = folder.parent
            return shutil.disk_usage(folder).free < 2**20
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turns whatever a full disk raises inside into a DiskFullError that names `path`."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if is_disk_full(error, path):
            raise DiskFullError(path) from error
        raise


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the lock file `path`; calls `waiting` once if another process holds it.

    The system drops the lock of a process that dies. The file itself stays: removing it would let
    two processes lock two files of one name.
    """
    with naming_full_disk(path.parent):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = open(path, "a")  # noqa: SIM115
        except OSError as error:
            if is_disk_full(error, path.parent):
                raise
            raise UserError(
                f"{path.parent}: cannot be written ({error.strerror}): name another folder in the "
                "environment variable MDB_RUNS"
            ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f"{path.parent}: its file system locks no files ({error.strerror}): name another folder in "
                "the environment variable MDB_RUNS"
            ) from error
        yield


def atomic_write(path: str | Path, content: bytes | str | Callable[[Path], Any]) -> Path:
    """Writes `path` whole or not at all; `content` may be a function that writes the file given.

    That file lies in the same folder and has the same suffix. Raises DiskFullError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(6)}{path.suffix}")
    with naming_full_disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if callable(content):
                content(temporary)
            else:
                temporary.write_bytes(_bytes(content))
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _bytes(content: bytes | str) -> bytes:
    """As it is, or as UTF-8; a file's name in it that is not stays the bytes that it was."""
    return content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Run:
    """One artefact: the folder <root>/<name>/<digest of key>, there only when it is finished.

        run = Run(None, "embeddings", {"settings": settings, "base": base.digest})
        if not run.done:
            with run.writing() as folder:
                embedding.save(folder / "embedding.safetensors")
        read(run.folder)

    `root` is `runs_root()` if None. `cached` does the same in one call, and is to be preferred
    where two processes may want the same artefact: the second then waits and reads.
    """

    def __init__(self, root: str | Path | None, name: str, key: Any):
        self.name, self.key, self.digest = name, key, digest(key)
        self.folder = Path(root or runs_root()) / name / self.digest
        #: A folder for checkpoints: outlives an interruption, and goes when the run is finished.
        self.scratch = self._beside("part")
        self._held = False

    def _beside(self, ending: str) -> Path:
        return self.folder.with_name(f".{self.digest}.{ending}")

    @property
    def done(self) -> bool:
        """Whether the marker is there, and the files it lists in their full sizes.

        Under `run_all.sh --force`, what was finished before that command began is not done.
        """
        try:
            marker = json.loads((self.folder / MARKER).read_text(encoding="utf-8"))
            sizes = {name: (self.folder / name).stat().st_size for name in marker["files"]}
        except (OSError, ValueError, KeyError):  # missing, cut short by hand, or of another shape
            return False
        fresh = marker["finished"] >= float(os.environ.get("MDB_FORCE_SINCE") or 0)
        return sizes == marker["files"] and fresh

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing this run; `done` may have changed while it waited."""
        if self._held:
            yield
            return
        with locked(self._beside("lock")):
            self._held = True
            try:
                yield
            finally:
                self._held = False

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yields an empty folder; it becomes `self.folder`, marked done, if the block ends well.

        When it raises, what it wrote is removed. Raises DiskFullError.
        """
        started = time.time()
        with self.locked(), naming_full_disk(self.folder):
            temporary, old = self._beside("new"), self._beside("old")
            for leftover in (temporary, old):  # of a process that was killed: the lock is ours
                shutil.rmtree(leftover, ignore_errors=True)
            temporary.mkdir(parents=True)
            try:
                yield temporary
                self._seal(temporary, started)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            with suppress(FileNotFoundError):
                os.rename(self.folder, old)
            os.rename(temporary, self.folder)
            _sync(self.folder.parent)
            shutil.rmtree(old, ignore_errors=True)
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _seal(self, folder: Path, started: float) -> None:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for path in files:
            _sync(path)
        marker = {
            "name": self.name,
            "digest": self.digest,
            "key": plain(self.key),
            "finished": time.time(),
            "seconds": round(time.time() - started, 3),
            "files": {path.relative_to(folder).as_posix(): path.stat().st_size for path in files},
        }
        atomic_write(folder / MARKER, json.dumps(marker, indent=1))


def cached(name: str, key: Any, make: Callable[[Path], Any], root: str | Path | None = None) -> Path:
    """The folder of a finished run; calls `make(folder)` to fill it if there is none.

    Of two processes that want the same artefact, one makes it and the other waits and reads.
    """
    run = Run(root, name, key)
    if not run.done:
        with run.locked():
            if not run.done:
                with run.writing() as folder:
                    make(folder)
    return run.folder
