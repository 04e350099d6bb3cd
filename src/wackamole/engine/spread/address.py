"""Where the Spread daemon listens, as Spread's own programs write it: `4803@host`, `4803`, or the path of its socket."""

from __future__ import annotations

import re
from dataclasses import dataclass

PATH_BYTES_MAX = 107
SESSION_DEFAULT = "w"
SESSION = re.compile(r"[A-Za-z]{1,3}\Z")
"""What members call themselves by, before their number: `session` under [engine]."""
_SOCKETS = "/tmp"  # noqa: S108 -- where a daemon puts its socket unless it was built otherwise
_ADDRESS = re.compile(r"(\d{1,5})(?:@(\S{1,253}))?\Z")


@dataclass(frozen=True, slots=True)
class SpreadAddress:
    """A Unix socket's path, or (`path` empty) a TCP port of a host."""

    path: str
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return self.path or f"{self.port}@{self.host}"


def spread_address(text: str) -> SpreadAddress:
    """Read an address; a port alone means the Unix socket, as for Spread's programs. Raises ValueError with a sentence."""
    if text.startswith("/"):
        if len(text.encode()) > PATH_BYTES_MAX:
            raise ValueError(f"is longer than the {PATH_BYTES_MAX} bytes that a socket's path may have")
        return SpreadAddress(text)
    found = _ADDRESS.match(text)
    if found is None or not 0 < int(found[1]) < 65536:
        raise ValueError("is no address of a Spread daemon: 4803@localhost, 4803, or the path of its socket")
    port, host = found[1], found[2]
    try:
        (host or "").encode("idna")
    except UnicodeError:
        raise ValueError(f"has {host[:40]!r} for a host, which is no name that could be looked up") from None
    return SpreadAddress("", host, int(port)) if host else SpreadAddress(f"{_SOCKETS}/{int(port)}")
