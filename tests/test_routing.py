"""Routes and rules as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wackamole.routing import Net, Route, Rule, route, rule

GATEWAY = bytes((10, 0, 0, 1))
ANY = Net(bytes(4), 0)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("default via 10.0.0.1 table 100", Route("", ANY, via=GATEWAY, table=100)),
        ("to 10.1.0.0/16 dev eth1 metric 5", Route("", Net(bytes((10, 1, 0, 0)), 16), dev="eth1", metric=5)),
        ("10.1.0.1 via 10.0.0.1 mtu 1400 onlink", Route("", Net(bytes((10, 1, 0, 1)), 32), via=GATEWAY, mtu=1400, onlink=True)),
        ("unreachable 10.0.0.0/8", Route("", Net(bytes((10, 0, 0, 0)), 8), 7)),
        ("default via fe80::1 dev eth0", Route("", Net(bytes(16), 0), via=b"\xfe\x80" + bytes(13) + b"\1", dev="eth0")),
        ("default dev eth0 src 10.0.0.1 scope link table main", Route("", ANY, dev="eth0", src=GATEWAY, scope=253)),
    ],
)  # fmt: skip
def test_a_route_is_read(text: str, found: Route) -> None:
    assert route(text) == Route(text, *(getattr(found, f) for f in Route.__slots__ if f != "text"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from 10.0.0.1 lookup 100", Rule("", False, Net(GATEWAY, 32), table=100)),
        ("from all fwmark 0x1/0xff table 100 pref 5", Rule("", False, mark=(1, 255), table=100, priority=5)),
        ("not to 10.0.0.0/8 iif eth0 lookup main", Rule("", False, None, Net(bytes((10, 0, 0, 0)), 8), True, "eth0", table=254)),
        ("inet6 oif eth1 prohibit", Rule("", True, oif="eth1", action=8)),
        ("from 2001:db8::/32 lookup 7", Rule("", True, Net(b"\x20\1\x0d\xb8" + bytes(12), 32), table=7)),
    ],
)  # fmt: skip
def test_a_rule_is_read(text: str, found: Rule) -> None:
    assert rule(text) == Rule(text, *(getattr(found, f) for f in Rule.__slots__ if f != "text"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no network"),
        ("unreachable to", "names no network"),
        ("default", "needs a gateway"),
        ("default via", "ends after 'via'"),
        ("default via gw", "is no address"),
        ("10.0.0.1/8 via 10.0.0.1", "no network (or has bits"),
        ("default via 10.0.0.1 src fd00::1", "mixes IPv4 and IPv6"),
        ("default via 10.0.0.1 via 10.0.0.2", "says 'via' twice"),
        ("default via 10.0.0.1 weight 3", "has 'weight'; a route may have"),
        ("default via 10.0.0.1 table 4294967296", "no number from 1 to"),
        ("default via 10.0.0.1 table ٣", "no number from 1 to"),
        ("default dev eth0/1", "no interface name"),
        ("default dev eth0 scope wide", "none of global"),
        ("blackhole default via 10.0.0.1", "goes nowhere"),
    ],
)
def test_a_route_that_is_wrong_is_told(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", "\\(")):
        route(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs a table"),
        ("from 10.0.0.1", "needs a table"),
        ("from 10.0.0.1 lookup 1 prohibit", "needs a table"),
        ("from 10.0.0.1 to fd00::1 lookup 1", "mixes"),
        ("inet6 from 10.0.0.1 lookup 1", "mixes"),
        ("from 10.0.0.1 lookup 1 table 2", "twice"),
        ("fwmark 0x1ffffffff lookup 1", "no mark"),
        ("fwmark 010 lookup 1", "no mark"),
        ("tos 4 lookup 1", "has 'tos'; a rule may have"),
    ],
)
def test_a_rule_that_is_wrong_is_told(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rule(text)


WORDS = [
    *("default", "all", "to", "from", "via", "dev", "src", "table", "lookup", "main", "metric", "mtu", "scope", "link"),
    *("onlink", "not", "fwmark", "0x1", "pref", "inet6", "prohibit", "unreachable", "100", "-1", "1/2", "eth0"),
    *("10.0.0.0/8", "10.0.0.1", "fd00::/8", "fd00::1"),
]


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=6), max_size=8).map(" ".join))
def test_any_text_is_read_or_refused_by_a_sentence(text: str) -> None:
    for read in (route, rule):
        try:
            found = read(text)
        except ValueError as wrong:
            assert str(wrong)  # noqa: PT017 - nothing else may be raised
        else:
            assert found.text == text
