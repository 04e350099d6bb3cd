"""Whether a newcomer can read what those say who were there before it. If not, it is the one that is wrong: it has another key,
none, or another version of the protocol.

It would count the others as silent, evict them in its own sight, and serve every VIP beside them.
"""

from __future__ import annotations

from ..core.model import NodeId, View

UNREAD_MIN = 3
"""Of one member, before it counts: a single message may be of a kind that is new."""


class Newcomer:
    """From a join on, until somebody was understood. `why` is why it gave way the last time, "" if that is over."""

    def __init__(self) -> None:
        self.why = ""
        self._unread: dict[NodeId, int] | None = None  # of who was there before; None: not known yet

    def joined(self) -> None:
        """A new membership begins; its first view follows."""
        self._unread = None

    def entered(self, view: View, me: NodeId) -> None:
        """A view; the first one says who was there before."""
        if self._unread is None:
            self._unread = dict.fromkeys((n for n in view.members if n != me), 0)
            if not self._unread:
                self.why = ""

    def read(self, sender: NodeId) -> None:
        """A message of this member was understood: if any other of those who were there is not, that one is wrong."""
        if self._unread and sender in self._unread:
            self._unread = {}
            self.why = ""

    def gives_way(self, sender: NodeId, wrong: Exception) -> bool:
        """A message of this member was not understood. Whether that makes more than half of those who were there."""
        if not self._unread or sender not in self._unread:
            return False
        self._unread[sender] += 1
        if 2 * sum(count >= UNREAD_MIN for count in self._unread.values()) <= len(self._unread):
            return False
        self._unread = {}
        self.why = f"the members that were there cannot be understood ({wrong})"
        return True
