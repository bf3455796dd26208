"""Parameters: frozen configurations that reject what they do not know, profiles, and digests.

A profile is a file params/<profile>.yaml: a mapping `common` and one mapping for each notebook,
named after the notebook's stem; `command` for what the command that runs them is told (`workers`:
MDB_WORKERS, where the user sets none); `extends: <profile>` takes from another what it does not set itself.
Papermill can inject None, str, bool, int, float, list and dict.
"""

import dataclasses
import difflib
import hashlib
import json
import os
import re
import types
import typing
from ast import Assign, Expr, Name, literal_eval
from ast import parse as parse_python
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from lib.errors import UserError

#: The repository: the folder that holds lib/, models/, notebooks/ and params/.
ROOT = Path(__file__).resolve().parent.parent

SCALARS = (str, bool, int, float, type(None))


class ConfigError(UserError):
    """A parameter, profile or notebook that does not exist, or a value of the wrong kind."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of a notebook's frozen configuration; fields are its parameters, with their types.

    Subclasses are decorated with `@dataclass(frozen=True)`; a `tuple[...]` field takes a list.
    """

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Self:
        """Builds the configuration from `globals()` of a notebook, or from any mapping of values.

        Of a notebook's globals, the names that must be known are those that its leading cells of
        nothing but literals assigned: the cell tagged `parameters` and the one that papermill
        injects after it.
        Raises ConfigError for an unknown name, a missing one, and a value of the wrong type.
        """
        hints = {name: typing.get_type_hints(cls)[name] for name in cls.__dataclass_fields__}
        sources = namespace.get("In")
        for name in _assigned(sources) if isinstance(sources, list) else namespace:
            if name not in hints:
                value = _shown(namespace.get(name))
                raise ConfigError(f"unknown parameter {name} = {value}{nearest(name, hints)}")
        values = {name: namespace[name] for name in hints if name in namespace}
        for field in dataclasses.fields(cls):
            required = field.default is field.default_factory is dataclasses.MISSING
            if required and field.name not in values:
                raise ConfigError(f"parameter {field.name} is missing in the parameters cell")
        return cls(**{name: _checked(name, value, hints[name]) for name, value in values.items()})


@dataclasses.dataclass(frozen=True)
class Common(Config):
    """What every notebook is given, by the mapping `common` of a profile.

    base, output   a model folder or hub id; the folder under which figures/ and results/ are written
    device         cpu, cuda or mps; None: the best there is
    dtype          of the frozen weights, as lib.base.load_base takes it

    Raises ConfigError where a parameter that lists seeds lists none.
    """

    profile: str
    base: str
    output: str
    device: str | None
    dtype: str | None
    seed: int

    def __post_init__(self):
        for name, value in vars(self).items():
            if "seeds" in name.split("_") and not value:
                raise ConfigError(f"parameter {name} = {value!r}: at least one seed")


def _assigned(sources: list[str]) -> list[str]:
    """Names assigned by the leading sources that assign literals and do nothing else."""
    names = []
    for source in filter(str.strip, sources):
        try:
            statements = [s for s in parse_python(source).body if not _is_text(s)]
            if not all(isinstance(s, Assign) for s in statements):
                return names
            for statement in statements:
                literal_eval(statement.value)
                names += [target.id for target in statement.targets if isinstance(target, Name)]
        except (SyntaxError, ValueError):  # a magic command, or a value that is computed
            return names
    return names


def _is_text(statement) -> bool:
    return isinstance(statement, Expr) and isinstance(getattr(statement.value, "value", None), str)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type `hint` wants it, or ConfigError."""
    fitted = _fit(value, hint)
    if fitted is not _UNFIT:
        return fitted
    wanted = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    advice = f"; write {_yaml_number(value)}" if _looks_like_number(value) else ""
    if not isinstance(value, (*SCALARS, list, tuple, dict)):  # a later cell's: it took the name
        advice = "; run the parameters cell again"
    raise ConfigError(
        f"parameter {name} = {_shown(value)} is {_a(type(value).__name__)}, not "
        f"{_a(wanted.replace('typing.', '').replace('NoneType', 'None'))}{advice}"
    )


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


_UNFIT = object()


def _fit(value: Any, hint: Any) -> Any:
    kind, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is Any:
        return value
    if kind in (typing.Union, types.UnionType):
        return next((v for v in (_fit(value, arg) for arg in args) if v is not _UNFIT), _UNFIT)
    if kind is typing.Literal:
        return value if value in args else _UNFIT
    if isinstance(value, bool) and kind is not bool:
        return _UNFIT  # True is an int in Python, but never meant as one
    if kind is float and isinstance(value, int):
        return float(value)
    if kind in (list, tuple) and isinstance(value, (list, tuple)):
        fitted = [_fit(v, args[0]) if args else v for v in value]
        return _UNFIT if any(v is _UNFIT for v in fitted) else kind(fitted)
    if kind is dict and isinstance(value, dict) and args:
        fitted = {key: _fit(v, args[1]) for key, v in value.items()}
        return _UNFIT if any(v is _UNFIT for v in fitted.values()) else fitted
    return value if isinstance(value, kind) else _UNFIT


def nearest(name: str, valid: Collection[str]) -> str:
    """The end of an error line: the names that `name` may have meant, or all there are."""
    close = difflib.get_close_matches(name, valid, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there is {', '.join(sorted(valid))}" if valid else "; there are none"


def load_profile(name: str, root: Path = ROOT, _above: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Reads params/<name>.yaml: {"common": {...}, "<notebook stem>": {...}, ...}, with what it extends.

    Raises ConfigError for a profile that is not there or extends itself, a key that is no notebook, a value
    that papermill cannot inject, and a number that YAML reads as a string.
    """
    path = root / "params" / f"{name}.yaml"
    if "/" in name or not path.is_file():
        profiles = [p.stem for p in (root / "params").glob("*.yaml")]
        raise ConfigError(f"unknown profile {name!r}{nearest(name, profiles)}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    notebooks = [p.stem for p in (root / "notebooks").glob("[0-9][0-9]_*.ipynb")]
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of notebooks, found {content!r}")
    extended = content.pop("extends", None)
    if extended in (name, *_above) or not isinstance(extended, str | None):
        raise ConfigError(f"{path}: extends = {extended!r}: name another profile that does not extend this")
    for key, values in content.items():
        if key not in ("common", "command", *notebooks):
            raise ConfigError(f"{path}: no notebook is named {key!r}{nearest(str(key), notebooks)}")
        if not isinstance(values, dict | None):
            raise ConfigError(f"{path}: {key} = {values!r}: expected a mapping of parameters")
        for parameter, value in (values or {}).items():
            check_value(value, f"{path}: {key}.{parameter}")
    found = {} if extended is None else load_profile(extended, root, (name, *_above))
    return found | {key: found.get(key, {}) | (values or {}) for key, values in content.items()}


def check_value(value: Any, where: str) -> None:
    """Raises ConfigError unless papermill can inject `value`; `where` begins the message."""
    if _looks_like_number(value):
        raise ConfigError(f"{where} is the string {value!r}; write {_yaml_number(value)}")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{where} has the key {key!r}: write it as a string, in quotes")
            check_value(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            check_value(inner, f"{where}[{i}]")
    elif not isinstance(value, SCALARS):
        raise ConfigError(
            f"{where} = {value} is {_a(type(value).__name__)}; a parameter is a string, a number, "
            "true, false, null, a list or a mapping"
        )


def parse_value(text: str) -> Any:
    """The value of `-p name text`: YAML, and 5e-4 is the number that it looks like."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text  # such as "[prostate", "@file", or the date 2020-13-45: nothing but a string
    return float(value) if value == text and _looks_like_number(value) else value


def _looks_like_number(value: Any) -> bool:
    if not isinstance(value, str) or not any(c.isdigit() for c in value):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def _yaml_number(text: str) -> str:
    """5e-4 as 5.0e-4, the form in which YAML 1.1 sees a number."""
    mantissa, _, exponent = text.strip().lower().partition("e")
    if not exponent:
        return mantissa
    mantissa += "" if "." in mantissa else ".0"
    return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"


def resolve(path: str | Path) -> Path:
    """An absolute path: as seen from the working folder if it exists there, else from ROOT.

    Notebooks work in notebooks/ and mean ROOT, as do the commands that start them.
    """
    path, here = Path(os.path.expanduser(path)), Path.cwd()
    found = path if here == ROOT / "notebooks" else here / path
    return (found if found.is_absolute() and found.exists() else ROOT / path).resolve()


def located(path: str | Path) -> Path:
    """`path` as seen from the working folder; from ROOT if only there is such a one."""
    path = Path(os.path.expanduser(path))
    return ROOT / path if not path.exists() and (ROOT / path).exists() else path


def is_hub_id(value: Any) -> bool:
    """Whether `value` names a model of the hub, `owner/name`, and no folder that is there."""
    named = isinstance(value, str | Path) and re.fullmatch(r"[\w.-]+/[\w.-]+", str(value))
    return bool(named) and not resolve(value).exists()


def plain(value: Any) -> Any:
    """`value` in JSON's types: dataclasses as mappings, paths as text, bytes and arrays hashed."""
    if isinstance(value, SCALARS):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"keys of a digest must be strings: {list(value)!r}")
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        array = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        kind = f"{array.dtype.str}{list(value.shape)}"
        return {"array": kind, "sha256": hashlib.sha256(array.reshape(-1).view(np.uint8)).hexdigest()}
    raise TypeError(f"no digest for {_a(type(value).__name__)}: {value!r}")


def digest(value: Any) -> str:
    """16 hexadecimal digits that name `value`, equal in every process and on every machine.

    Takes what `plain` takes: dataclasses, mappings with string keys, lists, strings, numbers, None,
    paths (as text; their content is not read), bytes and numpy arrays.
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
