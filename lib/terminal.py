"""What a person sees while notebooks run: one changing line, or few lines in a log."""

import re
import shutil
import sys
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import TextIO


class Status:
    """Shows `line()` again and again while it is entered: `with Status(line): ...`.

    On a terminal the line is redrawn twice a second. Elsewhere it is printed when it changed, at
    most every `period` seconds, and not during the first.
    """

    def __init__(self, line: Callable[[], str], stream: TextIO | None = None, period: float = 10.0):
        self._line, self._stream = line, stream or sys.stdout
        self._live = self._stream.isatty()
        self._period = 0.5 if self._live else period
        self._stop = Event()
        self._thread = Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Status":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _follow(self) -> None:
        shown = ""
        while not self._stop.wait(self._period):
            line = self._line()
            if self._live:
                width = shutil.get_terminal_size().columns - 1
                self._stream.write(f"\r\x1b[K{line[:width]}")
            elif line != shown:
                self._stream.write(f"{line}\n")
            shown = line
            self._stream.flush()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be; a cell of several lines makes its row as high."""
    split = [[str(cell).split("\n") for cell in row] for row in (head, *rows)]
    widths = [max(len(line) for row in split for line in row[i]) for i in range(len(head))]
    lines = []
    for row in split:
        for i in range(max(len(cell) for cell in row)):
            parts = [cell[i] if i < len(cell) else "" for cell in row]
            text = "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True))
            lines.append(text.rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


class Estimate:
    """The time left: from earlier runs where known, else by this machine's pace.

    cells      notebook -> its code cells
    known      notebook -> seconds that it last took here
    elsewhere  notebook -> seconds that it took on another machine; the pace is against these where every
               notebook has them, else a cell is as long as any other
    """

    def __init__(self, cells: dict[str, int], known: dict[str, float], elsewhere: dict[str, float]):
        self._cells, self._known = cells, known
        self._timed = cells.keys() <= elsewhere.keys()
        self._size = elsewhere if self._timed else cells
        self._waiting = list(cells)
        self._seconds, self._units = 0.0, 0.0  # of notebooks executed in this run

    @property
    def _pace(self) -> float:
        """Seconds of this machine a unit of size."""
        return self._seconds / self._units if self._units else 1.0

    def finish(self, stem: str, seconds: float | None) -> None:
        """`seconds` None: it was read, which says nothing about speed."""
        self._waiting.remove(stem)
        if seconds is not None:
            self._seconds += seconds
            self._units += self._size[stem]

    def left(self, stem: str, elapsed: float, done: int, in_cell: float, share: float) -> float | None:
        """Seconds until all is done; None while unknown.

        `elapsed` seconds in notebook `stem`, of which `done` cells are finished; `in_cell` seconds
        in the next one, a `share` of whose steps (0 to 1) is done.
        """
        if self._known.get(stem, 0.0) > elapsed:
            mine = self._known[stem] - elapsed
        elif self._timed and self._pace * self._size[stem] > elapsed:
            mine = self._pace * self._size[stem] - elapsed
        else:
            pace = (elapsed - in_cell) / max(done, 1)
            if not share and in_cell >= pace:  # longer than any so far, and it does not say of how much
                return None
            rest = in_cell * (1 - share) / share if share else pace - in_cell
            mine = rest + pace * max(self._cells[stem] - done - 1, 0)
        rate = (self._seconds + elapsed + mine) / (self._units + self._size[stem])
        others = [name for name in self._waiting if name != stem]
        return mine + sum(self._known.get(name, rate * self._size[name]) for name in others)


def plain_text(text: str, stream: TextIO) -> str:
    """`text` as it is for a terminal, without colours for anything else."""
    return text if stream.isatty() else re.sub(r"\x1b\[[0-9;]*m", "", text)
