"""The audit file: an append-only record of what this member did, one JSON object per line (docs/audit.md).

Records are made on the loop and written by a thread, so that a slow disk never holds up a take-over. The queue between
them and the files are bounded. A disk that is full, or gone, costs records and nothing else: the journal says so once,
and as soon as writing works again the file says how many are missing, and where this member stands.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core import effects as do
from ..core import events as ev
from ..core.model import Settings
from ..core.state import State
from ..records import AnyRecord, Reading, Recorder, line, read_clocks
from . import scheduling

BYTES_MAX = 32 << 20
"""Of one file; there are two. A quiet cluster of three writes 10 MB a day, so they reach back three to six days."""
QUEUE_MAX = 10_000
RETRY_US = 1_000_000
"""How often writing is tried again after a failure."""
CLOSE_SECONDS_MAX = 2.0
TAIL_BYTES = 1 << 20
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Warn = Callable[[str, dict[str, str]], None]


def audit_path() -> Path:
    """Where this host's record is: in the state directory that systemd gave, or the usual one."""
    return Path(os.environ.get("STATE_DIRECTORY", "/var/lib/wackamole")) / "audit.jsonl"


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines to be written at once. `since`: what is missing in the file without them begins then. `rotate`: begin a new
    file with them; `again`: they tell of a gap, and are tried also while writing fails."""

    since: int
    count: int
    text: bytes
    rotate: bool
    again: bool


class AuditFile:
    """Appends lines to `path` (mode 0600). Full, it becomes `path`.1 and a new one is begun. Raises OSError, after which
    the file is as it was before the call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def append(self, text: bytes) -> None:
        """Write these whole lines, and wait until the disk has them."""
        if self._fd is None:
            self._fd = self._open()
        before = os.fstat(self._fd).st_size
        try:
            rest = memoryview(text)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.fdatasync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):  # half a line in the middle could not be read again
                os.ftruncate(self._fd, before)
            self.close()
            raise

    def rotate(self) -> None:
        """Make room for a new file."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(self.path.with_name(self.path.name + ".1"))

    def size(self) -> int:
        """Bytes that are there; 0 if there is no file."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def close(self) -> None:
        """Let go of the file; the next `append` opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags, 0o600)
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode):
            os.fchmod(fd, 0o600)
            start = max(0, found.st_size - TAIL_BYTES)
            tail = os.pread(fd, TAIL_BYTES, start)
            if not tail.endswith(b"\n"):  # a former run was killed in mid-line
                os.ftruncate(fd, start + tail.rfind(b"\n") + 1)
        return fd


class Audit:
    """The daemon's side: `start`, then `note` on the loop, `close` at the end. None of them raises; `note` never waits."""

    def __init__(
        self,
        settings: Settings,
        *,
        cluster: str,
        slack_ms: int,
        warn: Warn,
        path: Path | None = None,
        bytes_max: int = BYTES_MAX,
        clocks: Callable[[], Reading] = read_clocks,
    ) -> None:
        self._file = AuditFile(path if path is not None else audit_path())
        self._warn = warn
        self._bytes_max = bytes_max
        try:
            boot = BOOT_ID.read_text().strip()
        except OSError:
            boot = secrets.token_hex(16)  # then this run's clock is compared with no other run's
        self._recorder = Recorder(
            settings, cluster=cluster, boot=boot, run=secrets.token_hex(8), slack_ms=slack_ms, clocks=clocks
        )
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._broken: tuple[int, str] | None = None  # since when, and why; the thread sets it, the loop reads it
        self._lost = 0  # records since then, as the thread counts them
        self._overflow: int | None = None  # since when the thread is too slow
        self._dropped = 0  # records since then, as the loop counts them
        self._warned = False
        self._tried = 0
        begin = self._recorder.begin()
        self._room = bytes_max - self._file.size()
        self._put(begin, rotate=self._room < len(line(begin[0])))
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that writes; until then records wait."""
        self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
        self._thread.start()

    def note(self, event: ev.Event, effects: tuple[do.Effect, ...], state: State) -> None:
        """Record one step of the core; to be called before its effects are carried out."""
        found = self._recorder.note(event, effects, state)
        if not found:
            return
        now, broken = found[0].at, self._broken
        if self._queue.qsize() >= QUEUE_MAX:
            self._overflow = self._overflow if self._overflow is not None else now
            self._dropped += len(found)
        elif self._overflow is None:
            self._put(found)  # also while writing fails: the thread counts what it drops
        else:
            self._dropped += len(found)
        since = [t for t in (self._overflow, broken[0] if broken is not None else None) if t is not None]
        if not since:
            self._warned = False
            if self._room <= 0:
                self._put(self._recorder.begin(), rotate=True)
            return
        if not self._warned:
            self._warned = True
            why = broken[1] if broken is not None else "the disk is too slow"
            self._warn("audit_failed", {"file": str(self._file.path), "reason": why})
        if self._queue.qsize() < QUEUE_MAX // 2 and now - self._tried >= RETRY_US:
            self._tried = now
            self._put(self._recorder.gap(min(since), self._lost + self._dropped), again=min(since))
            self._overflow, self._dropped = None, 0

    def close(self, reason: str) -> None:
        """Write the last record; waits for the disk for CLOSE_SECONDS_MAX at most."""
        if self._thread is None:
            return
        self._put([self._recorder.stop(reason)])
        self.hand_over()

    def hand_over(self) -> None:
        """Have everything written, and no last record: the kernel serves on for the successor of this process. Waits for
        the disk for CLOSE_SECONDS_MAX at most."""
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS_MAX)
        self._thread = None

    def _put(self, records: Sequence[AnyRecord], *, rotate: bool = False, again: int | None = None) -> None:
        text = b"".join(line(record) for record in records)
        self._room = (self._bytes_max if rotate else self._room) - len(text)
        since = records[0].at if again is None else again
        self._queue.put(Batch(since, len(records), text, rotate, again is not None))

    def _write(self) -> None:
        """The thread: write what comes, until the end."""
        scheduling.behind_the_loop()
        while (batch := self._queue.get()) is not None:
            if batch.rotate:
                with contextlib.suppress(OSError):
                    self._file.rotate()
            if self._broken is not None and (not batch.again or batch.since > self._broken[0]):
                self._lost += batch.count
                continue
            try:
                self._file.append(batch.text)
            except OSError as wrong:
                if self._broken is None:
                    self._lost = batch.count
                    self._broken = (batch.since, wrong.strerror or str(wrong))
            else:
                self._broken = None
        self._file.close()
