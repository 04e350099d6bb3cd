"""The private Corosync's configuration, written from ours (corosync.conf(5)). Times are milliseconds.

Detection of a dead host takes about token + consensus, so both are derived from the one number that people set;
docs/decisions/0002-corosync-timings.md has the measurements.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass

CONSENSUS_MIN_MS = 40
RETRANSMISSION_MIN_MS = 30
"""Corosync's own bound (totemconfig.c): a token is sent again so late at the soonest."""
ROTATIONS = 3
"""The token goes round so often without a message before it rests. Corosync's own 30 keep its real-time threads busy for
milliseconds after every message, just when everybody else has to act on it (docs/decisions/0002-…)."""
RETRANSMITS = 4
"""Corosync's own default: how often a token is sent again before it is lost."""
KEY_BYTES = 256
PORT = 5405
"""Of the first link; UDP. The others follow two apart."""
LINKS_MAX = 8
NODE_ID_MAX = 0xFFFF


@dataclass(frozen=True, slots=True)
class RingNode:
    """One host of the ring; `addresses` are its links, in order."""

    name: str
    number: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timings:
    """Totem's timers."""

    token: int
    consensus: int
    join: int
    merge: int
    knet_ping_interval: int
    knet_ping_timeout: int
    knet_pong_count: int
    retransmits: int = RETRANSMITS


def timings(detection_ms: int) -> Timings:
    """Derive the timers. A link must never be marked down: one that was needs over a second to be up again, and a stall
    of the machine would mark it. With more than one link every packet goes over all of them (`link_mode: active`), so
    nothing has to be noticed there either."""
    consensus = max(CONSENSUS_MIN_MS, detection_ms // 5)
    token = detection_ms - consensus
    join = max(30, min(50, consensus * 6 // 10))
    merge = max(50, min(60, detection_ms // 5))  # a heal waits for it, however patient the detection
    retransmits = min(RETRANSMITS, (5 * token // RETRANSMISSION_MIN_MS - 1) // 5)  # token / (retransmits + 0.2)
    return Timings(token, consensus, join, merge, 100, 600_000, 1, retransmits)


def node_id(address: str) -> int:
    """A node's number, if its config gives none: the last 16 bits of its first address (knet has room for no more). It
    depends on nothing else in the config, so that adding a node renumbers nobody."""
    return int(ipaddress.ip_address(address)) & NODE_ID_MAX or NODE_ID_MAX


def ring_port(link: int, first: int = PORT) -> int:
    """The UDP port of a link."""
    return first + 2 * link


def derived_key(secret: bytes) -> bytes:
    """Corosync wants 1024 to 4096 bytes of key (or exactly what crypto needs); ours may have any length ≥ 16."""
    return hashlib.shake_256(b"wackamole corosync key v1\0" + secret).digest(KEY_BYTES)


def corosync_conf(
    cluster: str,
    nodes: tuple[RingNode, ...],
    timers: Timings,
    *,
    key_file: str | None,
    log_file: str,
    state_dir: str,
    port: int = PORT,
) -> str:
    """The text of corosync.conf. The same on all nodes of one config, but for the paths."""
    links = min(len(n.addresses) for n in nodes)
    t = timers
    crypto = "aes256" if key_file else "none"
    digest = "sha256" if key_file else "none"
    lines = [
        "# Written by wackamole at every start from its own config; changes here are lost.",
        "system {",
        f"    state_dir: {state_dir}",
        "    allow_knet_handle_fallback: yes",
        "}",
        "totem {",
        "    version: 2",
        f"    cluster_name: {cluster}",
        "    transport: knet",
        f"    token: {t.token}",
        "    token_coefficient: 0",
        f"    token_retransmits_before_loss_const: {t.retransmits}",
        f"    consensus: {t.consensus}",
        f"    join: {t.join}",
        f"    merge: {t.merge}",
        f"    seqno_unchanged_const: {ROTATIONS}",
        f"    crypto_cipher: {crypto}",
        f"    crypto_hash: {digest}",
    ]
    if links > 1:
        lines.append("    link_mode: active")
    if key_file:
        lines.append(f"    keyfile: {key_file}")
    for link in range(links):
        lines += [
            "    interface {",
            f"        linknumber: {link}",
            f"        mcastport: {ring_port(link, port)}",
            f"        knet_ping_interval: {t.knet_ping_interval}",
            f"        knet_ping_timeout: {t.knet_ping_timeout}",
            f"        knet_pong_count: {t.knet_pong_count}",
            "    }",
        ]
    lines += ["}", "nodelist {"]
    for node in nodes:
        lines += ["    node {", f"        name: {node.name}", f"        nodeid: {node.number}"]
        lines += [f"        ring{i}_addr: {a}" for i, a in enumerate(node.addresses[:links])]
        lines += ["    }"]
    lines += [
        "}",
        "logging {",
        "    to_stderr: no",
        "    to_syslog: no",
        "    to_logfile: yes",
        f"    logfile: {log_file}",
        "    timestamp: hires",
        "}",
        "",
    ]
    return "\n".join(lines)
