"""TCP connections on an address that went away: they are destroyed, so that both ends hear of it (linux/inet_diag.h).

Without that a program here waits for ever on a connection whose address is elsewhere by now. SOCK_DESTROY is Linux ≥ 4.9
with CONFIG_INET_DIAG_DESTROY; a kernel without it is asked once.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from .. import scheduling
from .rtnl import (
    HEADER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    RECEIVE_BYTES,
    NetlinkError,
    attribute,
    messages,
)

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
INET_DIAG_REQ_BYTECODE = 1
INET_DIAG_BC_JMP, INET_DIAG_BC_S_COND = 1, 7
LISTEN, TIME_WAIT, CLOSE = 10, 6, 7
STATES = 0xFFE & ~(1 << LISTEN | 1 << TIME_WAIT | 1 << CLOSE)
"""Everything that somebody may wait for: a listener goes on with the next address."""
ADDRESSES_MAX = 64
"""Of one filter."""
AT_ONCE_MAX = 256
"""Connections of one message to the kernel."""

_REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states; then the identity
_IDENTITY = struct.Struct("=HH16s16sIII")  # ports, addresses (network order), interface, cookie
_OP = struct.Struct("=BBH")  # code, yes, no
_HOST = struct.Struct("=BBxxi")  # family, prefix length, port (-1: any)
_MESSAGE = struct.Struct("=BBBB")  # family, state, timer, retransmissions; then the identity


def only_from(addresses: Sequence[bytes]) -> bytes:
    """A filter of the kernel's little machine: a source address is one of these. An IPv4 one also passes as an IPv6
    socket's ::ffff:a.b.c.d."""
    conditions = [
        _HOST.pack(socket.AF_INET if len(ip) == 4 else socket.AF_INET6, len(ip) * 8, -1) + ip for ip in addresses
    ]
    sizes = [_OP.size + len(c) + _OP.size for c in conditions]
    left = sum(sizes)
    code = b""
    for number, (condition, size) in enumerate(zip(conditions, sizes, strict=True)):
        last = number == len(conditions) - 1
        test = _OP.size + len(condition)
        # if so, the jump that follows, to the end: accepted; else the next test, or beyond the end: refused
        code += _OP.pack(INET_DIAG_BC_S_COND, test, size + (4 if last else 0)) + condition
        code += _OP.pack(INET_DIAG_BC_JMP, _OP.size, left - test)
        left -= size
    return code


class Diag:
    """A socket to the kernel's list of sockets."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        self._socket.bind((0, 0))
        self._sequence = 0

    def can_destroy(self) -> bool:
        """Whether this kernel can: it is asked for a connection that there is not."""
        nobody = _IDENTITY.pack(0, 0, bytes(16), bytes(16), 0, 0xFFFFFFFF, 0xFFFFFFFF)
        return self._destroy([_REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, STATES) + nobody]) == [errno.ENOENT]

    def found(self, addresses: Sequence[bytes]) -> list[bytes]:
        """The connections from these addresses, each as what SOCK_DESTROY wants to be told."""
        found: list[bytes] = []
        for start in range(0, len(addresses), ADDRESSES_MAX):
            part = addresses[start : start + ADDRESSES_MAX]
            wanted = attribute(INET_DIAG_REQ_BYTECODE, only_from(part))
            for family in (socket.AF_INET, socket.AF_INET6):
                if family == socket.AF_INET and all(len(ip) == 16 for ip in part):
                    continue
                body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, STATES) + bytes(_IDENTITY.size) + wanted
                found += self._listed(body)
        return found

    def destroy(self, addresses: Sequence[bytes]) -> int:
        """Destroy every connection from these addresses; returns how many."""
        wanted, count = self.found(addresses), 0
        for start in range(0, len(wanted), AT_ONCE_MAX):
            count += self._destroy(wanted[start : start + AT_ONCE_MAX]).count(0)
        return count

    def _listed(self, body: bytes) -> list[bytes]:
        self._send([(SOCK_DIAG_BY_FAMILY, body)], NLM_F_DUMP)
        found: list[bytes] = []
        while True:
            for kind, sequence, content in messages(self._socket.recv(RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    raise NetlinkError(code, os.strerror(code))
                if len(content) >= _MESSAGE.size + _IDENTITY.size:
                    family = content[0]
                    identity = content[_MESSAGE.size : _MESSAGE.size + _IDENTITY.size]
                    found.append(_REQUEST.pack(family, socket.IPPROTO_TCP, 0, STATES) + identity)

    def _destroy(self, wanted: Sequence[bytes]) -> list[int]:
        """Returns the errno of each, 0 for those that are destroyed."""
        first = self._sequence + 1
        self._send([(SOCK_DESTROY, body) for body in wanted], NLM_F_ACK)
        codes: dict[int, int] = {}
        while len(codes) < len(wanted):
            for kind, sequence, content in messages(self._socket.recv(RECEIVE_BYTES)):
                if kind == NLMSG_ERROR and sequence >= first:
                    codes[sequence] = -struct.unpack_from("=i", content)[0]
        return [codes[n] for n in sorted(codes)]

    def _send(self, bodies: Sequence[tuple[int, bytes]], flags: int) -> None:
        packed = []
        for kind, body in bodies:
            self._sequence += 1
            packed.append(HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, self._sequence, 0) + body)
        self._socket.send(b"".join(packed))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Connections:
    """Destroys on a thread of its own; the loop, on which `gone` is called, does not wait. `destroyed` is called on that thread with a number, `failed`
    with a sentence. `still`: an address that is here again is left alone."""

    def __init__(
        self, still: Callable[[bytes], bool], destroyed: Callable[[int], None], failed: Callable[[str], None]
    ) -> None:
        self._still = still
        self._destroyed = destroyed
        self._failed = failed
        self._diag: Diag | None = None
        self._thread = ThreadPoolExecutor(1, "connections", scheduling.behind_the_loop)

    def start(self) -> None:
        """Open the socket, and ask whether it is of any use. Again: nothing."""
        if self._diag is not None:
            return
        try:
            diag = Diag()
            if diag.can_destroy():
                self._diag = diag
                return
            diag.close()
            why = "this kernel lacks SOCK_DESTROY (CONFIG_INET_DIAG_DESTROY)"
        except OSError as wrong:
            why = wrong.strerror or str(wrong)
        self._failed(f"connections on a VIP that goes away stay as they are: {why}")

    def gone(self, addresses: Sequence[bytes]) -> None:
        """These are no longer here."""
        if self._diag is not None and addresses:
            asyncio.get_running_loop().run_in_executor(self._thread, self._work, addresses)

    def _work(self, addresses: Sequence[bytes]) -> None:
        assert self._diag is not None
        away = [ip for ip in addresses if not self._still(ip)]
        try:
            count = self._diag.destroy(away) if away else 0
        except OSError as wrong:
            self._failed(f"connections could not be destroyed: {wrong.strerror or wrong}")
            return
        if count:
            self._destroyed(count)

    def close(self) -> None:
        """Finish what is under way; waits for the thread."""
        self._thread.shutdown()
        if self._diag is not None:
            self._diag.close()
