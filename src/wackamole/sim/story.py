"""Stories in text files (tests/scenarios/*.txt): commands, a line of dashes, and what the members then say and do.

An operator can read them; a change of behaviour is a difference in review. After every command the laws are checked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..core import events as ev
from ..core.agreed import digest_of, witness_of
from ..core.invariants import (
    every_address_is_held_once,
    no_address_is_held_twice,
    no_address_is_served_by_two_majorities,
    settled_members_agree,
    what_is_kept_is_so,
)
from ..core.messages import Evict
from ..core.model import (
    Address,
    By,
    Count,
    NodeId,
    NotEligible,
    OnWire,
    Partition,
    Settings,
    Shares,
    Takeover,
    Vip,
    VipKey,
)
from ..core.standing import Kind, Order
from .world import World

TICKS_MAX = 100
"""Looks at the clock at one moment of virtual time: more than there are members and timers."""


@dataclass(slots=True)
class LawfulWorld(World):
    """A world in which the laws are checked after every delivery and every operation of a kernel."""

    bugs: bool = False
    """Put in by the story: tables differ for a while."""
    ticked: tuple[int, int] = (0, 0)
    """How often somebody has looked at the clock at the present time."""

    def tick(self, node: NodeId) -> None:
        """A member looks at the clock; a deadline that stays due would have a daemon look at it for ever."""
        at_ms, times = self.ticked
        self.ticked = (self.now_ms, times + 1 if at_ms == self.now_ms else 1)
        assert times < TICKS_MAX, f"{self.name(node)} has a deadline that stays due; {self.replay_hint()}"
        World.tick(self, node)

    def act(self, action: tuple[str, NodeId]) -> None:
        """Let one of `actions` happen; most are beats, after which nothing is otherwise."""
        node = action[1]
        before = self.members[node].state.table, self.members[node].kernel, tuple(self.serves(node))
        World.act(self, action)
        member = self.members.get(node)
        if member is None:
            self.check()  # its process was replaced
        elif member.state.table is not before[0] or (member.kernel, tuple(self.serves(node))) != before[1:]:
            self.check()

    def check(self) -> None:
        """What must be so at any moment."""
        no_address_is_held_twice(self)
        what_is_kept_is_so(self)
        no_address_is_served_by_two_majorities(self)
        if not self.bugs:
            settled_members_agree(self)


class Story:
    """One world, told what to do line by line."""

    def __init__(self) -> None:
        self.world = LawfulWorld({})
        self.world.log = []
        self.ids: dict[str, NodeId] = {}
        self.vips: dict[str, Vip] = {}

    def do(self, line: str) -> None:
        verb, *words = line.split()
        getattr(self, f"do_{verb.replace('-', '_')}")(*words)
        self.world.check()

    def do_cluster(self, *words: str) -> None:
        options = dict(w.split("=", 1) for w in words)
        names = options["nodes"].split(",")
        for i, text in enumerate(options["vips"].split(",")):  # gw*3 is one VIP of three addresses
            vip, _, addresses = text.partition("*")
            self.vips[vip] = Vip(
                vip, tuple(Address(f"192.0.{2 + j}.{i + 1}", 32) for j in range(int(addresses or "1")))
            )
        limits = [word.split(":") for word in options.get("capacity", "").split(",") if word]
        capacities = {name: int(most) for name, most in limits}
        for i, name in enumerate(names):
            self.ids[name] = NodeId(i + 1)
            self.world.settings[NodeId(i + 1)] = Settings(
                node=name,
                nodes=tuple(names),
                vips=tuple(self.vips.values()),
                config_digest="one",
                prefer=self.preferences(options.get("prefer", "")),
                avoid=self.preferences(options.get("avoid", "")),
                not_mine=self.not_for(name, options.get("only", "")),
                apart=tuple((k, group) for k, (group,) in self.preferences(options.get("apart", ""))),
                capacity=capacities.get(name),
                partition=Partition(options.get("partition", "cover")),
                mature_ms=int(options.get("mature", "5000")),
                settle_ms=int(options.get("settle", "10000")),
                lease_ms=int(options.get("lease", "0" if options.get("fence") == "off" else "1100")),
                takeover=Takeover(options.get("takeover", "fast")),
                detection_ms=int(options.get("detection", "0")),
                count=Count(options.get("count", "vips")),
                shares=Shares(By(options.get("by", "weight")), smoothing_ms=int(options.get("smoothing", "60000"))),
            )

        if options.get("fence") == "off":
            self.world.unfenced = frozenset(self.ids.values())

    def do_config(self, name: str, *words: str) -> None:
        """Before it starts: it has another config than the others."""
        self.world.with_settings(self.ids[name], **self.changes(name, words))

    def do_reload(self, name: str, *words: str) -> None:
        """While it runs: it reads another config."""
        self.world.with_settings(self.ids[name], **self.changes(name, words))
        self.world.tell(self.ids[name], ev.ConfigReloaded(self.world.settings[self.ids[name]]))

    def preferences(self, text: str) -> tuple[tuple[VipKey, tuple[str, ...]], ...]:
        pairs = [word.split(":") for word in text.split(";") if word]
        return tuple(sorted((self.vips[name].key, tuple(nodes.split("+"))) for name, nodes in pairs))

    def not_for(self, name: str, text: str) -> tuple[VipKey, ...]:
        """VIPs that are only for other nodes."""
        return tuple(key for key, nodes in self.preferences(text) if name not in nodes)

    def changes(self, name: str, words: tuple[str, ...]) -> dict[str, object]:
        options = dict(w.split("=", 1) for w in words)
        changes: dict[str, object] = {"config_digest": options.get("digest", "two")}
        if "vips" in options:
            chosen = []
            for text in options["vips"].split(","):
                label, _, like = text.partition("@")
                base = self.vips[like or label]
                chosen.append(base if not like else Vip(label, base.addresses))
            changes["vips"] = tuple(chosen)
        if "node" in options:
            changes["node"] = options["node"]
        if "nodes" in options:  # of which one may have other than one vote: c:3
            pairs = [word.partition(":") for word in options["nodes"].split(",")]
            changes["nodes"] = tuple(sorted(name for name, _, _ in pairs))
            changes["votes"] = tuple(sorted((name, int(votes)) for name, _, votes in pairs if votes))
        if "prefer" in options:
            changes["prefer"] = self.preferences(options["prefer"])
        if "only" in options:
            changes["not_mine"] = self.not_for(options.get("node", name), options["only"])
        if "capacity" in options:
            changes["capacity"] = int(options["capacity"])
        if "weight" in options:
            changes["weight"] = int(options["weight"])
        return changes

    def do_start(self, *names: str) -> None:
        for name in names:
            self.world.power_on(self.ids[name])

    def do_crash(self, name: str) -> None:
        self.world.crash(self.ids[name])

    def do_kill(self, name: str) -> None:
        self.world.kill(self.ids[name])

    def do_throw_out(self, name: str) -> None:
        """The engine closes the connection of a member that stands still."""
        self.world.network.throw_out(self.ids[name])
        self.world.say(f"{name} is thrown out")

    def do_split(self, *groups: str) -> None:
        self.world.partition([[self.ids[n] for n in g.split(",")] for g in groups])

    def do_hidden_crash(self, name: str) -> None:
        """The engine shows only that a member is gone, and does not vouch for what came between."""
        node = self.ids[name]
        rest = [n for n in self.world.network.nodes() if n != node]
        self.world.network.partition([rest, [node]], hidden=True)
        self.world._remove(node)
        self.world.network.crash(node)

    def do_lose_and_cut(self, name: str) -> None:
        """A member is cut off; of what was under way, only what somebody has delivered already survives."""
        node = self.ids[name]
        self.world.network.partition([[n for n in self.world.network.nodes() if n != node], [node]], lose=True)

    def do_lose_and_split(self, *groups: str) -> None:
        """The same, into these groups."""
        self.world.network.partition([[self.ids[n] for n in g.split(",")] for g in groups], lose=True)

    def do_disk(self, name: str) -> None:
        self.world.run_disk(self.ids[name])

    def do_hang(self, name: str) -> None:
        """The daemon stands still: nothing is delivered to it, its clock does nothing."""
        self.world.hang(self.ids[name])

    def do_wake(self, name: str) -> None:
        """It goes on: its clock first, before anything that waits in its queue."""
        self.world.wake(self.ids[name])

    def do_thaw(self, name: str) -> None:
        """It goes on and does not notice that it stood still: its queue comes first, and its clock says nothing."""
        self.world.hung -= {self.ids[name]}
        del self.world.hung_since[self.ids[name]]

    def do_clock(self, ms: str) -> None:
        """Time goes by, and nobody looks at it."""
        self.world.now_ms += int(ms)

    def do_tick(self, name: str) -> None:
        """A member looks at the clock."""
        self.world.tick(self.ids[name])

    def do_fence(self, name: str, how: str) -> None:
        """`off`, before it starts: nothing ever silences it; `unproven` and `proven`: what it says of its fence."""
        node = self.ids[name]
        if how == "off":
            self.world.unfenced |= {node}
            self.world.with_settings(node, lease_ms=0)
        else:
            self.world.tell(node, ev.FenceChanged({"proven": True, "unproven": False}[how]))

    def do_corrupt(self, name: str, vip: str, holder: str) -> None:
        """A bug: a member's table says another holder than those of all others."""
        member = self.world.members[self.ids[name]]
        state = member.state
        rows = tuple(
            replace(r, holder=self.ids[holder], target=self.ids[holder]) if r.key == self.vips[vip].key else r
            for r in state.table.rows
        )
        table = replace(state.table, rows=rows)
        member.state = replace(state, table=table, recent=((state.applied, digest_of(table)),))
        self.world.bugs = True

    def do_balance(self, name: str) -> None:
        self.world.tell(self.ids[name], ev.BalanceRequested())

    def do_load(self, name: str, hundredths: str) -> None:
        """It measures its load, three times in a while."""
        for _ in range(3):
            self.world.tell(self.ids[name], ev.LoadMeasured(int(hundredths)))
            self.do_pass("1000")

    def do_heal(self) -> None:
        self.world.partition([self.ids.values()])

    def do_run(self) -> None:
        self.world.run()

    def do_run_slow(self, name: str) -> None:
        """The same, but one member's kernel does nothing."""
        while actions := [a for a in self.world.actions() if a != ("kernel", self.ids[name])]:
            self.world.act(actions[0])

    def do_lose(self) -> None:
        """What is under way to everybody is lost without a word, and without a change of the view."""
        self.world.network.lose()

    def do_evict(self, node: str, _by: str, by: str, count: str) -> None:
        """A member says, with `heard=N` or `round=N`, that another was silent: the others read it after what is under way."""
        what, number = count.split("=")
        state = self.world.members[self.ids[by]].state
        assert state.view is not None
        incarnation = self.world.members[self.ids[node]].state.incarnation
        message = Evict(
            self.ids[node], incarnation, int(number) if what == "heard" else 0, int(number) if what == "round" else 0
        )
        self.world.network.multicast(self.ids[by], self.world.pack((state.view.id, message)))

    def do_deliver(self, name: str, count: str = "1") -> None:
        for _ in range(int(count)):
            self.world.deliver(self.ids[name])

    def do_drain_queue(self, name: str) -> None:
        while self.world.network.pending(self.ids[name]):
            self.world.deliver(self.ids[name])

    def do_kernel(self, name: str) -> None:
        self.world.run_kernel(self.ids[name])

    def do_pass(self, ms: str) -> None:
        self.world.pass_time(int(ms))

    def do_refuse(self, name: str, *vips: str) -> None:
        self.world.members[self.ids[name]].refusing = tuple(self.vips[v].key for v in vips)

    def do_ineligible(self, name: str, *reasons: str) -> None:
        pairs: list[tuple[VipKey, NotEligible]] = []
        for text in reasons:
            vip, why = text.split("=")
            pairs.append((self.vips[vip].key, NotEligible[why]))
        self.world.set_ineligible(self.ids[name], pairs)

    def order(self, asked: str, *wishes: Order) -> None:
        self.world.tell(self.ids[asked], ev.OrderRequested(wishes))

    def do_pin(self, vip: str, to: str, _at: str, asked: str) -> None:
        """What `move` leaves behind."""
        self.order(asked, Order(Kind.PIN, vip, in_force=True, node=to))

    def do_health(self, name: str, *words: str) -> None:
        """What its health checks say: nothing against any VIP, or x=CHECK_FAILING; x=CHOSEN: its check, which may pass on one
        member only, passes here."""
        pairs = [word.split("=") for word in words]
        failing = [(self.vips[vip].key, NotEligible[why]) for vip, why in pairs if why != "CHOSEN"]
        self.world.set_health(self.ids[name], failing, (self.vips[vip].key for vip, why in pairs if why == "CHOSEN"))

    def do_move(self, vip: str, to: str, _at: str, asked: str) -> None:
        """The move itself, without its pin."""
        self.world.tell(self.ids[asked], ev.MoveRequested((self.vips[vip].key,), self.ids[to]))

    def do_drain(self, name: str, _at: str = "at", asked: str = "") -> None:
        self.order(asked or name, Order(Kind.DRAIN, name, in_force=True))

    def do_resume(self, name: str) -> None:
        self.order(name, Order(Kind.DRAIN, name, in_force=False))

    def do_hold(self, vip: str, _at: str, asked: str) -> None:
        self.order(asked, Order(Kind.HOLD, vip, in_force=True))

    def do_unhold(self, vip: str, _at: str, asked: str) -> None:
        self.order(asked, Order(Kind.HOLD, vip, in_force=False), Order(Kind.PIN, vip, in_force=False))

    def do_orders(self, name: str) -> None:
        """What a member knows of orders."""
        for o in self.world.members[self.ids[name]].state.table.orders:
            node = f" {o.node}" if o.node else ""
            self.world.say(f"{name} knows {'' if o.in_force else 'no '}{o.kind.value} {o.subject}{node} {o.version}")

    def do_jump(self, name: str, ms: str) -> None:
        """A host slept: its daemon sees that it did not run, and nothing came meanwhile."""
        self.world.tell(self.ids[name], ev.Paused(int(ms)))

    def do_stuck(self, *names: str) -> None:
        """The kernels of these do nothing of what they are asked; all others do."""
        self.world.stuck = frozenset(self.ids[n] for n in names)

    def do_restart(self, name: str, bound_ms: str) -> None:
        """Its process is to be replaced."""
        self.world.tell(self.ids[name], ev.RestartRequested(int(bound_ms)))

    def do_successor(self, name: str) -> None:
        """The process that replaces it starts."""
        self.world.succeed(self.ids[name])

    def do_witness(self, vip: str, result: str) -> None:
        """The member whose turn it is has asked the VIP's segment."""
        key = self.vips[vip].key
        for state in self.world.states().values():
            (holder,) = [row.holder for row in state.table.rows if row.key == key]
            if holder is not None and witness_of(state, holder) == state.me:
                self.world.tell(state.me, ev.SegmentAsked(key, holder, OnWire(result)))

    def do_leave(self, name: str) -> None:
        self.world.tell(self.ids[name], ev.LeaveRequested())

    def do_check(self) -> None:
        every_address_is_held_once(self.world)

    def do_answers(self, *names: str) -> None:
        """What hosts answer for on the wire: their kernels have it, and their fences are open."""
        for name in names:
            served = sorted({v.name for v in self.world.serves(self.ids[name]).values()})
            self.world.say(f"{name} answers for {' '.join(served) or 'nothing'}")

    def do_who(self) -> None:
        for name, node in self.ids.items():
            if node in self.world.members:
                held = " ".join(k.split("#")[0] for k in self.world.members[node].kernel) or "nothing"
                dark = self.world.members[node].kernel and not self.world.serves(node)
                self.world.say(f"{name} has {held}{' behind a shut fence' if dark else ''}")


def play(text: str) -> str:
    """Run a story and return it with the outcomes as they are now."""
    story = Story()
    out: list[str] = []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        commands = lines[: lines.index("----")] if "----" in lines else lines
        for line in commands:
            out.append(line)
            if line and not line.startswith("#"):
                story.do(line)
        assert story.world.log is not None
        if story.world.log or "----" in lines:
            out.append("----")
            out += story.world.log
        story.world.log.clear()
        out.append("")
    return "\n".join(out).rstrip() + "\n"
