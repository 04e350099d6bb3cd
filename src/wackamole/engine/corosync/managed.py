"""The private Corosync: written, started, adopted, stopped.

It outlives the daemon: a killed daemon must look like a dead process to its peers, not like a dead host (hazard 30).
So it runs in a session of its own and, under systemd, in a unit of its own; the next daemon adopts it if it runs with
the config that would be written now. A clean leave stops it.

It takes longer to start than the daemon's own modules take to load, so a daemon begins it first (`begin`), before it loads
asyncio.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...config import NodeConfig
from .cfg import reload_config
from .conf import RingNode, corosync_conf, derived_key, timings
from .cpg import CpgError, LibraryMissing

STOP_SECONDS_MAX = 5.0
SUN_PATH_BYTES = 108
SYSTEMD = Path("/run/systemd/system")
SHM = Path("/dev/shm")  # noqa: S108


class CorosyncRefused(Exception):
    """Corosync cannot be run here; the sentence says why and what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process of ours: its id and when it started, so that a recycled id is never signalled."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Whether it still runs."""
        return start_time(self.pid) == self.started


def start_time(pid: int) -> str | None:
    """The kernel's start time of a process (proc(5), field 22), or None if there is none or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def noted(file: Path) -> tuple[Running, str] | None:
    """The Corosync that a note of ours tells of, dead or alive, and the digest of the config that it runs with."""
    try:
        note = json.loads(file.read_text())
        return Running(int(note["pid"]), str(note["started"])), str(note["config"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def answers() -> bool:
    """Whether any Corosync serves CPG in this network namespace. Its socket is abstract, and its name is the whole of
    sun_path, padded with zeros (libqb, ipc_socket.c)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(0.5)
        try:
            s.connect(b"\0cpg".ljust(SUN_PATH_BYTES, b"\0"))
        except OSError:
            return False
        return True


def ring_nodes(nodes: Iterable[NodeConfig]) -> tuple[RingNode, ...]:
    """The ring of a config."""
    return tuple(RingNode(n.name, n.id, n.addresses) for n in nodes)


class ManagedCorosync:
    """One private Corosync. `directory` (0700) has its files; `state_dir` its ring numbers, which must persist."""

    def __init__(
        self,
        cluster: str,
        nodes: tuple[RingNode, ...],
        detection_ms: int,
        *,
        secret: bytes | None,
        directory: Path,
        state_dir: Path,
        program: str = "corosync",
    ) -> None:
        self.cluster = cluster
        self.nodes = nodes
        self.detection_ms = detection_ms
        self.secret = secret
        self._directory = directory
        self._state_dir = state_dir
        self._program = program
        self.adopted = False
        self._began = False
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def _note(self) -> Path:
        return self._directory / "running.json"

    @property
    def _trial(self) -> Path:
        """There while a Corosync runs that was begun for a daemon of which it is not known that it can serve."""
        return self._directory / "begun"

    def running(self) -> tuple[Running, str] | None:
        """Our process and the digest of the config that it runs with, if it lives."""
        found = noted(self._note)
        return found if found is not None and found[0].alive() else None

    def _forget_the_dead(self) -> None:
        """Remove what a Corosync of ours that was killed has left in shared memory: 10 MB for each of its lives (libqb's rings
        and its flight recorder, which have its process id in their names)."""
        found = noted(self._note)
        if found is None or start_time(pid := found[0].pid) is not None:
            return  # it lives, or its number is somebody else's now
        for left in (*SHM.glob(f"qb-{pid}-*"), *SHM.glob(f"qb-corosync-{pid}-*")):
            with contextlib.suppress(OSError):
                if left.lstat().st_uid != os.geteuid():
                    continue
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left)
                else:
                    left.unlink()

    def _write(self) -> str:
        """Write key and config; return the config's digest."""
        for folder in (self._directory, self._state_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key_file = None
        if self.secret is not None:
            key_file = self._directory / "authkey"
            _write_private(key_file, derived_key(self.secret))
        text = corosync_conf(
            self.cluster,
            self.nodes,
            timings(self.detection_ms),
            key_file=str(key_file) if key_file else None,
            log_file=str(self._directory / "corosync.log"),
            state_dir=str(self._state_dir),
        )
        _write_private(self._directory / "corosync.conf", text.encode())
        return hashlib.blake2b(text.encode() + (self.secret or b""), digest_size=16).hexdigest()

    def begin(self) -> None:
        """Start it early, if none runs; `ensure` has the last word. Not if the last daemon that did was then refused itself: on
        a host that cannot serve each attempt would change the others' ring. Raises CorosyncRefused."""
        if self._trial.exists() or self.running() is not None or answers():
            return
        with contextlib.suppress(OSError):  # `ensure` says it
            digest = self._write()
            self._trial.touch(0o600)
            self._forget_the_dead()
            self._start(digest)
            self._began = True

    def take_back(self) -> None:
        """End what was begun: the daemon does not serve."""
        import asyncio

        if self._began:
            asyncio.run(self.stop())

    async def ensure(self) -> None:
        """Have it running with this config. Raises CorosyncRefused."""
        import asyncio

        self._trial.unlink(missing_ok=True)
        found = self.running()
        digest = await asyncio.to_thread(self._write)
        began, self._began = self._began, False  # the daemon serves: from now on it outlives it
        if found is not None and found[1] == digest:
            self.adopted = not began
            return
        if found is not None:
            await self.stop()
        elif answers():
            raise CorosyncRefused(
                "another Corosync runs on this host, and a host can run only one."
                " If nobody needs it (Debian's package starts one at installation):"
                " `systemctl disable --now corosync`. If something does: set `managed = false` under [engine]"
                " to join it."
            )
        self.adopted = False
        await asyncio.to_thread(self._forget_the_dead)
        await asyncio.to_thread(self._start, digest)

    async def reconfigure(self, nodes: tuple[RingNode, ...]) -> None:
        """Have it know these nodes, while it runs: the ring goes on. Raises CorosyncRefused, and then knows those of before."""
        import asyncio

        before, self.nodes = self.nodes, nodes
        try:
            digest = await asyncio.to_thread(self._write)
            found = self.running()
            if found is not None:  # else it is about to be started, with this
                await asyncio.to_thread(reload_config)
                self._keep(found[0], digest)
        except (OSError, CpgError, LibraryMissing) as wrong:
            self.nodes = before
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._write)
            raise CorosyncRefused(f"Corosync does not take the nodes: {wrong}") from None

    def _keep(self, process: Running, digest: str) -> None:
        note = {"pid": process.pid, "started": process.started, "config": digest}
        _write_private(self._note, json.dumps(note).encode())

    def _start(self, digest: str) -> None:
        conf = str(self._directory / "corosync.conf")
        command = [self._program, "-f", "-c", conf]
        if SYSTEMD.is_dir():
            pid = self._start_unit(command)
        else:
            log = os.open(self._directory / "corosync.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
                )
            except FileNotFoundError:
                raise CorosyncRefused(
                    f"the program {self._program!r} is not installed; install the package corosync"
                ) from None
            finally:
                os.close(log)
            self._child = child  # kept, so that its end is reaped
            pid = child.pid
        started = start_time(pid)
        if started is None:
            raise CorosyncRefused(f"Corosync did not start: {self.last_words()}")
        self._keep(Running(pid, started), digest)

    def _start_unit(self, command: list[str]) -> int:
        unit = f"wackamole-corosync-{hashlib.blake2b(self.cluster.encode(), digest_size=4).hexdigest()}.service"
        start = [
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={unit}",
            f"--description=Corosync of the wackamole cluster {self.cluster}",
            # a host that is switched off stops it only after the daemon, which hands its VIPs over by it
            "--property=Before=wackamole.service",
            *command,
        ]
        run = subprocess.run(start, stderr=subprocess.PIPE, check=False)
        if run.returncode:
            said = run.stderr.decode(errors="replace").strip()
            raise CorosyncRefused(f"systemd-run could not start Corosync: {said}")
        show = ["systemctl", "show", "--property=MainPID", "--value", unit]
        found = subprocess.run(show, stdout=subprocess.PIPE, check=False)
        return int(found.stdout.decode().strip() or "0")

    def last_words(self) -> str:
        """The last lines of what Corosync wrote, for an error's sentence."""
        words: list[str] = []
        for name in ("corosync.err", "corosync.log"):
            try:
                lines = (self._directory / name).read_text(errors="replace").splitlines()
            except OSError:
                continue
            words += [line for line in lines if "error" in line.lower() or name.endswith(".err")][-3:]
        return " / ".join(w.strip() for w in words if w.strip())[-500:] or "it wrote nothing"

    async def stop(self) -> None:
        """Stop it, and wait until it is gone; does nothing if it is not ours or does not run."""
        import asyncio

        found = self.running()
        if found is None:
            return
        process = found[0]
        loop = asyncio.get_running_loop()
        gone: asyncio.Future[None] = loop.create_future()
        try:
            fd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        try:
            loop.add_reader(fd, lambda: None if gone.done() else gone.set_result(None))
            if process.alive():
                signal.pidfd_send_signal(fd, signal.SIGTERM)
            try:
                await asyncio.wait_for(asyncio.shield(gone), STOP_SECONDS_MAX)
            except TimeoutError:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                await gone
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        self._note.unlink(missing_ok=True)


def _write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
    os.replace(draft, path)
