"""Telling systemd how it goes (sd_notify(3)), without its library: one datagram per fact."""

from __future__ import annotations

import os
import socket

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Talks to $NOTIFY_SOCKET, or to nobody. `watchdog_seconds`: how often the watchdog wants to be petted (a quarter of
    its time), or None. The variables are taken out of the environment, since they are nobody else's: a Corosync that
    inherits them says that we are ready. `variables` has them for the process that takes this one's place."""

    def __init__(self) -> None:
        self.variables = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
        path = self.variables.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if path else None
        microseconds = self.variables.get("WATCHDOG_USEC", "")
        mine = self.variables.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(microseconds) / 4e6 if path and microseconds.isdigit() and mine else None
        self._last_status = ""

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)
        except OSError:
            self._socket.close()
            self._socket = None  # nobody listens any more; that must not stop us

    def ready(self) -> None:
        """The daemon is a settled member."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The daemon is on its way out."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        if text != self._last_status:
            self._last_status = text
            self._send(f"STATUS={text}")

    def watchdog(self) -> None:
        """The loop still turns."""
        self._send("WATCHDOG=1")
