"""What a health check looks at: one class for each kind, in the checker's process. `look` returns what it saw when that is
well, and raises Unwell with what it saw when it is not; whoever calls it bounds the time.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from . import child

if TYPE_CHECKING:
    import ssl

    from .kernel.claims import Claim

T = TypeVar("T")

SAID_CHARACTERS_MAX = 200
"""Of what a check saw."""
HEAD_BYTES_MAX, BODY_BYTES_MAX = 16 << 10, 64 << 10
SIOCGIFFLAGS, SIOCGIFHWADDR = 0x8913, 0x8927  # linux/sockios.h
IFF_UP, IFF_RUNNING = 0x1, 0x40  # linux/if.h
COMM_CHARACTERS_MAX = 15
"""The kernel keeps so much of a program's name."""
ASK_AGAIN_SECONDS = 0.3


class Unwell(Exception):
    """It is not as it should be; the sentence is shown to people."""


class Probe(Protocol):
    """Looks at one thing."""

    async def look(self) -> str:
        """What is seen when all is well, "" for nothing worth telling. Raises Unwell, or OSError."""


@dataclass(slots=True)
class Tcp:
    """Whether somebody accepts connections."""

    host: str
    port: int

    async def look(self) -> str:
        """Connects."""
        _, writer = await connected(self.host, self.port)
        writer.transport.abort()
        return ""


async def connected(
    host: str, port: int, tls: ssl.SSLContext | None = None, name: str | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection. Raises Unwell."""
    try:
        return await asyncio.open_connection(
            host, port, limit=HEAD_BYTES_MAX, ssl=tls, server_hostname=name if tls is not None else None
        )
    except OSError as no:
        raise Unwell(said(no)) from None


def said(wrong: OSError) -> str:
    """What went wrong, without addresses: where one connects to is in the file."""
    known = {errno.ECONNREFUSED: "connection refused", errno.ETIMEDOUT: "timed out"}
    verify = getattr(wrong, "verify_message", "")
    if verify:
        return f"certificate: {verify}"
    return known.get(wrong.errno or 0) or wrong.strerror or type(wrong).__name__


@dataclass
class Http:
    """Whether a page is as wanted."""

    host: str
    port: int
    path: str
    host_header: str
    status: list[list[int]]
    body: str
    tls: bool
    tls_verify: bool
    tls_name: str
    tls_ca: str
    tls_cert: str
    tls_key: str

    @cached_property
    def _context(self) -> ssl.SSLContext | None:
        if not self.tls:
            return None
        import ssl

        context = ssl.create_default_context(cafile=self.tls_ca or None)
        if not self.tls_verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.tls_cert:
            context.load_cert_chain(self.tls_cert, self.tls_key or None)
        return context

    async def look(self) -> str:
        """Asks for it."""
        try:
            context = self._context
        except OSError as no:
            raise Unwell(f"tls_ca, tls_cert or tls_key cannot be used: {no.strerror or no}") from None
        reader, writer = await connected(self.host, self.port, context, self.tls_name)
        try:
            return await self._ask(reader, writer)
        except OSError as no:
            raise Unwell(said(no)) from None
        finally:
            writer.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        import h11

        talk = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        headers = [("Host", self.host_header), ("User-Agent", "wackamole"), ("Connection", "close")]
        request = talk.send(h11.Request(method="GET", target=self.path, headers=headers))
        writer.write((request or b"") + (talk.send(h11.EndOfMessage()) or b""))
        seen, body, wanted = "", bytearray(), self.body.encode()
        while True:
            try:
                event = talk.next_event()
            except h11.RemoteProtocolError as no:
                raise Unwell(f"no HTTP answer: {str(no)[:80]}") from None
            if event is h11.NEED_DATA:
                talk.receive_data(await reader.read(HEAD_BYTES_MAX))
            elif isinstance(event, h11.Response):
                code = event.status_code
                reason = child.first_line(event.reason, 40)
                seen = f"{code} {reason}".strip()
                if not any(low <= code <= high for low, high in self.status):
                    raise Unwell(f"status {seen}")
                if not wanted:
                    return seen
            elif isinstance(event, h11.Data):
                begin = max(0, len(body) - len(wanted))
                body += event.data[: BODY_BYTES_MAX - len(body)]
                if body.find(wanted, begin) >= 0:
                    return seen
            elif not isinstance(event, h11.InformationalResponse):
                raise Unwell(f"status {seen}, but the body does not have the wanted text")
            if len(body) >= BODY_BYTES_MAX:
                raise Unwell(f"status {seen}, but the first {BODY_BYTES_MAX >> 10} kB do not have the wanted text")


@dataclass(slots=True)
class Exec:
    """Whether a program ends with 0. It knows by its environment whose check it is."""

    command: list[str]
    environment: Mapping[str, str]

    async def look(self) -> str:
        """Runs it."""
        try:
            code, written = await child.run(tuple(self.command), self.environment)
        except child.NotStarted as no:
            raise Unwell(str(no)) from None
        line = child.first_line(written, SAID_CHARACTERS_MAX)
        if code:
            how = f"exit {code}" if code > 0 else f"signal {-code}"
            raise Unwell(f"{how}: {line}" if line else how)
        return line


@dataclass(slots=True)
class Unit:
    """Whether systemd says that a unit is active."""

    unit: str

    async def look(self) -> str:
        """Asks systemctl."""
        try:
            code, written = await child.run(("/usr/bin/systemctl", "is-active", "--", self.unit), {})
        except child.NotStarted as no:
            raise Unwell(str(no)) from None
        line = child.first_line(written, SAID_CHARACTERS_MAX)
        if code:
            raise Unwell(line or f"systemctl ended with {code}")
        return line


@dataclass(slots=True)
class OffLoop:
    """Calls what may hang in the kernel, on a disk for example, in a thread; not again while the last call has not returned."""

    _running: asyncio.Future[object] | None = None

    async def call(self, function: Callable[[], T]) -> T:
        """The function's result. Raises Unwell, and what the function raises."""
        if self._running is not None and not self._running.done():
            raise Unwell("the kernel has not answered the last look yet")
        future = asyncio.get_running_loop().run_in_executor(None, function)
        self._running = future  # type: ignore[assignment]
        return await asyncio.shield(future)


@dataclass(slots=True)
class Process:
    """Whether a process runs: of this name, or with the number that a file has."""

    name: str
    pid_file: str
    _off_loop: OffLoop = field(default_factory=OffLoop)

    async def look(self) -> str:
        """Looks into /proc."""
        return await self._off_loop.call(self._by_file if self.pid_file else self._by_name)

    def _by_file(self) -> str:
        try:
            text = Path(self.pid_file).read_bytes()[:32].split()
            pid = int(text[0]) if text else 0
        except (OSError, ValueError) as no:
            raise Unwell(
                f"no number can be read from {self.pid_file}: {getattr(no, 'strerror', 'it has none')}"
            ) from None
        if pid <= 0 or _name_of(str(pid)) is None:
            raise Unwell(f"there is no process {pid}")
        return f"process {pid}"

    def _by_name(self) -> str:
        wanted = self.name[:COMM_CHARACTERS_MAX]
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and _name_of(entry.name) == wanted:
                return f"process {entry.name}"
        raise Unwell("no such process")


def _name_of(pid: str) -> str | None:
    """The name of a process that lives: of a dead one nothing is left but its parent has not asked yet."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    return None if rest.split()[0] in ("Z", "X") else name


@dataclass(slots=True)
class File:
    """Whether something is there, or is not."""

    path: str
    exists: bool
    _off_loop: OffLoop = field(default_factory=OffLoop)

    async def look(self) -> str:
        """Looks for it."""
        there = await self._off_loop.call(self._there)
        if there != self.exists:
            raise Unwell("it is there" if there else "it is not there")
        return "it is there" if there else "it is not there"

    def _there(self) -> bool:
        try:
            Path(self.path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as no:
            raise Unwell(f"cannot be looked for: {no.strerror}") from None
        return True


@dataclass(slots=True)
class Interface:
    """Whether an interface is up and has a carrier."""

    interface: str

    async def look(self) -> str:
        """Asks the kernel."""
        flags = int.from_bytes(_of_interface(self.interface, SIOCGIFFLAGS)[:2], "little")
        if flags & IFF_UP and flags & IFF_RUNNING:
            return "carrier"
        raise Unwell("no carrier" if flags & IFF_UP else "it is down")


def _of_interface(name: str, what: int) -> bytes:
    """What the kernel knows of an interface (netdevice(7)). Raises Unwell."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        try:
            return fcntl.ioctl(s, what, struct.pack("16s24x", name.encode()))[16:]
        except OSError as no:
            raise Unwell("there is no such interface" if no.errno == errno.ENODEV else f"{no.strerror}") from None


@dataclass(slots=True)
class Gateway:
    """Whether a neighbour answers ARP or a neighbour solicitation."""

    gateway: str
    interface: str

    async def look(self) -> str:
        """Asks it until it answers."""
        from .kernel.claims import Ears
        from .kernel.fence import Guarded
        from .kernel.witness import question

        family = socket.AF_INET6 if ":" in self.gateway else socket.AF_INET
        target = socket.inet_pton(family, self.gateway)
        mac = _of_interface(self.interface, SIOCGIFHWADDR)[2:8]
        index = socket.if_nametoindex(self.interface)
        frame = question(mac, self._source(family), target)
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def heard(claim: Claim) -> None:
            if claim.ip == target and not answered.done():
                answered.set_result(claim.mac)

        ears = Ears(heard)
        try:
            ears.listen([Guarded(index, self.interface, frozenset({target}))])
            if ears.deaf:
                raise Unwell(f"cannot ask: {ears.deaf[self.interface]}")
            while not answered.done():
                ears.send(index, frame)
                await asyncio.wait({answered}, timeout=ASK_AGAIN_SECONDS)
        finally:
            ears.close()
        return answered.result().hex(":")

    def _source(self, family: int) -> bytes:
        """The address by which this host would speak to it."""
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            try:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode())
                s.connect((self.gateway, 9))
            except OSError as no:
                raise Unwell(f"cannot ask: {no.strerror}") from None
            return socket.inet_pton(family, s.getsockname()[0].partition("%")[0])


PROBES: dict[str, Callable[..., Probe]] = {
    "tcp": Tcp,
    "http": Http,
    "exec": Exec,
    "process": Process,
    "unit": Unit,
    "file": File,
    "interface": Interface,
    "gateway": Gateway,
}
