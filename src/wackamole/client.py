"""Asking the daemon: a plain blocking socket, so that `status` starts fast."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ANSWER_SECONDS_MAX = 30.0
GROUP = "wackamole"
"""Who is in it may command the daemon, as root may."""


class NotReachable(Exception):
    """No daemon answers; the sentence says where it was looked for."""


class Refused(Exception):
    """The daemon said no; the sentence says why."""


def ask(
    path: str, verb: str, arguments: Mapping[str, object] | None = None, *, seconds: float = ANSWER_SECONDS_MAX
) -> Any:
    """Ask and return the result; progress is passed over. `seconds`: how long each answer may take."""
    for kind, said in converse(path, verb, arguments, seconds=seconds):
        if kind == "result":
            return said
    raise NotReachable(f"the daemon on {path} closed the connection without an answer")


def converse(
    path: str,
    verb: str,
    arguments: Mapping[str, object] | None = None,
    *,
    patient: bool = False,
    seconds: float = ANSWER_SECONDS_MAX,
) -> Iterator[tuple[str, Any]]:
    """Ask, and yield ("progress", …) and at last ("result", …). `patient`: wait for ever between answers, else `seconds`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(seconds)
        try:
            s.connect(path)
        except OSError as wrong:
            if isinstance(wrong, PermissionError):
                sentence = f"this user may not ask the daemon on {path}: be root or in the group {GROUP}"
            else:
                sentence = (
                    f"no daemon answers on {path} ({wrong.strerror}); is it running? `systemctl status wackamole`"
                )
            raise NotReachable(sentence) from None
        if patient:
            s.settimeout(None)
        with contextlib.suppress(BrokenPipeError):  # a busy daemon refuses before it has read; its sentence is there
            s.sendall(json.dumps({**(arguments or {}), "verb": verb}).encode() + b"\n")
        with s.makefile("rb") as answers:
            try:
                for line in answers:
                    said = json.loads(line)
                    if "progress" in said:
                        yield "progress", said["progress"]
                    elif said.get("ok"):
                        yield "result", said.get("result")
                        return
                    else:
                        raise Refused(str(said.get("error")))
            except ConnectionResetError:
                raise NotReachable(f"the daemon on {path} closed the connection") from None
            except TimeoutError:
                raise NotReachable(f"the daemon on {path} has not answered for {seconds:.0f} s") from None


def may_command(path: str) -> bool:
    """Whether the daemon would let this process change something, as far as can be known without asking: it judges for
    itself. No daemon, no objection."""
    try:
        allowed = {grp.getgrnam(GROUP).gr_gid}
    except KeyError:
        allowed = set()
    try:
        owner = Path(path).stat().st_uid
    except OSError:
        return True
    return os.geteuid() in (0, owner) or not allowed.isdisjoint({os.getegid(), *os.getgroups()})
