"""The one base class of every error that a user can mend."""

from collections.abc import Iterator
from contextlib import contextmanager


def printable(text: str) -> str:
    """One line without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class UserError(ValueError):
    """Bad input: one line that names the file, the value and the way out.

    Each module derives its own named exception from it. `run_all.sh` prints such an error as
    that line; anything else is a defect of ours and keeps its traceback.
    """

    def __init__(self, message: str = ""):
        """message: whatever a file's contents brought into it, it stays one line."""
        super().__init__(printable(str(message)))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: that one line (`lib.notebooks` knows it)."""
        return [f"{type(self).__name__}: {self}"]


class MemoryExhausted(UserError):
    """More was asked of the device than its memory holds."""


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Raises MemoryExhausted, which names `what` was tried, where torch finds no memory for it."""
    try:
        yield
    except RuntimeError as error:  # torch's OutOfMemoryError is one, and others have no class of their own
        told = ("allocate memory", "out of memory")  # the CPU's, and MPS's
        if type(error).__name__ != "OutOfMemoryError" and not any(words in str(error) for words in told):
            raise
        raise MemoryExhausted(
            f"out of memory: {what}: lower the batch size, load the base in half precision, or take a base "
            "of fewer pixels; what was finished is kept"
        ) from error
