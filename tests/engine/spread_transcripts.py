"""The recorded conversations with real Spread daemons (spread_vectors/README.md says how they came about)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wackamole.engine.spread.codec import (
    Cause,
    Decoder,
    Handshake,
    Membership,
    Message,
    Refused,
    Regular,
    SelfLeave,
    Transition,
)

FOLDER = Path(__file__).parent / "spread_vectors"
OTHER_HANDSHAKE = {("handshake-old-library", "a"), ("handshake-old-library", "b")}
"""They announce 3.14 and 3.15, for which a daemon has other handshakes."""


@dataclass(frozen=True)
class Piece:
    """Bytes in one direction, and what they mean."""

    raw: bytes
    meaning: dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """One connection's pieces, in each direction in its order."""

    file: str
    label: str
    sent: tuple[Piece, ...]
    came: tuple[Piece, ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.label}"


def conversations(*files: str) -> list[Conversation]:
    """All connections of these files, or of all."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        if files and path.stem not in files:
            continue
        document = json.loads(path.read_text())
        for label in document["connections"]:
            steps = [s for s in document["steps"] if s.get("conn") == label and "dir" in s]
            pieces = {
                way: tuple(Piece(bytes.fromhex(s["hex"]), s["meaning"]) for s in steps if s["dir"] == way)
                for way in ("c2d", "d2c")
            }
            found.append(Conversation(path.stem, label, pieces["c2d"], pieces["d2c"]))
    assert found, files
    return found


def heard(cuts: list[bytes]) -> tuple[Handshake, list[Message], int | None]:
    """What a client makes of these bytes: the handshake, the messages, and the code if it was refused."""
    handshake, decoder = Handshake("any"), Decoder()
    messages: list[Message] = []
    for cut in cuts:
        if handshake.private_group is None:
            try:
                handshake.receive(cut)
            except Refused as no:
                return handshake, messages, no.code
            cut, handshake.rest = handshake.rest, b""
        decoder.feed(cut)
        while (message := decoder.next()) is not None:
            messages.append(message)
    return handshake, messages, None


def meant(meaning: dict[str, Any]) -> Message | None:
    """The message that a piece is; None for the handshake's."""
    match meaning["kind"]:
        case "regular":
            body = bytes.fromhex(meaning["data"])
            return Regular(meaning["sender"], tuple(meaning["groups"]), meaning["service"], meaning["mess_type"], body)
        case "membership":
            one, two, three = meaning["group_id"]
            return Membership(
                meaning["group"],
                Cause[meaning["cause"].upper()],
                tuple(meaning["members"]),
                (one, two, three),
                tuple(map(tuple, meaning["vs_sets"])),
                meaning["my_vs_index"],
            )
        case "transition":
            one, two, three = meaning["group_id"]
            return Transition(meaning["group"], (one, two, three))
        case "self_leave":
            return SelfLeave(meaning["group"])
    return None
