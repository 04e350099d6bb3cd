"""The cluster's key: 32 random bytes as one line of text, readable by nobody but its owner."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

KEY_BYTES_MIN, KEY_BYTES_MAX = 16, 4096
KEYS_MAX = 2


class KeyRefused(Exception):
    """A key file that cannot be used; the sentence says why."""


def write_new(path: Path) -> None:
    """Create a key file with mode 0600; never overwrites one."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyRefused(f"{path} exists already; a key is never overwritten") from None
    except OSError as wrong:
        raise KeyRefused(f"{path} cannot be created: {wrong.strerror}") from None
    with os.fdopen(fd, "w") as file:
        file.write(secrets.token_hex(32) + "\n")


def read(path: Path) -> bytes:
    """The secret in a key file. Refuses files that others may read."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(KEY_BYTES_MAX + 1).strip()
    except OSError as wrong:
        raise KeyRefused(f"{path} cannot be read: {wrong.strerror}") from None
    if mode & 0o077:
        raise KeyRefused(f"{path} can be read by others (mode {mode & 0o777:04o}); `chmod 0600 {path}`")
    if not KEY_BYTES_MIN <= len(content) <= KEY_BYTES_MAX:
        raise KeyRefused(f"{path} has {len(content)} bytes; a key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX}")
    return content


def read_all(path: Path) -> tuple[bytes, ...]:
    """The secrets in a key file of one or two lines: the first is used, the other one is valid as well."""
    found = tuple(line.strip() for line in read(path).splitlines() if line.strip())
    if len(found) > KEYS_MAX:
        raise KeyRefused(f"{path} has {len(found)} lines; at most {KEYS_MAX} keys can be valid at once")
    short = [number for number, key in enumerate(found, 1) if len(key) < KEY_BYTES_MIN]
    if short:
        raise KeyRefused(f"{path}:{short[0]}: a key has at least {KEY_BYTES_MIN} bytes")
    return found
