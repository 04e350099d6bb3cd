"""The nouns: addresses, VIPs, members, views, the agreed table, and one member's state.

Everything here is frozen and hashable, so that a state can be kept, compared and searched. Times are
integer milliseconds of a monotonic clock and carry their unit in the name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import NewType

from .standing import Register

NodeId = NewType("NodeId", int)
"""The group engine's number for a host: 1 … 2**32-1, unique in the cluster."""

VipKey = NewType("VipKey", str)
"""`name#digest`: a VIP as everybody knows it who has the same definition of it (hazard 8)."""

NODES_MAX, VIPS_MAX, ADDRESSES_MAX = 128, 10_000, 20_000
"""Of one config; addresses are those of all its VIPs together."""
WEIGHT_MAX, VOTES_MAX = 1000, 1000
"""Of one node."""
MEMBERS_MAX = 512
"""Of a group: more than an engine can have, and more than a config has, since the group may be a foreign Corosync's."""
ROWS_MAX, ROW_ADDRESSES_MAX = 2 * VIPS_MAX, 2 * ADDRESSES_MAX
"""Of a table, whoever fills it: room for two configs during a rolling change. More VIPs than that get no row."""
BLOCKED_MAX = 2 * ROWS_MAX
"""Pairs of a VIP and a member that may serve it still."""

GENERATION_TAKEN_MAX = 2**52
"""A greater generation is not taken from anybody: there must be room to count on, in what a message can carry."""
ROUNDS_AHEAD_MAX = 16
"""Nobody of ours is further ahead with the exchanges of a view than this."""
NOTE_BYTES_MAX = 16_384
"""Of a message that the core does not read."""

PLACEMENT_VERSION = 3
"""Raised at every change of placement's outcome; members that differ let one of them assign (hazard 9)."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """One address as the config has it. `interface` is "" (find it by subnet) or a name, possibly mapped per node."""

    ip: str  # canonical text, IPv4 or IPv6
    prefix: int
    interface: str = ""

    def __str__(self) -> str:
        return f"{self.ip}/{self.prefix}"


@dataclass(frozen=True, slots=True, order=True)
class Vip:
    """The unit of placement: one or more addresses that move as one."""

    name: str
    addresses: tuple[Address, ...]
    key: VipKey = field(init=False, compare=False, repr=False, default=VipKey(""))
    """Name and definition in one: members whose definitions differ have different keys. Computed once: it is hot."""

    def __post_init__(self) -> None:
        text = "|".join([self.name, *(f"{a.ip}/{a.prefix}%{a.interface}" for a in self.addresses)])
        digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        object.__setattr__(self, "key", VipKey(f"{self.name}#{digest}"))


class Partition(Enum):
    """What a component of a split cluster may do."""

    COVER = "cover"  # every component covers all VIPs
    MAJORITY = "majority"  # a component without more than half of the nodes holds nothing


class Takeover(Enum):
    """When the VIPs of a member go elsewhere that is lost without a word."""

    FAST = "fast"  # at once: exact if its host is dead, or its daemon was killed behind a proven fence
    STRICT = "strict"  # when the lease that it announced has certainly run out


class Count(Enum):
    """What a VIP counts for when shares are computed."""

    VIPS = "vips"  # as one, however many addresses it has
    ADDRESSES = "addresses"  # as many as it has addresses


class Left(Enum):
    """Why a member is no longer in the view."""

    LEFT = "left"
    PROCESS_DIED = "process died"
    DISCONNECTED = "disconnected"  # it died, or its engine threw it out while it lives
    HOST_LOST = "host lost"


class NotEligible(Enum):
    """Why a member may not, or should rather not, hold a VIP. The first group forbids, the second only ranks (hazard 27)."""

    UNKNOWN_VIP = "its config does not have this VIP"
    NO_INTERFACE = "it has no interface for it"
    LINK_DOWN = "the interface has no carrier"
    LINK_FRESH = "the interface's carrier came back only now"
    NO_FENCE = "its kernel does not fence it there"
    FOREIGN_ADDRESS = "the address is configured there by somebody else"
    DUPLICATE = "another host answers for it"
    REFUSED = "its kernel refused the address"
    EVICTED = "it was evicted for its silence"
    NO_MAJORITY = "its component has no majority"
    RELEASING = "it is still letting go of it"
    SAME_NAME = "another member has the same node name"
    CHECK_SILENT = "its health check has not said anything yet"
    CHECK_FORBIDS = "its health check fails, and the VIP is to be withdrawn then"
    CHOSEN_TWICE = "a check that may pass on one member only passes on several"
    NOT_LISTED = "the VIP is not for it (`nodes`, `pin`)"
    FULL = "its capacity is used up"
    DRAINING = "it is being drained"
    CHECK_FAILING = "its health check fails"
    OTHER = "a later version of wackamole says why"

    @classmethod
    def _missing_(cls, _value: object) -> NotEligible:
        """A member of a later version may have reasons that this one does not know: it must be understood all the same."""
        return cls.OTHER

    @property
    def forbids(self) -> bool:
        """True for hard reasons: a VIP is never placed there, and is let go where it is held."""
        return self not in (NotEligible.DRAINING, NotEligible.CHECK_FAILING)

    @property
    def cause(self) -> Cause:
        """Why a VIP leaves its holder, of which this is true."""
        return _CAUSES.get(self, Cause.NOT_ELIGIBLE)


class OnWire(Enum):
    """What a member heard that asked a VIP's segment who has it."""

    SILENT = "silent"  # nobody answered, twice
    VERIFIED = "verified"  # one hardware address did
    DUPLICATE = "duplicate"  # more than one did


class Cause(Enum):
    """Why a row of the table changed last."""

    NONE = "nothing yet"
    FILL = "nobody held it"
    HOST_LOST = "its host was lost"
    PROCESS_DIED = "its daemon died"
    DISCONNECTED = "its daemon was disconnected"
    LEFT = "its holder left"
    EVICTED = "its holder was silent"
    CLAIM = "its holder held it before the exchange"
    CONFLICT = "two held it after a merge"
    OPERATOR = "an operator moved it"
    BALANCE = "balance"
    DRAIN = "its holder is drained"
    HEALTH = "its holder's health check fails"
    NOT_ELIGIBLE = "its holder is no longer eligible"
    CHOSEN_TWICE = "its check passed on several members"
    FAILED = "the kernel of its target refused it"
    OTHER = "a later version of wackamole says why"

    @classmethod
    def _missing_(cls, _value: object) -> Cause:
        """As for NotEligible."""
        return cls.OTHER


_CAUSES = {
    NotEligible.DRAINING: Cause.DRAIN,
    NotEligible.CHECK_FAILING: Cause.HEALTH,
    NotEligible.CHECK_FORBIDS: Cause.HEALTH,
    NotEligible.CHOSEN_TWICE: Cause.CHOSEN_TWICE,
}


@dataclass(frozen=True, slots=True, order=True)
class ViewId:
    """Equal at all members of a view and never reused. Corosync: representative and sequence number of the ring, and the
    number of the group change within that ring. Spread: the group id's three numbers."""

    node: int
    seq: int
    change: int

    def __str__(self) -> str:
        return f"{self.node:x}.{self.seq}.{self.change}"


@dataclass(frozen=True, slots=True)
class View:
    """Who can talk to each other, as the group engine says it."""

    id: ViewId
    members: tuple[NodeId, ...]  # ascending
    joined: tuple[NodeId, ...]  # not in my previous view, or gone and back meanwhile; at my own first view: all members
    left: tuple[tuple[NodeId, Left], ...]
    direct: bool
    """The engine vouches that whoever came along with me from my previous view delivered the same messages there
    (hazard 2); False is always safe: it costs one round."""


@dataclass(frozen=True, slots=True)
class Row:
    """What everybody knows of one VIP."""

    key: VipKey
    vip: Vip
    holder: NodeId | None = None
    target: NodeId | None = None
    generation: int = 0  # raised at every change of holder or target (hazard 10)
    releasing: tuple[
        tuple[NodeId, int], ...
    ] = ()  # losers of a conflict, not yet confirmed; and the generation they answer
    previous: NodeId | None = None  # who handed it over: takes it back if the new holder's kernel refuses
    sticky: bool = False  # an operator wants it where it is: balance leaves it alone (hazard 26)
    cause: Cause = Cause.NONE

    def held_by(self, holder: NodeId | None, cause: Cause) -> Row:
        """One generation later with another holder, who is to keep it. Three times as fast as `dataclasses.replace`: a
        death or an exchange does this to thousands of rows before anything can be announced."""
        sticky, releasing = self.sticky, self.releasing
        return Row(self.key, self.vip, holder, holder, self.generation + 1, releasing, None, sticky, cause)


@dataclass(frozen=True, slots=True, order=True)
class Electorate:
    """Who votes on which component may serve, under `majority`: see electorate.py."""

    epoch: int
    votes: tuple[tuple[str, int], ...]  # node name and number of votes, sorted


class By(Enum):
    """What the members' shares of the VIPs follow."""

    COUNT = "count"  # the same for all
    WEIGHT = "weight"  # the weights of the config
    LOAD = "load"  # the weights, and how loaded each member is beside the others
    ENTRY_POINT = "entry point"  # a function of the operator's own


@dataclass(frozen=True, slots=True)
class Sharer:
    """A member, as a rule of shares sees it: nothing but what was delivered."""

    name: str
    weight: int
    load: int | None  # hundredths, as announced; None: not known
    held: int  # what its VIPs count for


ShareRule = Callable[[tuple[Sharer, ...]], tuple[int, ...] | None]
"""Every member's share, as whole numbers that are compared with each other; None: it cannot say, and weights count. Equal
arguments must give equal results on every member."""


@dataclass(frozen=True, slots=True)
class Shares:
    """`[balance] by` and `[load]`. `hysteresis` is in percent: so much must a load differ to be told anew, and twice that
    between two members before a VIP moves for it."""

    by: By = By.WEIGHT
    rule: ShareRule | None = None  # with ENTRY_POINT
    hysteresis: int = 15
    smoothing_ms: int = 60_000
    moves_per_round: int = 1  # that only the load asks for

    @property
    def follows_load(self) -> bool:
        """Whether a share may change with what members announce all the time."""
        return self.by in (By.LOAD, By.ENTRY_POINT)

    @property
    def pause_ms(self) -> int:
        """For so long after any VIP changed its holder loads tell of the past: three times the smoothing, 95 % of it gone."""
        return 3 * self.smoothing_ms


@dataclass(frozen=True, slots=True)
class Report:
    """What a member said of itself, last as delivered: placement reads nothing else (hazard 9)."""

    node: NodeId
    incarnation: int
    name: str
    known: tuple[VipKey, ...] = ()  # sorted
    config_digest: str = ""
    nodes: tuple[str, ...] = ()  # the node list of its config
    votes: tuple[tuple[str, int], ...] = ()  # of those that have not just one, sorted
    electorates: tuple[Electorate, ...] = ()  # what it has on its disk; none unless its policy is `majority`
    placement_version: int = PLACEMENT_VERSION
    weight: int = 1
    mature: bool = False
    draining: bool = False
    leaving: bool = False
    ineligible: tuple[tuple[VipKey, NotEligible], ...] = ()  # sorted by key
    fenced: bool = (
        False  # proven: its kernel silences its VIPs before anybody can hear that its daemon died (hazards 5, 7)
    )
    lease_ms: int = 0  # its kernel silences it at most this long after it sent its last good beat; 0: nothing does
    restart_ms: int = 0  # it announced that it would be away for so long, serving on; 0: it did not
    component: int = 1  # members in its last settled view: the larger component wins a conflict
    partition: Partition = Partition.COVER  # the policy of its config
    takeover: Takeover = Takeover.FAST
    version: str = ""
    load: int | None = None  # hundredths, smoothed and in steps; None: not measured, or not known now
    keeps_orders: bool = False  # of operators; older versions do not say this, and do not
    chosen: tuple[VipKey, ...] = ()  # sorted: its check, which may pass on one member only, passes here
    capacity: int | None = None  # what its VIPs count for at most; None: no limit


@dataclass(frozen=True, slots=True)
class Settings:
    """What the core needs of the config. `prefer` and `avoid` are lists of node names."""

    node: str
    nodes: tuple[str, ...]
    vips: tuple[Vip, ...]
    config_digest: str
    prefer: tuple[tuple[VipKey, tuple[str, ...]], ...] = ()
    avoid: tuple[tuple[VipKey, tuple[str, ...]], ...] = ()
    apart: tuple[tuple[VipKey, str], ...] = ()  # group of VIPs that different members should have
    not_mine: tuple[VipKey, ...] = ()  # whose `nodes` do not name this node
    weight: int = 1
    capacity: int | None = None  # what its VIPs count for at most; None: no limit
    votes: tuple[tuple[str, int], ...] = ()  # of nodes that have not just one; sorted
    partition: Partition = Partition.COVER
    mature_ms: int = 5000
    beat_ms: int = 100
    evict_after_ms: int = 1500
    detection_ms: int = 0  # the engine needs at least so long to know that a host is gone; 0: not known
    lease_ms: int = 1100  # what it announces as its Report's
    beat_age_max_ms: int = 150  # an own beat renews the lease only while it is younger
    takeover: Takeover = Takeover.FAST
    count: Count = Count.VIPS
    balance_interval_ms: int = 4000
    moves_per_round: int | None = None  # None: all
    settle_ms: int = 10000
    shares: Shares = Shares()
    leave_ms: int = 3000
    version: str = ""
    keys: tuple[VipKey, ...] = field(init=False, compare=False, repr=False, default=())
    """Of the VIPs, sorted. Computed once: every beat asks for them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(sorted(v.key for v in self.vips)))


class Phase(Enum):
    """Where this member stands."""

    OFFLINE = "no group"
    EXCHANGE = "exchanging state"
    SETTLED = "settled"
    GONE = "left"


@dataclass(frozen=True, slots=True)
class Table:
    """The agreed part: equal at all members of a settled view that delivered the same events."""

    rows: tuple[Row, ...] = ()  # sorted by VIP key
    reports: tuple[Report, ...] = ()  # sorted by node; of members of this view whose State was delivered
    evicted: tuple[tuple[NodeId, int], ...] = ()  # node and incarnation
    lapsing: tuple[tuple[NodeId, int, int], ...] = ()
    """Node, incarnation and milliseconds: lost from the view, but its kernel may still serve what it had for that long.
    Its VIPs wait for a `Lapsed`."""
    orders: Register = ()
    """Of operators (standing.py). What a member knows of them outlives its membership."""
