"""Token vectors with their provenance: checks, files, and where they stand in a prompt.

On the command line, a converter (into diffusers, a1111 or kohya), an inspector and a writer of cards:

    python -m lib.embedding tumour.pt tumour.safetensors --format diffusers
    python -m lib.embedding inspect tumour.safetensors
    python -m lib.embedding card tumour.safetensors         # writes tumour.md, ready for a model hub

It reads what `lib.embedding_files` lists, and never runs code that a file carries.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lib import embedding_files as files
from lib.card import card
from lib.embedding_files import EmbeddingError
from lib.errors import UserError, printable
from lib.runs import atomic_write

__all__ = ["Embedding", "EmbeddingError", "Token", "check_token", "check_width", "split_prompt"]

MAX_VECTORS = 75  # CLIP's 77 positions less the start and the end
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Embedding:
    """K trained vectors behind one placeholder token.

    vectors  float32 [K, D] on the CPU, detached from any graph; K from 1 to 75, all finite.
             A single vector [D] is taken as [1, D].
    token    what stands for them in a prompt, by custom in angle brackets; in lower case, as
             CLIP reads prompts: of `<Tumour>`, plain diffusers would use the first vector only
    meta     provenance, strings only; kept in a safetensors header and in an a1111 .pt
    dtype    what `save` stores the numbers as: that of the file they came from, so that
             reading and writing is lossless; float32 for vectors made here
    source   the file they came from, for messages

    Two embeddings are equal only if they are the same object, so that one can be a key of the
    weights that `generate` takes; compare `digest` to compare contents.

    Raises EmbeddingError for vectors, tokens or provenance that no file could carry.
    """

    vectors: torch.Tensor
    token: str = "<name>"
    meta: dict[str, str] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    source: Path | None = None

    def __post_init__(self) -> None:
        where = str(self.source or f"embedding {self.token!r}")
        check_token(self.token, where)
        for key, value in self.meta.items():
            if not (isinstance(key, str) and isinstance(value, str)):
                raise EmbeddingError(f"{where}: provenance {key!r}: {value!r} must be strings")
        if self.dtype not in DTYPES.values():
            raise EmbeddingError(f"{where}: cannot store {self.dtype}: one of {', '.join(DTYPES)}")
        object.__setattr__(self, "vectors", _checked(self.vectors, where))
        object.__setattr__(self, "token", self.token.lower())
        object.__setattr__(self, "meta", dict(self.meta))

    def __repr__(self) -> str:
        count, width = self.vectors.shape
        return f"Embedding({self.token!r}, {count} x {width})"

    @property
    def name(self) -> str:
        """The token without its angle brackets."""
        return self.token.strip("<>")

    @property
    def tokens(self) -> tuple[str, ...]:
        """The K tokens that diffusers makes of it: `<t>`, `<t>_1`, `<t>_2`, ..."""
        return (self.token, *(f"{self.token}_{i}" for i in range(1, len(self.vectors))))

    @property
    def nbytes(self) -> int:
        """Bytes that the vectors take in a file, header not counted."""
        return self.vectors.numel() * self.dtype.itemsize

    @property
    def rms(self) -> torch.Tensor:
        """Root mean square of each vector's coordinates, [K]."""
        return self.vectors.square().mean(1).sqrt()

    @property
    def digest(self) -> str:
        """16 hex digits of the numbers (not of the token, which changes no picture)."""
        numbers = self.vectors.numpy().astype("<f4").tobytes()
        return hashlib.sha256(f"{tuple(self.vectors.shape)}".encode() + numbers).hexdigest()[:16]

    def check_width(self, width: int, where: object) -> None:
        """Raise EmbeddingError unless the vectors are as wide as the tokens of base `where`."""
        check_width(self.vectors.shape[1], width, str(self.source or self.token), where)

    def save(self, path: str | Path, format: str = "diffusers", dtype: torch.dtype | None = None) -> Path:
        """Write `path` (.safetensors, .pt or .bin) and return it; a file there is replaced.

        `format` diffusers, a1111 or kohya. The file appears whole or not at all, and the same
        embedding gives the same bytes. In a1111 and kohya files the file's name is the token.
        `dtype` None keeps `self.dtype`. Raises EmbeddingError where float16 would overflow.
        """
        path = Path(os.path.expanduser(path))
        chosen = replace(self, dtype=dtype or self.dtype)
        numbers = chosen.vectors.to(chosen.dtype)
        if not torch.isfinite(numbers).all():
            raise EmbeddingError(f"{path}: values overflow {chosen.dtype}: save as float32")
        content = files.encode(format, path.suffix.lower(), self.token, numbers, self.meta)
        return _written(path, content)

    @classmethod
    def load(cls, path: str | Path, token: str | None = None) -> Embedding:
        """Read a file of diffusers, a1111, kohya, invoke, OneTrainer or the first ldm code.

        The token is `token` if given; else a diffusers file's key; else the file's name in angle
        brackets, since the names inside the other formats are not to be trusted.
        """
        path = Path(os.path.expanduser(path))
        stored = files.read(path)
        token = token or stored.key or _token_of(path)
        dtype = stored.vectors.dtype
        dtype = dtype if dtype in DTYPES.values() else torch.float32
        return cls(stored.vectors, token, stored.meta, dtype, path)


class Token(str):
    """A piece of a prompt that stands for an embedding."""


def split_prompt(prompt: str, tokens: Iterable[str]) -> list[str | Token]:
    """Cut a prompt into plain text and known tokens, in order and with nothing left out.

    A token counts only where it is a word of its own: in `pretumour`, `<tumour>x` or
    `<tumour>_1` neither `tumour` nor `<tumour>` is found, while `(<tumour>),` and
    `<tumour><gland>` hold them. Where two tokens fit, the longer one wins. Case is ignored, as
    CLIP ignores it. A `Token` is spelled as in `tokens`; the other pieces are non-empty text.
    """
    known = {token.lower(): Token(token) for token in tokens}
    for token in known:
        check_token(token, f"prompt {prompt!r}")
    if not known:
        return [prompt] if prompt else []
    words = map(_as_word, sorted(known, key=lambda token: (-len(token), token)))
    pieces = re.split(f"({'|'.join(words)})", prompt, flags=re.IGNORECASE)
    return [known[piece.lower()] if i % 2 else piece for i, piece in enumerate(pieces) if piece]


def holds_token(prompt: str, token: str) -> bool:
    """Whether `token` is a word of its own in the prompt, as `split_prompt` has it."""
    return any(isinstance(piece, Token) for piece in split_prompt(prompt, [token]))


def _as_word(token: str) -> str:
    # A hyphen binds bare words ("cat-toy" is not "cat"), not brackets ("<cat>-like").
    before = r"(?<![\w<])" if token.startswith("<") else r"(?<![\w<-])"
    after = r"(?![\w>])" if token.endswith(">") else r"(?![\w>-])"
    return before + re.escape(token) + after


def check_token(token: str, where: object) -> None:
    """Raise EmbeddingError unless `token` can stand in a prompt, and its name in a file's: one word of at
    most 100 characters, no comma, no slash."""
    usable = (
        isinstance(token, str)
        and token.isprintable()
        and not re.search(r"[\s,/\\]", token)
        and len(token) <= 100
        and token.strip("<>")
        and token != "__metadata__"
    )
    if not usable:
        raise EmbeddingError(
            f"{where}: token {str(token)[:100]!r} must be one word without spaces, commas and slashes, "
            "such as '<tumour>': give another token"
        )


def check_width(width: int, expected: int, file: object, where: object) -> None:
    """Raise EmbeddingError unless vectors `width` wide fit base `where`, `expected` wide."""
    if width == expected:
        return
    known = {768: " (Stable Diffusion 1)", 1024: " (Stable Diffusion 2)"}
    raise EmbeddingError(
        f"{file}: vectors are {width} wide{known.get(width, '')}, base {where} takes "
        f"{expected}{known.get(expected, '')}: use an embedding trained on that base, or the base "
        "that it was trained on"
    )


def _checked(vectors: torch.Tensor, where: str) -> torch.Tensor:
    """A float32 copy [K, D] on the CPU."""
    plain = torch.is_tensor(vectors) and vectors.layout == torch.strided
    if not plain or vectors.is_meta or vectors.is_nested:
        raise EmbeddingError(f"{where}: vectors must be a dense tensor [K, D]")
    if not vectors.is_floating_point():
        raise EmbeddingError(f"{where}: vectors of {vectors.dtype} are no embedding: floats needed")
    vectors = vectors.detach()
    if vectors.ndim == 1:
        vectors = vectors[None]
    shape = " x ".join(map(str, vectors.shape)) or "a single number"
    if vectors.ndim != 2 or not 1 <= len(vectors) <= MAX_VECTORS or not vectors.shape[1]:
        raise EmbeddingError(
            f"{where}: {shape} is no embedding: 1 to {MAX_VECTORS} vectors of one width needed, "
            "which is all that a prompt can hold"
        )
    if vectors.numel() * 8 > files.MAX_BYTES:
        raise EmbeddingError(f"{where}: {shape} numbers are too many for an embedding")
    try:
        copy = torch.empty(vectors.shape, dtype=torch.float32).copy_(vectors)
    except (NotImplementedError, RuntimeError) as error:
        raise EmbeddingError(f"{where}: vectors of {vectors.dtype} cannot be read as float32") from error
    if not torch.isfinite(copy).all():
        bad = int((~torch.isfinite(copy)).sum())
        raise EmbeddingError(
            f"{where}: {bad} of {copy.numel()} numbers are not finite: train again with a lower "
            "learning rate or in float32"
        )
    return copy


def _token_of(path: Path) -> str:
    """The token that a file's name gives: `my tumour.pt` is `<my-tumour>`."""
    word = re.sub(r"[^\w.+-]+", "-", path.stem).strip("-")
    return f"<{word or 'embedding'}>"


def _inspect(path: Path) -> str:
    emb, form = Embedding.load(path), files.read(path).format
    norms = emb.vectors.norm(dim=1)
    rows = {
        "file": f"{path} ({path.stat().st_size:,} bytes, {form})",
        "token": emb.token,
        "vectors": f"{len(emb.vectors)} x {emb.vectors.shape[1]}, {str(emb.dtype)[6:]}",
        "RMS": f"{emb.vectors.square().mean().sqrt():.4f} "
        f"({emb.rms.min():.4f} to {emb.rms.max():.4f} a vector)",
        "norm": f"{norms.mean():.3f} ({norms.min():.3f} to {norms.max():.3f} a vector)",
        "digest": emb.digest,
        **{f"  {key}": value for key, value in sorted(emb.meta.items())},
    }
    longest = max(map(len, rows))
    return "\n".join(printable(f"{key:<{longest}}  {value}") for key, value in rows.items())


def _written(path, content):
    try:
        return atomic_write(path, content)
    except OSError as error:
        raise EmbeddingError(f"{path}: cannot be written ({error.strerror}): choose another place") from error


def main(argv: list[str] | None = None) -> int:
    """The command line: convert a file, print what is in it, or write its card. Status 1 on bad input."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m lib.embedding", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("input", type=Path, help="the file to read, or the word `inspect` or `card`")
    parser.add_argument("output", type=Path, help="the file to write, or the one to inspect or describe")
    parser.add_argument("--format", choices=files.FORMATS, default="diffusers")
    parser.add_argument("--token", help="instead of the one in the file or in its name")
    parser.add_argument("--dtype", choices=DTYPES, help="as in the file, if not given")
    given = parser.parse_args(argv)
    try:
        if str(given.input) == "inspect":
            print(_inspect(given.output))
        elif str(given.input) == "card":
            page = card(Embedding.load(given.output), given.output.name)
            print(_written(given.output.with_suffix(".md"), page))
        else:
            emb = Embedding.load(given.input, given.token)
            print(emb.save(given.output, given.format, DTYPES.get(given.dtype)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
