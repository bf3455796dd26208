"""The one base class of every error that a user can mend."""


class UserError(ValueError):
    """Bad input: one line that names the file, the value and the way out.

    Each module derives its own named exception from it. `run_all.sh` prints such an error as
    that line; anything else is a defect of ours and keeps its traceback.
    """

    def __init__(self, message: str = ""):
        """message: whatever a file's contents brought into it, it stays one line."""
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in str(message)))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: that one line (`lib.notebooks` knows it)."""
        return [f"{type(self).__name__}: {self}"]
