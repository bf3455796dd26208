"""How a data set is named: `folder`, `phantom:prostate`, `chexpert:DIR?view=pa`, `picai:IMAGES,LABELS`.

One text, so that a notebook passes it on as its parameter `dataset`. After an archive's folders come
its options, `?name=value&name=value`; on a command line the whole is quoted, since ? and & mean
something to a shell.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lib.config import digest, located, resolve
from lib.imagesets import DatasetError

#: How many folders follow the prefix of each archive: a data set in its owner's own format.
FOLDERS = {"chexpert": 1, "picai": 2, "pcam": 1}
LONGEST = 120  # characters of a data set's name in those of its files


def prefix_of(spec: str) -> tuple[str | None, str]:
    """ "picai:a,b" -> ("picai", "a,b"); (None, spec) for a folder, be there a colon in its name."""
    prefix = re.match(r"([A-Za-z]\w+):", spec)  # two letters at least: C:\ is a drive
    if prefix is None or os.path.exists(spec):
        return None, spec
    return prefix[1], spec[prefix.end() :]


def options_of(rest: str) -> tuple[str, dict[str, str]]:
    """ "DIR?view=pa&uncertain=ignore" -> ("DIR", {"view": "pa", "uncertain": "ignore"}).

    A question mark in a folder's name is no option where that folder exists. Raises DatasetError.
    """
    path, mark, text = rest.rpartition("?")
    if not mark or os.path.exists(rest):
        return rest, {}
    pairs = [pair.partition("=") for pair in text.split("&")]
    if not all(name and equals and value for name, equals, value in pairs):
        raise DatasetError(f"{rest}: options {text!r} are not written as ?name=value&name=value")
    options = {name: value for name, _, value in pairs}
    if len(options) < len(pairs):
        raise DatasetError(f"{rest}: an option is given twice: name each once")
    return path, options


def folders_of(text: str, count: int) -> list[str]:
    """The `count` folders of "a,b". A comma within a name is told from the one between by what exists.

    Raises DatasetError where no reading gives that many.
    """
    if count == 1:
        return [str(located(text))]
    parts = text.split(",")
    cuts = [(",".join(parts[:i]), ",".join(parts[i:])) for i in range(1, len(parts))]
    cuts = [[str(located(part.strip())) for part in cut] for cut in cuts if all(cut)]
    if not cuts:
        raise DatasetError(f"{text}: name two folders with a comma between: IMAGES,LABELS")
    # The reading of which most folders exist; of a typing error, that cut at the first comma.
    return max(cuts, key=lambda cut: sum(map(os.path.isdir, cut)))


def is_class_of_splits(spec: str) -> bool:
    """Whether a name is no folder itself, but of some in the one above: a/tumour where a/test/tumour is."""
    above, name = resolve(Path(spec).parent), Path(spec).name
    if prefix_of(spec)[0] is not None or (above / name).exists() or not os.access(above, os.R_OK | os.X_OK):
        return False
    return above.is_dir() and any(os.path.isdir(sub / name) for sub in above.iterdir())


def local_folders(spec: str) -> list[str]:
    """Every folder or file that a name points to, whether it exists or not; none of a phantom's.

    Of a class of a folder's splits, that folder.
    """
    prefix, rest = prefix_of(spec)
    if prefix is None:
        return [str(Path(spec).parent) if is_class_of_splits(spec) else spec]
    if prefix not in FOLDERS:
        return []
    return folders_of(options_of(rest)[0], FOLDERS[prefix])


def absolute(spec: str) -> str:
    """The same archive, named from whatever working folder; any other name stays as it is."""
    prefix, rest = prefix_of(spec)
    if prefix not in FOLDERS:
        return spec
    path, _ = options_of(rest)
    folders = [str(Path(folder).resolve()) for folder in folders_of(path, FOLDERS[prefix])]
    return f"{prefix}:{','.join(folders)}{rest[len(path) :]}"


def place_of(spec: str) -> str:
    """Where a data set of the user's lies, told alike from whatever working folder."""
    return absolute(spec) if prefix_of(spec)[0] else str(resolve(spec))


def is_own(dataset: str | None) -> bool:
    """Whether a notebook's data set is the user's, and not the three phantoms (None) or one of them."""
    return dataset is not None and prefix_of(dataset)[0] != "phantom"


def name_of(spec: str) -> str:
    """What it is called in figures and file names.

    "phantom:chest/healthy" -> "chest"; a folder -> its own name; "pcam:DIR" -> "pcam".
    """
    prefix, rest = prefix_of(spec)
    if prefix == "phantom":
        return rest.partition("/")[0]
    return prefix if prefix in FOLDERS else Path(os.path.abspath(spec)).name


def file_name_of(spec: str) -> str:
    """`name_of`, with an archive's options: "chexpert:DIR?view=pa" -> "chexpert-view-pa".

    Beyond LONGEST characters the end gives way to a digest: a file system takes 255.
    """
    prefix, rest = prefix_of(spec)
    options = options_of(rest)[1] if prefix in FOLDERS else {}
    parts = (part for option in options.items() for part in option)
    name = "-".join([name_of(spec), *(re.sub(r"\W+", "-", part) for part in parts)])
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}-{digest(name)[:6]}"
