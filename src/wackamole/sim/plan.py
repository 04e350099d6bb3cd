"""What happens to a simulated cluster: its shape, and the faults with their times. Drawn from a seed, or read from a file.

    cluster seed=17 nodes=3 vips=5 partition=cover takeover=fast fence=nftables detection=300 … until=30000
    1203 crash b
    3920 start b

Times are milliseconds. The text is all there is: what is drawn while it runs (latencies) comes from the seed in it. A
fault that cannot happen when its time has come (a crash of a host that is off) does not; so a plan stays one when lines
are taken out of it, and `shrink` does that.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields, replace
from string import ascii_lowercase

from ..core.model import NODES_MAX

KINDS = (
    "crash",
    "kill",
    "hang",
    "hang-long",
    "freeze",
    "stall-engine",
    "lose-engine",
    "split",
    "flap",
    "divide",
    "slow",
    "refuse",
    "link",
    "config",
    "unfence",
    "move",
    "hold",
    "drain",
    "balance",
    "leave",
    "jump",
    "sick",
)
"""Kinds of faults; each seed draws from some of them, so that rare mixtures occur as well."""


VERBS: dict[str, tuple[str, ...]] = {
    "start": ("node",),
    "crash": ("node",),
    "kill": ("node",),
    "leave": ("node",),
    "hang": ("node",),
    "wake": ("node",),
    "freeze": ("node",),
    "thaw": ("node",),
    "stall-engine": ("node",),
    "go-engine": ("node",),
    "lose-engine": ("node",),
    "find-engine": ("node",),
    "unfence": ("node",),
    "fence": ("node",),
    "balance": ("node",),
    "slow": ("node", "ms"),
    "jump": ("node", "ms"),
    "drain": ("node", "node"),
    "resume": ("node", "node"),
    "config": ("node", "change"),
    "refuse": ("node", "names"),
    "down": ("node", "names"),
    "sick": ("node", "how", "names"),
    "move": ("node", "node", "names"),
    "hold": ("node", "names"),
    "unhold": ("node", "names"),
    "divide": ("ms", "groups"),
    "split": ("groups",),
    "heal": ("groups",),
}
"""What a line may say, and the words that follow; `names` and `groups` take all that are left. The simulator says what
each verb means (`Simulation.do_…`)."""

_CHOICES: dict[str, tuple[object, ...]] = {
    "nodes": tuple(range(1, NODES_MAX + 1)),
    "vips": tuple(range(1, 201)),
    "partition": ("cover", "majority"),
    "takeover": ("fast", "strict"),
    "fence": ("nftables", "lifetime", "off"),
    "together": (0, 1),
    "count": ("vips", "addresses"),
    "addresses": tuple(range(1, 6)),
    "only": tuple(range(10)),
    "prefer": tuple(range(10)),
    "avoid": tuple(range(10)),
    "apart": tuple(range(10)),
    "capacity": tuple(range(201)),
}
_SICK = ("keep", "withdraw", "chosen")


@dataclass(frozen=True, slots=True)
class Fault:
    """One line: when, what, and to whom."""

    at_ms: int
    verb: str
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((str(self.at_ms), self.verb, *self.words))


@dataclass(frozen=True, slots=True)
class Plan:
    """A cluster and what happens to it. `until_ms`: when the faults stop and everything is repaired; `together`: whether
    configs that differ are made alike then; `addresses`: VIPs have 1, 2, … so many of them, 1, …. `only`, `prefer`, `avoid`: each
    so-manieth VIP is for one or two nodes only, prefers two, avoids one (0: none); `apart`: groups of so many; `capacity`: that of
    every other node (0: no limit)."""

    seed: int
    nodes: int
    vips: int
    partition: str = "cover"
    takeover: str = "fast"
    fence: str = "nftables"
    detection: int = 300
    mature: int = 2000
    interval: int = 1000
    settle: int = 2000
    weights: str = ""
    together: int = 1
    until: int = 30_000
    count: str = "vips"
    addresses: int = 1
    only: int = 0
    prefer: int = 0
    avoid: int = 0
    apart: int = 0
    capacity: int = 0
    faults: tuple[Fault, ...] = ()

    def names(self) -> tuple[str, ...]:
        """The nodes."""
        return names_of(self.nodes)

    def text(self) -> str:
        """As a file, that `read` reads."""
        words = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if f.name != "faults"]
        return "\n".join((" ".join(("cluster", *words)), *map(str, self.faults))) + "\n"


def names_of(nodes: int) -> tuple[str, ...]:
    """Letters, or numbers where there are not enough of them."""
    return tuple(ascii_lowercase[:nodes]) if nodes <= len(ascii_lowercase) else tuple(f"n{i + 1}" for i in range(nodes))


class PlanWrong(Exception):
    """A file that is no plan; says where."""


def read(text: str, path: str = "plan") -> Plan:
    """The plan that a text says. Raises PlanWrong."""
    kinds: dict[str, Callable[[str], object]] = {
        f.name: int if f.type == "int" else str for f in fields(Plan) if f.name != "faults"
    }
    options: dict[str, object] = {}
    faults: list[Fault] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        try:
            if words[0] == "cluster":
                for key, _, value in (w.partition("=") for w in words[1:]):
                    options[key] = kinds[key](value)
                    if key in _CHOICES and options[key] not in _CHOICES[key]:
                        raise ValueError(f"{key}={value}")
            else:
                fault = Fault(int(words[0]), words[1], tuple(words[2:]))
                _check(fault, names_of(int(str(options["nodes"]))))
                faults.append(fault)
        except (KeyError, ValueError, IndexError) as wrong:
            raise PlanWrong(f"{path}:{number}  {line!r} cannot be read ({wrong})") from None
    try:
        return Plan(**options, faults=tuple(faults))  # type: ignore[arg-type]
    except TypeError:
        raise PlanWrong(f"{path}: there is no line `cluster seed=… nodes=… vips=…`") from None


def _check(fault: Fault, names: tuple[str, ...]) -> None:
    """Raise KeyError, IndexError or ValueError for a line that says nothing that can happen."""
    wanted, words = VERBS[fault.verb], list(fault.words)
    for kind in wanted:
        if kind == "groups":
            named = [n for w in words if w != "lose" for n in w.split(",")]
            if len(set(named)) != len(named) or not set(named) <= set(names):
                raise ValueError("groups of nodes")
            return
        if kind == "names":
            return
        word = words.pop(0)
        if (kind == "ms" and int(word) < 0) or (kind == "node" and word not in names):
            raise ValueError(word)
        if kind == "how" and word not in _SICK:
            raise ValueError(word)
        if kind == "change" and not re.fullmatch(r"rename=v\d+|add=\d{1,2}|(weight|capacity|only)=\d{1,3}", word):
            raise ValueError(word)
    if words:
        raise ValueError(" ".join(words))


def draw(seed: int, only: Collection[str] = (), members: int | None = None) -> Plan:
    """The plan of a seed; `only`: of these kinds of faults; `members`: with so many nodes instead of 2 to 7."""
    dice = random.Random(f"plan {seed}")  # noqa: S311 - not for secrets
    drawn = dice.randint(2, 7)
    nodes = drawn if members is None else members
    partition = dice.choice(("cover", "cover", "majority"))
    fence = dice.choice(("nftables", "nftables", "nftables", "lifetime", "off"))
    takeover = dice.choice(("fast", "strict"))
    if fence == "off":
        partition, takeover = "cover", "fast"
    plan = Plan(
        seed,
        nodes,
        dice.randint(1, 20),
        partition,
        takeover,
        fence,
        dice.choice((200, 300, 300, 500)),
        dice.choice((0, 2000, 5000)),
        dice.choice((500, 1000, 4000)),
        dice.choice((0, 2000, 5000)),
        ",".join(str(dice.choice((1, 1, 1, 2, 3))) for _ in range(nodes)) if dice.random() < 0.4 else "",
        int(dice.random() < 0.7),
        dice.randrange(10_000, 40_000),
    )
    more = random.Random(~seed)  # noqa: S311  (its own, so that what a seed draws beside is as before)
    plan = replace(plan, count=more.choice(("vips", "addresses")), addresses=more.choice((1, 1, 2, 5)))
    if more.random() < 0.5:
        plan = replace(
            plan,
            only=more.choice((0, 0, 2, 3)),
            prefer=more.choice((0, 0, 2, 5)),
            avoid=more.choice((0, 0, 2, 3)),
            apart=more.choice((0, 0, 2, 3, 5)),
            capacity=more.choice((0, 0, 0, 1, 3, 8)),
        )
    usual = [k for k in KINDS if k != "sick"]
    kinds = [k for k in usual if dice.random() < 0.5] or usual
    if only:
        kinds = [k for k in KINDS if k in only]
        assert kinds, f"of {only} none is a kind of faults"
    gap_ms = dice.choice((150, 400, 1000, 2500))
    faults: list[Fault] = []
    at = dice.randrange(500, 8000)
    while at < plan.until:
        faults += _DRAWN[dice.choice(kinds)](dice, plan, at)
        at += 1 + int(dice.expovariate(1 / gap_ms))
    if not only and more.random() < 0.4:
        for _ in range(more.randint(1, 12)):
            faults += _sick(more, plan, more.randrange(500, plan.until))
    return replace(plan, faults=tuple(sorted((f for f in faults if f.at_ms < plan.until), key=lambda f: f.at_ms)))


# -- the kinds: each draws what begins it and, as a rule, what ends it ------------------------------------------------------

Drawn = Iterator[Fault]


def _node(dice: random.Random, plan: Plan) -> str:
    return dice.choice(plan.names())


def _vip(dice: random.Random, plan: Plan) -> str:
    return f"v{dice.randint(1, plan.vips)}"


def _some_vips(dice: random.Random, plan: Plan) -> tuple[str, ...]:
    count = dice.choice((1, 1, plan.vips, (plan.vips + 1) // 2))
    return tuple(sorted(dice.sample([f"v{i + 1}" for i in range(plan.vips)], count)))


def _groups(dice: random.Random, plan: Plan) -> tuple[str, ...]:
    count = dice.choice((2, 2, 2, 3))
    groups: dict[int, list[str]] = {}
    for name in plan.names():
        groups.setdefault(dice.randrange(count), []).append(name)
    return tuple(sorted(",".join(g) for g in groups.values()))


def _span(dice: random.Random, least: int, most: int) -> int:
    """Short ones as often as long ones: the logarithm is uniform."""
    return int(least * (most / least) ** dice.random())


def _crash(dice: random.Random, plan: Plan, at: int) -> Drawn:
    node = _node(dice, plan)
    yield Fault(at, "crash", (node,))
    yield Fault(at + _span(dice, 1000, 8000), "start", (node,))


def _kill(dice: random.Random, plan: Plan, at: int) -> Drawn:
    node = _node(dice, plan)
    yield Fault(at, "kill", (node,))
    yield Fault(at + _span(dice, 20, 6000), "start", (node,))


def _pause(begin: str, end: str, least: int, most: int) -> Callable[[random.Random, Plan, int], Drawn]:
    def drawn(dice: random.Random, plan: Plan, at: int) -> Drawn:
        node = _node(dice, plan)
        yield Fault(at, begin, (node,))
        yield Fault(at + _span(dice, least, most), end, (node,))

    return drawn


def _split(dice: random.Random, plan: Plan, at: int) -> Drawn:
    lose = ("lose",) if dice.random() < 0.5 else ()
    yield Fault(at, "split", (*_groups(dice, plan), *lose))
    yield Fault(at + _span(dice, 50, 6000), "heal", lose)


def _flap(dice: random.Random, plan: Plan, at: int) -> Drawn:
    """Loss in one direction, as the engine shows it: a ring that forms without a member, and with it, again and again."""
    node = _node(dice, plan)
    rest = ",".join(n for n in plan.names() if n != node)
    for _ in range(dice.randint(2, 5)):
        yield Fault(at, "split", (rest, node, "lose"))
        at += _span(dice, 100, 1500)
        yield Fault(at, "heal", ("lose",))
        at += _span(dice, 100, 1500)


def _divide(dice: random.Random, plan: Plan, at: int) -> Drawn:
    yield Fault(at, "divide", (str(_span(dice, 5, 200)), *_groups(dice, plan)))


def _slow(dice: random.Random, plan: Plan, at: int) -> Drawn:
    node = _node(dice, plan)
    yield Fault(at, "slow", (node, str(_span(dice, 20, 800))))
    yield Fault(at + _span(dice, 200, 6000), "slow", (node, "0"))


def _refuse(dice: random.Random, plan: Plan, at: int) -> Drawn:
    node = _node(dice, plan)
    yield Fault(at, "refuse", (node, *_some_vips(dice, plan)))
    yield Fault(at + _span(dice, 500, 6000), "refuse", (node,))


def _link(dice: random.Random, plan: Plan, at: int) -> Drawn:
    node = _node(dice, plan)
    yield Fault(at, "down", (node, *_some_vips(dice, plan)))
    yield Fault(at + _span(dice, 50, 6000), "down", (node,))


def _sick(dice: random.Random, plan: Plan, at: int) -> Drawn:
    node, how = _node(dice, plan), dice.choice(_SICK)
    yield Fault(at, "sick", (node, how, *_some_vips(dice, plan)))
    yield Fault(at + _span(dice, 50, 6000), "sick", (node, how))


def _config(dice: random.Random, plan: Plan, at: int) -> Drawn:
    change = dice.choice(
        (
            f"rename={_vip(dice, plan)}",
            f"add={dice.randint(1, 3)}",
            f"weight={dice.randint(1, 4)}",
            f"capacity={dice.randint(1, 5)}",
            f"only={dice.randint(0, 4)}",
        )
    )
    nodes = dice.sample(plan.names(), dice.choice((1, plan.nodes)))
    for node in nodes:
        yield Fault(at, "config", (node, change))
        yield Fault(at, dice.choice(("kill", "leave")), (node,))
        at += _span(dice, 20, 1000)
        yield Fault(at, "start", (node,))
        at += _span(dice, 20, 2000)


def _move(dice: random.Random, plan: Plan, at: int) -> Drawn:
    yield Fault(at, "move", (_node(dice, plan), _node(dice, plan), *_some_vips(dice, plan)))


def _hold(dice: random.Random, plan: Plan, at: int) -> Drawn:
    vips = _some_vips(dice, plan)
    yield Fault(at, "hold", (_node(dice, plan), *vips))
    if dice.random() < 0.7:
        yield Fault(at + _span(dice, 200, 6000), "unhold", (_node(dice, plan), *vips))


def _drain(dice: random.Random, plan: Plan, at: int) -> Drawn:
    node, asked = _node(dice, plan), _node(dice, plan)
    yield Fault(at, "drain", (asked, node))
    if dice.random() < 0.8:
        yield Fault(at + _span(dice, 200, 6000), "resume", (_node(dice, plan), node))


def _balance(dice: random.Random, plan: Plan, at: int) -> Drawn:
    yield Fault(at, "balance", (_node(dice, plan),))


def _leave(dice: random.Random, plan: Plan, at: int) -> Drawn:
    node = _node(dice, plan)
    yield Fault(at, "leave", (node,))
    yield Fault(at + _span(dice, 50, 6000), "start", (node,))


def _jump(dice: random.Random, plan: Plan, at: int) -> Drawn:
    yield Fault(at, "jump", (_node(dice, plan), str(_span(dice, 5000, 600_000))))


_DRAWN: dict[str, Callable[[random.Random, Plan, int], Drawn]] = {
    "crash": _crash,
    "kill": _kill,
    "hang": _pause("hang", "wake", 20, 1500),
    "hang-long": _pause("hang", "wake", 1000, 12_000),
    "freeze": _pause("freeze", "thaw", 50, 8000),
    "stall-engine": _pause("stall-engine", "go-engine", 50, 6000),
    "lose-engine": _pause("lose-engine", "find-engine", 300, 5000),
    "split": _split,
    "flap": _flap,
    "divide": _divide,
    "slow": _slow,
    "refuse": _refuse,
    "link": _link,
    "config": _config,
    "unfence": _pause("unfence", "fence", 100, 4000),
    "move": _move,
    "hold": _hold,
    "drain": _drain,
    "balance": _balance,
    "leave": _leave,
    "jump": _jump,
    "sick": _sick,
}


# -- making a failure small ---------------------------------------------------------------------------------------------


def shrink(plan: Plan, fails: Callable[[Plan], bool], tries_max: int = 200) -> Plan:
    """A plan with fewer lines that still fails, found by taking lines out, in halves first; at most `tries_max` runs."""
    size = len(plan.faults)
    while size and tries_max > 0:
        start, before = 0, len(plan.faults)
        while start < len(plan.faults) and tries_max > 0:
            tried = replace(plan, faults=plan.faults[:start] + plan.faults[start + size :])
            tries_max -= 1
            if fails(tried):
                plan = tried
            else:
                start += size
        if size > 1:
            size //= 2
        elif len(plan.faults) == before:
            break
    return plan
