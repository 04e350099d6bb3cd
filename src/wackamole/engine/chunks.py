"""Payloads larger than what an engine carries go as chunks, each a message of its own.

    chunk := serial (4 bytes) · index (2) · count (2) · part of the payload

A sender's chunks arrive in the order they were sent, among those of others. Whoever was not there from the first one on
drops the rest; so that all members deliver the same, all drop what is unfinished at every change of membership.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from .contract import PAYLOAD_BYTES_MAX

CHUNK_BYTES = 143_000
"""Of a payload; the limit of Spread's C library for one message was 144 000 for long."""
CHUNKS_MAX = -(-PAYLOAD_BYTES_MAX // CHUNK_BYTES)
UNFINISHED_BYTES_MAX = 16 << 20
"""Of all senders together; beyond that the oldest payload is dropped, by all members alike."""

_HEADER = struct.Struct(">IHH")


def split(payload: bytes, serial: int) -> list[bytes]:
    """A payload as one or more bodies. `serial` is another one for each payload of this sender."""
    parts = [payload[i : i + CHUNK_BYTES] for i in range(0, len(payload), CHUNK_BYTES)] or [b""]
    return [_HEADER.pack(serial & 0xFFFFFFFF, i, len(parts)) + part for i, part in enumerate(parts)]


@dataclass(slots=True)
class _Unfinished:
    serial: int
    count: int
    parts: list[bytes] = field(default_factory=list)


class Joiner:
    """Payloads from the chunks of all senders, in bounded memory."""

    def __init__(self) -> None:
        self._unfinished: dict[str, _Unfinished] = {}
        self._bytes = 0

    def take(self, sender: str, body: bytes) -> bytes | None:
        """The payload that this chunk completes, or None. Raises ValueError if it is no chunk of ours."""
        if len(body) < _HEADER.size:
            raise ValueError(f"a chunk of {len(body)} bytes")
        serial, index, count = _HEADER.unpack_from(body)
        part = body[_HEADER.size :]
        if not index < count <= CHUNKS_MAX or len(part) > CHUNK_BYTES:
            raise ValueError(f"chunk {index} of {count} with {len(part)} bytes")
        if index == 0:
            self._drop(sender)
            if count == 1:
                return part
            self._unfinished[sender] = _Unfinished(serial, count)
        found = self._unfinished.get(sender)
        if found is None:
            return None  # its first chunk came before our time
        if (found.serial, found.count, len(found.parts)) != (serial, count, index):
            self._drop(sender)
            raise ValueError(f"chunk {index} of {count} does not follow the one before")
        found.parts.append(part)
        self._bytes += len(part)
        if len(found.parts) == count:
            payload = b"".join(found.parts)
            self._drop(sender)
            if len(payload) > PAYLOAD_BYTES_MAX:
                raise ValueError(f"a payload of {len(payload)} bytes")
            return payload
        while self._bytes > UNFINISHED_BYTES_MAX:
            self._drop(next(iter(self._unfinished)))
        return None

    def clear(self) -> None:
        """Drop what is unfinished: the membership changes."""
        self._unfinished.clear()
        self._bytes = 0

    def _drop(self, sender: str) -> None:
        gone = self._unfinished.pop(sender, None)
        if gone is not None:
            self._bytes -= sum(map(len, gone.parts))
