"""The options of ./run_all.sh, in the standard library alone: --help is answered before an installation."""

import argparse
from typing import NoReturn

from lib.errors import UserError

DESCRIPTION = "Makes every figure and table: installs what is needed, runs the notebooks."
EPILOG = """\
examples:
  ./run_all.sh                                       everything, on two CPU cores
  ./run_all.sh --profile smoke                       the same in minutes, to see that it runs
  ./run_all.sh --only 02 -p dataset my/images        one notebook on a folder of your images
  ./run_all.sh --only 02 -p dataset 'chexpert:my/CheXpert-v1.0-small?view=pa'   or on CheXpert
  ./run_all.sh --html                                the same, then every notebook as a page in runs/html
  ./run_all.sh --test -k phantoms                    the test suite, with pytest's options

What is finished is read, not done again. Executed notebooks are kept in runs/executed; the
environment variable MDB_RUNS names another folder than runs/, MDB_WORKERS how many processes train
at once (one a core unless it is set)."""


class OptionError(UserError):
    """An option that is unknown, or lacks its value."""


class Parser(argparse.ArgumentParser):
    """argparse, but for how it ends on what it does not know."""

    def error(self, message: str) -> NoReturn:
        """Raises OptionError, which ends in one line and status 2."""
        raise OptionError(f"{message} (see ./run_all.sh --help)")


def parser() -> argparse.ArgumentParser:
    """The options of ./run_all.sh."""
    it = Parser(
        prog="./run_all.sh",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    it.add_argument("--profile", default="mini", help="smoke, mini (default), full, sd2, rehearsal: params/")
    it.add_argument("--only", metavar="NN,NN", help="these notebooks only, such as 03,07")
    it.add_argument("--force", action="store_true", help="do again what is finished")
    it.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter in every selected notebook that has it; may be repeated",
    )
    it.add_argument(
        "--cluster", metavar="ADDRESS", help="a Dask scheduler, tcp://host:8786, whose workers share runs/"
    )
    it.add_argument("--list", action="store_true", help="list the notebooks and what is finished")
    it.add_argument("--html", action="store_true", help="then render every notebook to static HTML")
    it.add_argument("--test", action="store_true", help="run the tests: what follows is pytest's")
    return it


if __name__ == "__main__":
    parser().print_help()
