"""Frames on an interface of the lab with the kernel's time of each. Nothing is read while something is measured: reading would
take the CPU that is measured. So the kernel keeps them, by a filter that lets little through."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ..shell.kernel.claims import attach
from ..shell.kernel.rtnl import SO_RCVBUFFORCE
from .namespaces import opened_in

SO_TIMESTAMPNS = 35
LDH, LDB, LD, TAX, JEQ, JEQ_X, RET = 0x28, 0x30, 0x20, 0x07, 0x15, 0x1D, 0x06
"""Classic BPF (linux/filter.h): what filters are made of."""

Line = tuple[int, int, int, int]


class Tap:
    """What passes `lines` on one interface of a namespace, or on all of them. `kind`: an ethertype, or ETH_P_ALL; `snap_bytes`:
    how much of a frame is kept; `buffer_bytes`: of all that wait."""

    def __init__(
        self,
        namespace: str,
        kind: int,
        lines: Sequence[Line],
        *,
        snap_bytes: int,
        buffer_bytes: int,
        interface: str | None = None,
    ) -> None:
        self._snap_bytes = snap_bytes

        def opened() -> socket.socket:
            # of an interface: nothing is heard before it is bound, so that nothing gets past the filter
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0 if interface else socket.htons(kind))
            attach(s, b"".join(struct.pack("=HBBI", *line) for line in lines))
            s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer_bytes)
            s.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            if interface:
                s.bind((interface, kind))
            s.setblocking(False)
            return s

        self._socket = opened_in(namespace, opened)

    def frames(self) -> Iterator[tuple[bytes, float, Any]]:
        """What came since it was asked last, oldest first: a frame, its time (CLOCK_MONOTONIC, seconds) and its place
        (packet(7): interface, protocol, type of packet, …)."""
        apart = time.time() - time.monotonic()
        while True:
            try:
                frame, ancillary, _, where = self._socket.recvmsg(self._snap_bytes, 64)
            except BlockingIOError:
                return
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            yield frame, seconds + nanoseconds / 1e9 - apart, where

    def close(self) -> None:
        """Capture no more."""
        self._socket.close()
