"""Asking the daemon: a plain blocking socket, so that `status` starts fast."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any

ANSWER_SECONDS_MAX = 30.0


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
            raise NotReachable(
                f"no daemon answers on {path} ({wrong.strerror}); is it running? `systemctl status wackamole`"
            ) from None
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
