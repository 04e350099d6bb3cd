"""Taking away what a dead daemon left: the addresses, routes and rules with our tag, then the fence. Nothing else is touched.

For ExecStopPost= and for people. While a daemon lives nothing is removed. The key goes first: the kernel refuses it as long
as its owner lives, which no process id could tell as surely. Then the addresses, and the gate last: what is still there
must not answer.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass

from .fence import GATE, KEY, remove_table
from .guard import remove_addresses
from .keeper import shown
from .nfnetlink import Nftables, NftablesError
from .routes import RoutingTables

NO_NFTABLES = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL)
"""A kernel without nf_tables: nobody can have made a fence."""


class NotReleased(Exception):
    """Something was left as it is; the sentence says what and why."""


@dataclass(frozen=True, slots=True)
class Released:
    """What was removed: (address/prefix, interface), and names of tables."""

    addresses: tuple[tuple[str, str], ...]
    tables: tuple[str, ...]
    routes: int = 0
    """Routes and policy rules."""


def release(control_socket: str) -> Released:
    """Remove every address, route and rule that carries our tag, and the fence. Raises NotReleased while a daemon lives (its fence, or
    whoever answers on the socket, says so), without the right to it, and when the kernel refuses; what was removed by
    then stays removed, and the gate stays as long as an address does."""
    if _answers(control_socket):
        raise NotReleased(f"a daemon answers on {control_socket}; `wackamole leave` stops it and leaves nothing behind")
    tables = []
    nftables = _nftables()
    try:
        if nftables is not None and _remove(nftables, KEY):
            tables.append(KEY)
        addresses, routes = _remove_addresses()
        if nftables is not None and _remove(nftables, GATE):
            tables.append(GATE)
    finally:
        if nftables is not None:
            nftables.close()
    return Released(addresses, tuple(tables), routes)


def _answers(path: str) -> bool:
    """Whether a process listens there, be it stopped; a socket's file outlives its process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as s:
        try:
            s.connect(path)
        except BlockingIOError:  # its queue is full: it is there
            return True
        except OSError:
            return False
    return True


def _nftables() -> Nftables | None:
    try:
        return Nftables()
    except OSError as wrong:
        if wrong.errno in NO_NFTABLES:
            return None
        raise


def _remove(nftables: Nftables, name: str) -> bool:
    try:
        return remove_table(nftables, name)
    except NftablesError as wrong:
        if wrong.errno in NO_NFTABLES:
            return False
        if wrong.errno == errno.EPERM and wrong.at is None:
            raise NotReleased(_NO_RIGHT) from None
        if wrong.errno == errno.EPERM:
            raise NotReleased("a daemon lives in this network namespace: its fence has an owner") from None
        raise NotReleased(f"the table {name} cannot be removed: {wrong.strerror}") from None


_NO_RIGHT = "removing addresses needs the right to configure the network: be root (CAP_NET_ADMIN)"


def _remove_addresses() -> tuple[tuple[tuple[str, str], ...], int]:
    rtnl = RoutingTables()
    try:
        entries = rtnl.ours()
        kept = rtnl.take(entries)
        names = {link.index: link.name for link in rtnl.links()}
        found, refused = remove_addresses(rtnl)
    finally:
        rtnl.close()
    if errno.EPERM in (*refused.values(), *kept.values()):
        raise NotReleased(_NO_RIGHT)
    if refused:
        said = (f"{shown(a)} on {names.get(a.index, a.index)}: {os.strerror(code)}" for a, code in refused.items())
        raise NotReleased(f"the kernel keeps {'; '.join(said)}")
    return tuple((shown(a), names.get(a.index, f"interface {a.index}")) for a in found), len(entries) - len(kept)
