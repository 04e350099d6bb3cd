"""The place where a daemon is asked: taken before anything else of the host is touched, so that there is one daemon."""

from __future__ import annotations

import os
import socket
from pathlib import Path

WAITING_MAX = 100
"""Clients that ask while the daemon starts; they are answered when it can."""


class Refused(Exception):
    """A request that cannot be carried out; the sentence is the operator's answer."""


def claimed(path: Path) -> socket.socket:
    """The control socket, which listens from now on. Raises Refused if another daemon has it, or it cannot be made."""
    try:
        found = bound(path)
        found.listen(WAITING_MAX)
    except OSError as wrong:
        raise Refused(f"the control socket {path} cannot be made: {wrong.strerror or wrong}") from None
    return found


def bound(path: Path) -> socket.socket:
    """A Unix socket at this path, its owner's alone (0600), in the place of one that a dead daemon left. Raises Refused if
    somebody listens there, and OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    if path.is_socket():
        if _answers(path):
            raise Refused(f"another daemon listens on {path} already")
        path.unlink()
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        found.bind(str(path))
    except OSError:
        found.close()
        raise
    finally:
        os.umask(old)
    return found


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.setblocking(False)
        try:
            s.connect(str(path))
        except BlockingIOError:
            return True  # somebody does, whose queue is full: that is no reason to wait for him
        except OSError:
            return False
        return True
