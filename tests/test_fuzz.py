"""Whatever comes from outside as text or bytes: it is read or refused, with no other exception, and in bounded memory.

Messages are in test_wire.py and core/test_hostile.py, the operator's requests in shell/test_operator.py.
"""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wackamole import wire
from wackamole.config import FILE_BYTES_MAX, ConfigError, parse
from wackamole.core.model import View, ViewId
from wackamole.engine.contract import NewView
from wackamole.engine.corosync.cpg import Callback, Confchg, Message, Process, Totem
from wackamole.engine.corosync.membership import HELLO, PAYLOAD, WELCOME, Membership
from wackamole.shell.journal import line
from wackamole.shell.kernel import nfnetlink, rtnl

MIB = 1 << 20


@contextmanager
def within(memory_bytes: int) -> Iterator[None]:
    """Fails if more than this is in use at once meanwhile."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= memory_bytes, f"{peak} bytes"


# -- the config -------------------------------------------------------------------------------------------------------------

SECTIONS = {
    "cluster": ("name", "key_file", "partition", "mature"),
    "engine": ("type", "profile", "detection", "managed", "evict_after", "beat"),
    "fence": ("mode", "lease", "lifetime", "beat_age_max", "takeover", "mark", "link_up_delay"),
    "balance": ("interval", "moves_per_round", "settle", "count"),
    "control": ("socket", "read_only_for_others"),
    "node": ("name", "id", "address", "addresses", "weight", "votes", "interfaces"),
    "notify": ("hosts", "throttle", "neighbours", "ping"),
    "neighbours": ("interval",),
    "vip": ("name", "address", "addresses", "interface", "prefer", "notify"),
}
GOOD_VALUES = st.sampled_from(
    ('"web"', '"a"', '"10.0.0.1"', '"10.0.0.2/24"', '"fd00::1"', '"5s"', '"1ms"', '"strict"', '"majority"', "true", "3")
)
BAD_VALUES = st.sampled_from(
    (
        '""', "-1", "1e400", "nan", "[]", "{}", "[[]]", "[1, 'a', {}]", "{ address = 1 }", "1979-05-27", "07:32:00",
        "0x7fffffffffffffffffffffff", '"\\u0000"', '"\\U0001F600"', '"a\\nb"', '"10.0.0.1%eth0"', '"fe80::1"', '"::"',
        "[{ address = '10.0.0.1' }, '10.0.0.2']", "'" + "x" * 300 + "'", "9" * 400, "[" * 50 + "]" * 50,
    )
)  # fmt: skip
pairs = st.tuples(st.sampled_from(sorted({k for ks in SECTIONS.values() for k in ks})), GOOD_VALUES | BAD_VALUES)
headers = st.sampled_from([f"[{s}]" for s in SECTIONS] + [f"[[{s}]]" for s in SECTIONS] + ["", "[node.interfaces]"])
tables = st.tuples(headers, st.lists(pairs, max_size=5, unique_by=lambda kv: kv[0]))
documents = st.lists(tables, max_size=9).map(
    lambda found: "\n".join(f"{head}\n" + "\n".join(f"{k} = {v}" for k, v in body) for head, body in found)
)


def is_config_or_problems(text: str) -> None:
    try:
        parse(text, "fuzz.toml")
    except ConfigError as wrong:
        assert wrong.problems  # noqa: PT017 - nothing else may be raised
        assert all("fuzz.toml" in p and len(p) < 2000 for p in wrong.problems)  # noqa: PT017


@given(documents)
@settings(max_examples=300)
def test_any_document_is_a_config_or_has_problems(text: str) -> None:
    is_config_or_problems(text)


@given(st.text(max_size=300))
@settings(max_examples=200)
def test_any_text_is_a_config_or_has_problems(text: str) -> None:
    is_config_or_problems(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\x00", "not TOML"),
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("[" + "a." * 20_000 + "b]", "no such key"),
        ("a = " + "9" * 5000, "not TOML"),
        ("a = 1979-13-40", "not TOML"),
        ('"\\u001b[31m" = 1', "no such key"),
        ("k" * 100_000 + " = 1", "no such key"),
        ("\n".join(f"k{i} = 1" for i in range(1000)), "more problems than these 200"),
    ],
    ids=["nul", "lists", "tables", "digits", "date", "escape", "key", "problems"],
)
def test_what_is_odd_has_a_problem_of_readable_length(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as wrong:
        parse(text, "fuzz.toml")
    assert all(len(p) < 500 and all(c.isprintable() for c in p) for p in wrong.value.problems)


@pytest.mark.parametrize(
    "text",
    [
        "[[vip]]\naddress = '10.0.0.1'\n" * 60_000,
        "[[node]]\nname = 'n'\n" * 100_000,
        "[cluster]\n" + "".join(f"k{i} = 1\n" for i in range(100_000)),
        "[[vip]]\naddresses = [" + "'10.0.0.1'," * 200_000 + "]",
        "[[vip]]\naddress = '10.0.0.1'\nprefer = [" + "'z'," * 20_000 + "]",
        "[[node]]\nname = 'a'\naddresses = [" + "'10.0.0.1'," * 200_000 + "]",
    ],
    ids=["vips", "nodes", "keys", "addresses", "preferences", "links"],
)
def test_a_huge_document_has_problems_in_bounded_memory(text: str) -> None:
    assert len(text) < FILE_BYTES_MAX
    with within(512 * MIB):
        is_config_or_problems(text)


# -- Corosync -----------------------------------------------------------------------------------------------------------------

ME = Process(1, 100)
node_ids, pids = st.integers(0, 4), st.sampled_from((100, 200, 2**32 - 1))
processes = st.builds(Process, node_ids, pids, st.integers(0, 6))
frames = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda kind, rest: bytes((kind,)) + rest, st.sampled_from((PAYLOAD, HELLO, WELCOME)), st.binary(max_size=40)),
    st.builds(lambda i, a: struct.pack(">BQI", HELLO, i, a), st.sampled_from((7, 8)), st.integers(0, 2**32 - 1)),
    st.builds(
        lambda i, a, c, n, s: struct.pack(">BQIIIQ", WELCOME, i, a, c, n, s),
        st.sampled_from((7, 8)), st.integers(0, 3), st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 2**64 - 1),
    ),
)  # fmt: skip
callbacks: st.SearchStrategy[Callback] = st.one_of(
    st.builds(
        Confchg,
        *(st.lists(processes, max_size=4).map(tuple) for _ in range(3)),
    ),
    st.builds(Totem, st.integers(0, 4), st.sampled_from((0, 4, 8, 2**64 - 1)), st.just(())),
    st.builds(Message, processes, frames),
)


@given(st.lists(callbacks, max_size=40))
@settings(max_examples=300)
def test_any_callbacks_of_corosync_are_views_and_payloads(taken: list[Callback]) -> None:
    sent: list[bytes] = []
    membership = Membership(ME, 7, lambda: 5, sent.append)
    joining = Confchg((Process(1, 100, 1),), (), (Process(1, 100, 1),))
    views: list[View] = []
    for callback in (joining, Totem(1, 4, ()), *taken):
        views += [event.view for event in membership.take(callback) if isinstance(event, NewView)]
    assert views
    for view in views:
        assert list(view.members) == sorted(set(view.members))
    assert len(sent) <= len(taken) + 1


# -- netlink -------------------------------------------------------------------------------------------------------------------


def netlink(kind: int, content: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(content), kind, 0, 1, 0) + content + b"\0" * (-len(content) % 4)


bodies = st.one_of(
    st.binary(max_size=120),
    st.lists(
        st.builds(lambda n, k, c: struct.pack("=HH", n, k) + c, st.integers(0, 70), st.integers(0, 20), st.binary(max_size=20)),
        max_size=6,
    ).map(b"".join),
)  # fmt: skip
datagrams = st.lists(st.builds(netlink, st.integers(0, 30), bodies), max_size=5).map(b"".join)


@given(st.one_of(st.binary(max_size=200), datagrams), st.integers(0, 200))
@settings(max_examples=500)
def test_any_datagram_of_netlink_is_read_as_far_as_it_makes_sense(content: bytes, cut: int) -> None:
    for part in (content, content[:cut]):
        for kind, _, body in rtnl.messages(part):
            found = rtnl.parse(kind, body)
            assert found is None or isinstance(found, (rtnl.Placed, rtnl.Link))
        taken = 0
        for _, _, _, body in nfnetlink.split(part):
            taken += 16 + len(body)
            for attribute in nfnetlink.attributes(body).values():
                assert len(attribute) < len(body)
                nfnetlink.attributes(attribute)
                nfnetlink.listed(attribute)
        assert taken <= len(part)


# -- the journal ---------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=60), st.dictionaries(st.sampled_from(("reason", "vip")), st.text(max_size=80)))
@settings(max_examples=300)
@example("moved", {"vip": 'a" to="b', "reason": "x\ny\x1b[31m\u202e\ud800"})
def test_a_line_of_the_journal_is_one_line_and_says_what_was_meant(what: str, fields: dict[str, str]) -> None:
    said = line("moved", fields)
    assert all(c.isprintable() for c in said)
    said.encode()
    # whatever a value is, it does not look like another field
    rest = said.removeprefix("moved")
    for key, value in fields.items():
        head = f" {key}="
        assert rest.startswith(head)
        rest = rest[len(head) :]
        if rest.startswith('"'):
            end = 1
            while rest[end] != '"':
                end += 2 if rest[end] == "\\" else 1
            rest = rest[end + 1 :]
        else:
            assert rest.startswith(value)
            rest = rest[len(value) :]
    assert rest == ""


# -- memory for a message -----------------------------------------------------------------------------------------------------


def packed(body: bytes) -> bytes:
    return bytes((wire.VERSION, wire.COMPRESSED)) + zlib.compress(body, 9)


@pytest.mark.parametrize(
    "body",
    [
        lambda: wire._ENCODER.encode((ViewId(1, 1, 0), "Released", {"released": [["v#0123456789ab", 1]] * 900_000})),
        lambda: wire._ENCODER.encode((ViewId(1, 1, 0), "Adopt", {"rows": [{}] * 5_000_000})),
        lambda: b"\xdd\xff\xff\xff\xff" + b"\xc0" * 1000,
        lambda: b"\x91" * 1_000_000 + b"\xc0",
        lambda: wire._ENCODER.encode((ViewId(1, 1, 0), "Failed", {"key": "k" * 15_000_000, "generation": 1, "reason": ""})),
        lambda: wire._ENCODER.encode(
            (ViewId(1, 1, 0), "Neighbours", {"segments": [{"vip": "10.0.0.1", "known": [[b"", b""]] * 4_000_000}]})
        ),
    ],
    ids=["list", "rows", "length", "deep", "text", "neighbours"],
)  # fmt: skip
def test_a_message_that_grows_when_it_is_read_costs_bounded_memory(body: Callable[[], bytes]) -> None:
    payload = packed(body())
    with within(20 * wire.BODY_BYTES_MAX), pytest.raises(wire.WireError):
        wire.decode(payload)
