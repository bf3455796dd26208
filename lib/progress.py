"""What a notebook tells whoever runs it: how far it is, and which files it wrote.

Under run_all.sh the environment variable MDB_PROGRESS names a file of JSON lines that `Listener`
follows; in JupyterLab one line is drawn and redrawn; elsewhere nothing is shown. Bars that redraw
themselves freeze under papermill, and their text would be saved with the notebook.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from lib.errors import UserError

PERIOD = 0.2  # seconds between two reports of one loop


class OutputError(UserError):
    """A file that a notebook says it wrote is missing or empty."""


class _Last:
    """The last report of this process: when, of which loop, and the line that JupyterLab shows."""

    moment = 0.0
    loop = (0, -1)  # step, total
    began, first = 0.0, 0  # when it was begun, and at which step: after an interruption at none of the first
    handle = None


def progress(step: int, total: int, text: str = "") -> None:
    """Reports that `step` of `total` steps are done; cheap enough to be called at every step.

    A loop that starts anew (another `total`, or a lower `step`) gets a line of its own. Never
    raises for want of disk: a report is not worth a run.
    """
    now = time.monotonic()
    last_step, last_total = _Last.loop
    anew = total != last_total or step < last_step
    if anew or now - _Last.began < PERIOD:  # what was done before an interruption is told in a moment
        _Last.first = step
    if not anew and step < total and now - _Last.moment < PERIOD:
        return
    if anew:
        _Last.began, _Last.handle = now, None
    _Last.moment, _Last.loop = now, (step, total)
    if os.environ.get("MDB_PROGRESS"):
        try:
            _send({"step": step, "total": total, "text": text})
        except OSError:
            return
    elif "IPython" in sys.modules:
        _draw(step, total, text, now - _Last.began)


def outputs(*files: str | Path | Iterable) -> list[str]:
    """Declares the files that a notebook wrote; a notebook's last cell ends with it.

    Takes paths and lists of paths, relative ones as seen from the working folder. Returns them as
    text. Raises OutputError for one that is missing or empty. run_all.sh shows them, and runs the
    notebook again when one of them is gone or changed.
    """
    paths = []
    for item in files:
        paths += [item] if isinstance(item, str | Path) else list(item)
    paths = [Path(path).absolute() for path in paths]
    for path in paths:
        if not path.is_file() or not path.stat().st_size:
            raise OutputError(f"{path} is missing or empty: the notebook did not write it")
    if os.environ.get("MDB_PROGRESS"):
        _send({"outputs": [str(path) for path in paths]})
    return [os.path.relpath(path) for path in paths]


def _send(message: dict) -> None:
    """Appends one line by one write, which a reader sees whole, unless the disk is full.

    It begins with the end of such a torn one.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    descriptor = os.open(os.environ["MDB_PROGRESS"], flags, 0o644)
    try:
        os.write(descriptor, f"\n{json.dumps(message)}\n".encode())
    finally:
        os.close(descriptor)


def _draw(step: int, total: int, text: str, seconds: float) -> None:
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        return
    share = step / total if total else 1.0
    bar = "█" * round(20 * share)
    pace = seconds / (step - _Last.first) if step > _Last.first else 0.0
    left = f", {duration(pace * (total - step))} left" if pace and step < total else ""
    line = f"{bar:░<20} {step}/{total} {text}  {duration(seconds)}{left}"
    if _Last.handle is None:
        _Last.handle = display({"text/plain": line}, raw=True, display_id=True)
    else:
        _Last.handle.update({"text/plain": line}, raw=True)


def duration(seconds: float) -> str:
    """65.2 -> "1:05", 3700 -> "1:01:40"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Listener:
    """Follows the reports of one notebook in the file `path`, from its beginning."""

    def __init__(self, path: Path):
        self._path, self._offset, self._rest = path, 0, b""
        self.step, self.total, self.text = 0, 0, ""
        self.outputs: list[str] = []
        self._lock = Lock()  # polled by the thread that shows it and the one that runs cells

    def poll(self) -> None:
        """Reads what has come since; `step`, `total`, `text` and `outputs` tell the latest."""
        with self._lock:
            if not self._path.exists():
                return
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
            self._offset += len(new)
            *lines, self._rest = (self._rest + new).split(b"\n")
            for line in filter(None, lines):
                with contextlib.suppress(ValueError):  # torn, where the disk was full
                    self._take(json.loads(line))

    def _take(self, message: dict) -> None:
        if "outputs" in message:
            self.outputs = list(dict.fromkeys(self.outputs + message["outputs"]))
        else:
            self.step, self.total, self.text = (message[k] for k in ("step", "total", "text"))

    def new_cell(self) -> None:
        """Forgets the steps of the cell before."""
        self.poll()
        self.step, self.total, self.text = 0, 0, ""
