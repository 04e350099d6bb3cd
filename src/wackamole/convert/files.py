"""The files and options of `wackamole convert`: the only part of it that touches the disk."""

from __future__ import annotations

import re
from pathlib import Path

from ..config import FILE_BYTES_MAX
from .facts import Source

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._:-]{0,62})=(.+)", re.DOTALL)


class NotRead(Exception):
    """A file that cannot be read or written; the sentence says why."""


def read_source(argument: str) -> Source:
    """`FILE`, or `NODE=FILE`. Raises NotRead."""
    named = _NAMED.fullmatch(argument)
    node, path = (named[1], named[2]) if named else (None, argument)
    try:
        with Path(path).open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as wrong:
        raise NotRead(f"{path} cannot be read: {wrong.strerror}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise NotRead(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    return Source(path, text_of(raw), node)


def text_of(raw: bytes) -> str:
    """The text of an old file, which may be Latin-1."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def node_option(text: str) -> tuple[str, tuple[str, ...]]:
    """`NAME=ADDRESS[,ADDRESS…]`. Raises ValueError with a sentence."""
    named = _NAMED.fullmatch(text)
    if named is None:
        raise ValueError(f"--node {text}: NAME=ADDRESS is needed, as in --node a=10.0.0.11")
    return named[1], tuple(a.strip() for a in named[2].split(","))


def write(path: Path, text: str, *, force: bool) -> None:
    """Write a file that is not there yet, or any with `force`. Raises NotRead."""
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise NotRead(f"{path} exists; --force overwrites it") from None
    except OSError as wrong:
        raise NotRead(f"{path} cannot be written: {wrong.strerror}") from None
