"""libcpg through ctypes, no more of it than is used: model v1, so that ring ids are reported (corosync/cpg.h).

The C callbacks copy and append, nothing else: an exception in one would be swallowed.
"""

from __future__ import annotations

import ctypes as c
from dataclasses import dataclass

OK, TRY_AGAIN = 1, 6
DISPATCH_ONE_NONBLOCKING = 4
MODEL_V1 = 1
DELIVER_INITIAL_TOTEM_CONF = 1
TYPE_AGREED = 2
FLOW_CONTROL_ENABLED = 1
GROUP_NAME_MAX = 128

ERRORS = {
    2: "the library lost its connection",
    3: "the interface version is not supported",
    5: "time-out",
    6: "try again",
    7: "invalid parameter",
    8: "no memory",
    9: "bad handle",
    11: "access denied",
    12: "does not exist",
    14: "exists already",
    18: "no resources",
    20: "not supported",
    29: "security error",
}


class CpgError(Exception):
    """A call of libcpg failed; `code` is its cs_error_t."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call}: {ERRORS.get(code, 'error')} ({code})")
        self.code = code


class LibraryMissing(Exception):
    """libcpg is not installed."""


@dataclass(frozen=True, slots=True)
class Process:
    """A member as CPG names it; `reason` is set in lists of joined and left."""

    nodeid: int
    pid: int
    reason: int = 0


@dataclass(frozen=True, slots=True)
class Confchg:
    """The group's membership changed."""

    members: tuple[Process, ...]
    left: tuple[Process, ...]
    joined: tuple[Process, ...]


@dataclass(frozen=True, slots=True)
class Totem:
    """The ring changed, or is told for the first time; comes after all Confchg that the change caused."""

    node: int
    seq: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """A message in the agreed order."""

    sender: Process
    payload: bytes


Callback = Confchg | Totem | Message


class _Address(c.Structure):
    _fields_ = (("nodeid", c.c_uint32), ("pid", c.c_uint32), ("reason", c.c_uint32))


class _Name(c.Structure):
    _fields_ = (("length", c.c_uint32), ("value", c.c_char * GROUP_NAME_MAX))


class _RingId(c.Structure):
    _fields_ = (("nodeid", c.c_uint32), ("seq", c.c_uint64))


class _Iovec(c.Structure):
    _fields_ = (("base", c.c_char_p), ("len", c.c_size_t))


_AddressList = c.POINTER(_Address)
_Deliver = c.CFUNCTYPE(None, c.c_uint64, c.POINTER(_Name), c.c_uint32, c.c_uint32, c.c_void_p, c.c_size_t)
_ConfchgFn = c.CFUNCTYPE(
    None,
    c.c_uint64,
    c.POINTER(_Name),
    _AddressList,
    c.c_size_t,
    _AddressList,
    c.c_size_t,
    _AddressList,
    c.c_size_t,
)
_TotemFn = c.CFUNCTYPE(None, c.c_uint64, _RingId, c.c_uint32, c.POINTER(c.c_uint32))


class _Model(c.Structure):
    _fields_ = (
        ("model", c.c_int),
        ("deliver", _Deliver),
        ("confchg", _ConfchgFn),
        ("totem", _TotemFn),
        ("flags", c.c_uint),
    )


def loaded(name: str, package: str) -> c.CDLL:
    """One of Corosync's libraries; LibraryMissing names the package."""
    try:
        return c.CDLL(name, use_errno=True)
    except OSError as wrong:
        raise LibraryMissing(f"{name} cannot be loaded ({wrong}); install the package {package}") from wrong


def library() -> c.CDLL:
    """Load libcpg, or raise LibraryMissing."""
    return loaded("libcpg.so.4", "libcpg4")


def _processes(entries: c._Pointer[_Address], count: int) -> tuple[Process, ...]:
    return tuple(Process(entries[i].nodeid, entries[i].pid, entries[i].reason) for i in range(count))


class Connection:
    """One connection to the local Corosync's CPG service. All calls raise CpgError; none waits for the ring. Making one, `join`
    and `leave` wait for Corosync's answer, which does not come while it stands still."""

    def __init__(self, group: str) -> None:
        name = group.encode()
        if not 0 < len(name) < GROUP_NAME_MAX:
            raise ValueError(f"group name {group!r} must have 1 to {GROUP_NAME_MAX - 1} bytes")
        self._lib = library()
        self._group = _Name(len(name), name)
        self._events: list[Callback] = []
        self._handle = c.c_uint64(0)
        self._callbacks = (_Deliver(self._on_deliver), _ConfchgFn(self._on_confchg), _TotemFn(self._on_totem))
        model = _Model(MODEL_V1, *self._callbacks, DELIVER_INITIAL_TOTEM_CONF)
        self._check(
            "cpg_model_initialize",
            self._lib.cpg_model_initialize(c.byref(self._handle), c.c_int(MODEL_V1), c.byref(model), None),
        )
        node, fd = c.c_uint32(0), c.c_int(-1)
        try:
            self._check("cpg_local_get", self._lib.cpg_local_get(self._handle, c.byref(node)))
            self._check("cpg_fd_get", self._lib.cpg_fd_get(self._handle, c.byref(fd)))
        except CpgError:
            self.close()
            raise
        self.nodeid: int = node.value
        self.fd: int = fd.value

    def _check(self, call: str, code: int) -> None:
        if code != OK:
            raise CpgError(call, code)

    def _on_deliver(self, _h: int, _g: object, nodeid: int, pid: int, base: int, length: int) -> None:
        self._events.append(Message(Process(nodeid, pid), c.string_at(base, length)))

    def _on_confchg(
        self,
        _h: int,
        _g: object,
        members: c._Pointer[_Address],
        members_count: int,
        left: c._Pointer[_Address],
        left_count: int,
        joined: c._Pointer[_Address],
        joined_count: int,
    ) -> None:
        self._events.append(
            Confchg(_processes(members, members_count), _processes(left, left_count), _processes(joined, joined_count))
        )

    def _on_totem(self, _h: int, ring: _RingId, count: int, members: c._Pointer[c.c_uint32]) -> None:
        self._events.append(Totem(ring.nodeid, ring.seq, tuple(members[i] for i in range(count))))

    def join(self) -> None:
        """Ask to join; the first Confchg that names this process says that it happened."""
        self._check("cpg_join", self._lib.cpg_join(self._handle, c.byref(self._group)))

    def leave(self) -> None:
        """Say goodbye; others see the reason LEAVE."""
        self._check("cpg_leave", self._lib.cpg_leave(self._handle, c.byref(self._group)))

    def multicast(self, payload: bytes) -> bool:
        """Send in agreed order. False: not taken now, because Corosync's queue is full or it synchronises."""
        vector = _Iovec(payload, len(payload))
        code: int = self._lib.cpg_mcast_joined(self._handle, c.c_int(TYPE_AGREED), c.byref(vector), c.c_uint(1))
        if code == TRY_AGAIN:
            return False
        self._check("cpg_mcast_joined", code)
        return True

    def congested(self) -> bool:
        """Whether Corosync asks its clients not to send now."""
        state = c.c_int(0)
        self._check("cpg_flow_control_state_get", self._lib.cpg_flow_control_state_get(self._handle, c.byref(state)))
        return state.value == FLOW_CONTROL_ENABLED

    def dispatch_one(self) -> Callback | None:
        """The next callback, or None if nothing waits."""
        if not self._events:
            code = self._lib.cpg_dispatch(self._handle, c.c_int(DISPATCH_ONE_NONBLOCKING))
            if code not in (OK, TRY_AGAIN):
                raise CpgError("cpg_dispatch", code)
        return self._events.pop(0) if self._events else None

    def close(self) -> None:
        """Give the connection back; harmless when it is broken."""
        self._lib.cpg_finalize(self._handle)
