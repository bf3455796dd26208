"""Files of token vectors, as each tool writes them.

| format | content |
|---|---|
| diffusers | `{"<token>": [K, D]}`, one key and no more: its loader refuses a second one |
| a1111 | .pt: `string_to_param {"*": [K, D]}`, `string_to_token`, and the fields below |
| | .safetensors: as kohya |
| kohya | `{"emb_params": [K, D]}`, also of invoke; the token is the file's name |
| onetrainer | `{"emp_params": [K, D]}` (sic); read only |

Provenance goes into the header of a .safetensors file and into one more entry, `provenance`, of
an a1111 .pt file. A diffusers or kohya pickle has no room for it: one key is all it may hold.
"""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from lib.errors import UserError

FORMATS = ("diffusers", "a1111", "kohya")
PICKLES = (".pt", ".bin")
SAFETENSORS = ".safetensors"
# A file names itself by its file name where its inner key says nothing: kohya, OneTrainer, ldm.
ANONYMOUS = {"emb_params": "kohya", "emp_params": "onetrainer", "*": "ldm"}
A1111_FIELDS = ("name", "step", "sd_checkpoint", "sd_checkpoint_name")
# Of torch's archive, what every reader of one knows.
MEMBER = re.compile(r"[^/]+/(data\.pkl|version|data/\d+)")
MAX_BYTES = 32 * 2**20  # 75 vectors of 4096 float64 are 2.4 MB; a checkpoint is hundreds
STAR = 265  # the id of "*" in CLIP's vocabulary, which every a1111 file records
SAFE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class EmbeddingError(UserError):
    """A token, a file of token vectors or its width that cannot be used."""


@dataclass(frozen=True)
class Stored:
    """What a file holds, unchecked: the tensor as it is stored and what is said about it."""

    vectors: torch.Tensor
    format: str
    key: str | None = None  # None where only the file's name can name the token
    meta: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> Stored:
    """The one tensor of an embedding file, whatever tool wrote it and whatever it is called.

    A pickle is read with `weights_only=True`: one that asks for code is refused, never run.
    Raises EmbeddingError for a file that is missing, damaged, not an embedding, or for SDXL.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise EmbeddingError(f"{path} is a folder: name the embedding file in it")
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError as error:
        raise EmbeddingError(f"{path}: no such file: check the path of the embedding") from error
    except OSError as error:
        raise EmbeddingError(f"{path}: cannot be opened ({error.strerror})") from error
    if size > MAX_BYTES:
        raise EmbeddingError(
            f"{path}: {size / 2**20:.0f} MB is too large for an embedding (at most "
            f"{MAX_BYTES // 2**20} MB): a checkpoint? name the file of token vectors"
        )
    if start[8:9] == b"{":
        return _identify(*_read_safetensors(path), path)
    if start[:4] == b"PK\x03\x04":
        _check_archive(path)
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        return _identify(_read_pickle(path), {}, path)
    raise EmbeddingError(f"{path}: neither a .safetensors nor a .pt file inside: download it again")


def encode(format: str, suffix: str, token: str, vectors: torch.Tensor, meta: Mapping[str, str]) -> bytes:
    """The bytes of an embedding file; the same input gives the same bytes.

    `vectors` [K, D] in the dtype to be stored. Raises EmbeddingError for an unknown format or
    suffix.
    """
    if format not in FORMATS:
        raise EmbeddingError(f"unknown embedding format {format!r}: one of {', '.join(FORMATS)}")
    if suffix not in (SAFETENSORS, *PICKLES):
        known = ", ".join((SAFETENSORS, *PICKLES))
        raise EmbeddingError(f"unknown embedding file type {suffix!r}: end the name in {known}")
    key = token if format == "diffusers" else "emb_params"
    if suffix == SAFETENSORS:
        return _safetensors(key, vectors, meta)
    if format != "a1111":
        return _pickle({key: vectors})
    step = meta.get("step", "")
    return _pickle(
        {
            "string_to_token": {"*": STAR},
            "string_to_param": {"*": vectors},
            "name": token.strip("<>"),
            "step": int(step) if step.isdecimal() and len(step) < 19 else None,  # of 64 bits
            "sd_checkpoint": meta.get("sd_checkpoint"),
            "sd_checkpoint_name": meta.get("sd_checkpoint_name"),
            "provenance": dict(sorted(meta.items())),
        }
    )


def _pickle(content: dict) -> bytes:
    """torch's archive, without the members that later versions of it add: AUTOMATIC1111 refuses those."""
    buffer, plain = io.BytesIO(), io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as written, zipfile.ZipFile(plain, "w") as kept:
        for name in filter(MEMBER.fullmatch, written.namelist()):
            kept.writestr(zipfile.ZipInfo(name), written.read(name))  # of a fixed date: the same bytes
    return plain.getvalue()


def _safetensors(key: str, vectors: torch.Tensor, meta: Mapping[str, str]) -> bytes:
    # Not safetensors.torch.save: it writes the metadata in another order at each call.
    data = vectors.contiguous().view(torch.uint8).numpy().tobytes()
    entry = {
        "dtype": SAFE_NAMES[vectors.dtype],
        "shape": list(vectors.shape),
        "data_offsets": [0, len(data)],
    }
    header = {"__metadata__": dict(sorted(meta.items())), key: entry}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _read_safetensors(path: Path) -> tuple[dict, dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise EmbeddingError(f"{path}: damaged safetensors file ({error}): download it again") from error


def _check_archive(path: Path) -> None:
    """Raises EmbeddingError for one that unpacks to more than it weighs; torch's own are not compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            whole = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise EmbeddingError(f"{path}: refused: damaged ({error}): download it again") from error
    if whole > MAX_BYTES:
        raise EmbeddingError(
            f"{path}: refused: unpacks to {whole / 2**20:.0f} MB, too large for an embedding"
        )


def _read_pickle(path: Path) -> object:
    # ParameterDict: what the first textual inversion code and old web UIs put in string_to_param.
    allowed = [torch.nn.ParameterDict]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")  # on odd protocols; what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle can raise anything
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted:
            raise EmbeddingError(
                f"{path}: refused: opening this pickle would run code ({wanted[1]}): get the "
                "embedding as a .safetensors file"
            ) from error
        raise EmbeddingError(
            f"{path}: refused: damaged, or a pickle of something other than tensors "
            f"({type(error).__name__}): download it again or get it as .safetensors"
        ) from error


def _identify(content: object, meta: dict[str, str], path: Path) -> Stored:
    if not isinstance(content, Mapping):
        raise EmbeddingError(
            f"{path}: holds a {type(content).__name__}, not an embedding: save it with its token"
        )
    if {"clip_l", "clip_g"} & content.keys():
        raise EmbeddingError(
            f"{path}: an SDXL embedding (clip_l, clip_g); only Stable Diffusion 1 and 2 are "
            "supported: use an embedding trained for one of those"
        )
    if "string_to_param" in content:
        return _identify_a1111(content, path)
    tensors = {key: value for key, value in content.items() if torch.is_tensor(value)}
    key = _only(tensors, path)
    meta = {**_texts(content), **meta}
    if key in ANONYMOUS:
        return Stored(tensors[key], ANONYMOUS[key], None, meta)
    return Stored(tensors[key], "diffusers", str(key), meta)


def _identify_a1111(content: Mapping, path: Path) -> Stored:
    params = content["string_to_param"]
    if not isinstance(params, (Mapping, torch.nn.ParameterDict)):
        raise EmbeddingError(f"{path}: string_to_param is no table: download the file again")
    try:
        params = dict(params.items())
    except (AttributeError, KeyError, TypeError) as error:  # of a ParameterDict that lies about itself
        raise EmbeddingError(f"{path}: string_to_param is damaged: download the file again") from error
    vectors = params.get(_only(params, path))
    if not torch.is_tensor(vectors):
        raise EmbeddingError(f"{path}: string_to_param holds no tensor: download the file again")
    provenance = content.get("provenance")
    if isinstance(provenance, Mapping):
        return Stored(vectors, "a1111", None, _texts(provenance))
    return Stored(vectors, "a1111", None, _texts({k: content.get(k) for k in A1111_FIELDS}))


def _only(tensors: Mapping, path: Path):
    """The key of a table with exactly one entry."""
    if len(tensors) == 1:
        return next(iter(tensors))
    names = ", ".join(sorted(map(str, tensors))[:3])
    raise EmbeddingError(
        f"{path}: holds {len(tensors)} tensors ({names or 'none'}), an embedding file holds one: "
        "a checkpoint, a LoRA, or several embeddings? name a file of one"
    )


def _texts(table: Mapping) -> dict[str, str]:
    """The plain values of a table as strings, which is all that a safetensors header takes."""
    return {str(k): str(v) for k, v in table.items() if isinstance(v, (str, int, float))}
