"""What is kept, and looked up by halves, is what would be found by looking through everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wackamole.core.model import VIPS_MAX, Address, NodeId, Row, Settings, Table, Vip
from wackamole.core.placement import shared
from wackamole.core.state import initial
from wackamole.core.work import Work

VIPS = tuple(sorted((Vip(f"v{i}", (Address(f"10.0.{i >> 8}.{i & 255}", 32),)) for i in range(40)), key=lambda v: v.key))


@given(st.sets(st.sampled_from(VIPS)), st.sampled_from(VIPS), st.booleans())
def test_a_row_is_found_in_the_table_or_in_the_index(there: set[Vip], asked: Vip, indexed: bool) -> None:
    rows = tuple(Row(v.key, v) for v in sorted(there, key=lambda v: v.key))
    state = initial(Settings("a", ("a",), VIPS, ""))
    work = Work(state.__class__(settings=state.settings, table=Table(rows)), 0)
    if indexed:
        assert len(work.rows) == len(rows)
    assert work.row(asked.key) == next((r for r in rows if r.key == asked.key), None)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=8))
def test_addresses_that_several_rows_have_are_found(addresses: list[list[int]]) -> None:
    vips = [
        Vip(f"v{i}", tuple(Address(f"10.0.0.{n}", 32) for n in dict.fromkeys(of))) for i, of in enumerate(addresses)
    ]
    rows = [Row(v.key, v) for v in vips]
    naive = {
        f"10.0.0.{n}": [r.key for r in rows if any(a.ip == f"10.0.0.{n}" for a in r.vip.addresses)] for n in range(10)
    }
    assert shared(rows) == {ip: keys for ip, keys in naive.items() if len(keys) > 1}


def test_settings_know_their_keys_in_order() -> None:
    vips = tuple(reversed(VIPS))
    assert Settings("a", ("a",), vips, "").keys == tuple(v.key for v in VIPS)
    assert VIPS_MAX >= 10_000


def test_holding_is_a_generation() -> None:
    row = Row(VIPS[0].key, VIPS[0], previous=NodeId(3), sticky=True, generation=4)
    held = row.held_by(NodeId(2), row.cause)
    assert (held.holder, held.target, held.generation, held.previous, held.sticky) == (2, 2, 5, None, True)
