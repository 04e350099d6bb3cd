"""Many VIPs, many nodes: what a take-over takes beyond the membership event, and what it costs to wait (docs/benchmarks.md).

Above a thousand addresses a client's own neighbour table is too small to judge by. So what counts is seen from another
host's interface: the moment at which each address was announced by its new holder.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass

from ..shell.kernel.claims import ETH_P_ARP
from ..shell.kernel.rtnl import SO_RCVBUFFORCE
from .lab import CLIENT, Lab
from .namespaces import opened_in

SO_TIMESTAMPNS, SO_ATTACH_FILTER = 35, 26
BUFFER_BYTES = 256 << 20
"""Nothing is read while it is measured: reading would take the CPU that is measured."""
_LDH, _LD, _TAX, _JEQ, _JEQ_X, _RET = 0x28, 0x20, 0x07, 0x15, 0x1D, 0x06
GRATUITOUS = (  # classic BPF: ARP requests whose sender's and target's address are one
    (_LDH, 0, 0, 20),
    (_JEQ, 0, 4, 1),
    (_LD, 0, 0, 28),
    (_TAX, 0, 0, 0),
    (_LD, 0, 0, 38),
    (_JEQ_X, 1, 0, 0),
    (_RET, 0, 0, 0),
    (_RET, 0, 0, 42),
)


class Capture:
    """Announcements as the client's interface sees them, with the kernel's time of each (CLOCK_MONOTONIC, seconds)."""

    def __init__(self, lab: Lab) -> None:
        self._socket = opened_in(lab.layout.namespace(CLIENT), self._opened)

    @staticmethod
    def _opened() -> socket.socket:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        program = b"".join(struct.pack("=HBBI", *line) for line in GRATUITOUS)
        lines = (len(GRATUITOUS), program)
        import ctypes

        held = ctypes.create_string_buffer(lines[1])
        s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", lines[0], ctypes.addressof(held)))
        s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        s.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        s.bind(("eth0", ETH_P_ARP))
        s.setblocking(False)
        return s

    def forget(self) -> None:
        """Begin anew."""
        self.first()

    def first(self) -> dict[tuple[str, str], float]:
        """Of what came since: when each address was first announced by each hardware address."""
        apart = time.time() - time.monotonic()
        found: dict[tuple[str, str], float] = {}
        while True:
            try:
                frame, ancillary, _, _ = self._socket.recvmsg(64, 64)
            except BlockingIOError:
                return found
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            at = seconds + nanoseconds / 1e9 - apart
            key = (socket.inet_ntoa(frame[28:32]), frame[6:12].hex(":"))
            found.setdefault(key, at)

    def close(self) -> None:
        """Capture no more."""
        self._socket.close()
