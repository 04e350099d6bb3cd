"""Reads keepalived.conf: its VRRP instances and sync groups. A line is a statement; braces hold more; ! and # begin comments."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..routing import route, rule
from .facts import (
    ENTRIES_MAX,
    PROBLEMS_MAX,
    TOKENS_MAX,
    Called,
    Fate,
    Host,
    Place,
    Routed,
    Served,
    ServedVip,
    Source,
    is_address,
)

DEPTH_MAX = 16
WORD_CHARACTERS_MAX = 1000
PRIORITY_DEFAULT = 100
_TOKEN = re.compile(
    r"\\\n|[ \t\r]+|[!#][^\n]*|(?P<mark>[\n{}])|(?P<word>(?:\"[^\"\n]*\"|\$\{\w*\}|[^\s{}!#\"])+)|(?P<bad>.)"
)
_MACRO = re.compile(r"\$(?:\{(\w+)\}|(\w+))")

# What replaces the statements of a VRRP instance that are not carried over. "" where nothing is needed.
_CHECKS = "health checks are not built in; a check may call `wackamole drain` and `wackamole resume`"
_EVENTS = "a [[hook]] calls a program for what happens; none is written for this"
_INSTEAD = {
    "authentication": (
        Fate.LEFT_OUT,
        "`wackamole keygen` makes a key that signs and encrypts everything: key_file under [cluster]",
    ),
    "track_script": (Fate.LEFT_OUT, _CHECKS),
    "track_file": (Fate.LEFT_OUT, _CHECKS),
    "track_process": (Fate.LEFT_OUT, _CHECKS),
    "track_bfd": (Fate.LEFT_OUT, _CHECKS),
    "notify": (Fate.LEFT_OUT, _EVENTS),
    "smtp_alert": (Fate.LEFT_OUT, _EVENTS),
    "preempt_delay": (Fate.NOT_NEEDED, "balancing waits for `settle` under [balance] before it moves anything"),
    "advert_int": (Fate.NOT_NEEDED, "`detection` under [engine] is how long a silent host stays a member"),
    "virtual_router_id": (Fate.NOT_NEEDED, "VIPs are known by their names and addresses"),
    "state": (Fate.NOT_NEEDED, "the members agree; `prefer` says who is best"),
    "use_vmac": (Fate.LEFT_OUT, "the hosts' own MAC addresses are used; neighbours are told at each move"),
    "garp": (Fate.NOT_NEEDED, "announcements are repeated in every form that neighbours listen to"),
    "no_accept": (Fate.LEFT_OUT, "a host that holds a VIP takes the packets for it"),
    "lvs_sync_daemon": (
        Fate.LEFT_OUT,
        "the IPVS connection sync is not Wackamole's; start it with ipvsadm --start-daemon",
    ),
}
_DETAILS = frozenset(
    (
        *("accept", "check_unicast_src", "debug", "dont_track_primary", "down_timer_adverts", "global_tracking"),
        *("higher_prio_send_advert", "init_fail", "kernel_rx_buf_size", "linkbeat_use_polling"),
        *("lower_prio_no_advert", "mcast_dst_ip", "mcast_src_ip", "native_ipv6", "no_virtual_ipaddress"),
        *("old_unicast_checksum", "preempt", "promote_secondaries", "skip_check_adv_addr", "strict_mode"),
        *("sync_group_tracking_weight", "timer_expired_backup", "track_src_ip", "unicast_fault_no_peer"),
        *("unicast_src_ip", "unicast_ttl", "use_ipvlan", "v3_checksum_as_v2", "version", "vmac_addr"),
        *("vmac_garp_intvl", "vmac_xmit_base", "vrf", "vrrp_version"),
    )
)
"""Statements of an instance or a group that say nothing about what is served, or by whom."""
_READ = (
    *("interface", "priority", "nopreempt", "virtual_ipaddress", "virtual_ipaddress_excluded", "virtual_routes"),
    *("virtual_rules", "unicast_peer", "track_interface", "group"),
)
_NOTIFY = {
    "notify": ("acquired", "released"),
    "notify_master": ("acquired",),
    "notify_backup": ("released",),
    "notify_fault": ("released",),
    "notify_stop": ("released",),
}
_STATES = {"acquired": "MASTER", "released": "BACKUP"}
_PREFIXES = ("notify", "garp", "use_vmac", "lvs_sync_daemon")
_OUTSIDE = {
    "global_defs": (Fate.NOT_NEEDED, "settings of keepalived's own process"),
    "virtual_server": (Fate.LEFT_OUT, "IPVS stays with keepalived: `keepalived --check` runs that part alone"),
    "virtual_server_group": (Fate.LEFT_OUT, "IPVS stays with keepalived: `keepalived --check` runs that part alone"),
    "vrrp_script": (Fate.LEFT_OUT, _CHECKS),
    "vrrp_track_file": (Fate.LEFT_OUT, _CHECKS),
    "track_file": (Fate.LEFT_OUT, _CHECKS),
    "vrrp_track_process": (Fate.LEFT_OUT, _CHECKS),
    "static_ipaddress": (Fate.LEFT_OUT, "addresses that do not move belong into the host's own network configuration"),
    "static_routes": (Fate.LEFT_OUT, "routes that do not move belong into the host's own network configuration"),
    "static_rules": (Fate.LEFT_OUT, "rules that do not move belong into the host's own network configuration"),
    "interface_up_down_delays": (Fate.NOT_NEEDED, "`link_up_delay` under [fence] is how long a fresh carrier waits"),
}


@dataclass(slots=True, eq=False)
class _Statement:
    words: list[str]
    place: Place
    last_line: int
    inner: list[_Statement] | None = None

    @property
    def said(self) -> str:
        words = " ".join(self.words)
        if self.inner is None:
            return words
        return f"{words} {{ … }}" + (f" to line {self.last_line}" if self.last_line != self.place.line else "")


@dataclass(slots=True, eq=False)
class _Instance:
    name: str
    vip: ServedVip
    statement: _Statement
    notify: list[_Statement]
    priority: int
    group: _Group | None = None


@dataclass(slots=True, eq=False)
class _Group:
    name: str
    place: Place
    members: list[tuple[str, Place]] = field(default_factory=list)
    notify: list[_Statement] = field(default_factory=list)
    tracked: list[_Statement] = field(default_factory=list)


def read(source: Source, *, alone: bool) -> Host:
    """Everything that the file says of VRRP. `alone`: no other host's file is read with it, so that priorities say nothing."""
    host = Host(source)
    _Reader(host, alone=alone).read()
    return host


def _statements(host: Host) -> list[_Statement]:
    """The file's statements, with those inside braces inside."""
    text = host.source.text
    top: list[_Statement] = []
    open_: list[tuple[_Statement, list[_Statement]]] = []
    where, current = top, None
    line, line_start = 1, 0
    too_deep = 0
    macros: dict[str, str] = {}
    count = 0
    for found in _TOKEN.finditer(text):
        place = host.at(line, found.start() - line_start + 1)
        count += found["mark"] != "\n" and (found["mark"] or found["word"]) is not None
        if count > TOKENS_MAX or len(host.problems) > PROBLEMS_MAX:
            host.wrong(place, f"there is more than {TOKENS_MAX} words, or too much is wrong; the rest is not read")
            break
        mark, word = found["mark"], found["word"]
        if word is not None:
            word = _MACRO.sub(lambda m: macros.get(m[1] or m[2], m[0]), word[:WORD_CHARACTERS_MAX])[
                :WORD_CHARACTERS_MAX
            ]
            if current is None:
                current = _Statement([word], place, line)
                where.append(current)
            elif len(current.words) < ENTRIES_MAX:
                current.words.append(word)
        elif found["bad"] is not None:
            host.wrong(place, "a quote is not closed on its line")
        elif mark == "{":
            owner = current or (where[-1] if where and where[-1].inner is None else None)
            if len(open_) >= DEPTH_MAX or owner is None:
                host.wrong(
                    place, f"braces are nested more than {DEPTH_MAX} deep" if owner else '"{" has no name before it'
                )
                too_deep += 1
            else:
                owner.inner = []
                open_.append((owner, where))
                where = owner.inner
            current = None
        elif mark == "}":
            current = None
            if too_deep:
                too_deep -= 1
            elif open_:
                owner, where = open_.pop()
                owner.last_line = line
            else:
                host.wrong(place, '"}" closes nothing')
        elif mark == "\n" and current is not None:
            define = re.fullmatch(r"\$(\w+)=(.*)", " ".join(current.words))
            if define:
                macros[define[1]] = define[2][:WORD_CHARACTERS_MAX]
                where.pop()
                host.say(current.place, current.said, Fate.CARRIED, "put in where it is used")
            current = None
        lines = found[0].count("\n")
        if lines:
            line, line_start = line + lines, found.end()
    for owner, _ in open_:
        host.wrong(owner.place, f'"{{" of {owner.words[0]} is never closed')
    return top


class _Reader:
    def __init__(self, host: Host, *, alone: bool) -> None:
        self.host = host
        self.alone = alone
        self.instances: dict[str, _Instance] = {}
        self.groups: list[_Group] = []

    def read(self) -> None:
        """Instances, then groups, then their VIPs."""
        for statement in _statements(self.host):
            kind = statement.words[0]
            if kind == "vrrp_instance":
                self.instance(statement)
            elif kind == "vrrp_sync_group":
                self.group(statement)
            else:
                self.other(statement, _OUTSIDE)
        self.vips()

    def remark(self, statement: _Statement, what: tuple[Fate, str]) -> None:
        self.host.say(statement.place, statement.said, *what)

    def other(self, statement: _Statement, known: Mapping[str, tuple[Fate, str]]) -> None:
        """A statement that is not read, be it `known` or not."""
        key = statement.words[0]
        if key.startswith("@"):
            self.host.wrong(
                statement.place, f"{statement.said}: lines for one host alone are not read; make a file for each"
            )
        elif key.startswith("include"):
            self.remark(statement, (Fate.LEFT_OUT, "other files are not read: put its lines in here"))
        elif key in known:
            self.remark(statement, known[key])
        else:
            near = difflib.get_close_matches(key, _OUTSIDE if known is _OUTSIDE else (*_READ, *known), 1, 0.8)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.remark(statement, (Fate.LEFT_OUT, f"nothing of VRRP is known under this name{hint}"))

    def detail(self, statement: _Statement) -> None:
        """A statement of an instance or a group that is not read."""
        key = statement.words[0]
        if key in _DETAILS:
            self.remark(statement, (Fate.NOT_NEEDED, "a detail of VRRP"))
        elif prefix := next((p for p in _PREFIXES if key.startswith(p)), None):
            self.remark(statement, _INSTEAD[prefix])
        else:
            self.other(statement, _INSTEAD)

    def instance(self, statement: _Statement) -> None:
        """One `vrrp_instance`."""
        if len(statement.words) != 2 or statement.inner is None:
            self.host.wrong(statement.place, f"{statement.said}: one name and a block in braces are needed")
            return
        name = statement.words[1].strip('"')
        interface, priority, nopreempt = "", PRIORITY_DEFAULT, False
        lists: list[_Statement] = []
        tracked: list[_Statement] = []
        notify: list[_Statement] = []
        routing: list[Routed] = []
        for inner in statement.inner:
            key, values = inner.words[0], inner.words[1:]
            if key == "interface" and values:
                interface = values[0]
                self.remark(inner, (Fate.CARRIED, "interface of its addresses"))
            elif key == "priority":
                priority = self.priority(inner, values)
            elif key == "nopreempt":
                nopreempt = True
                self.remark(inner, (Fate.CARRIED, "no `prefer`: the VIP stays where it is until balancing moves it"))
            elif key in ("virtual_ipaddress", "virtual_ipaddress_excluded"):
                lists.append(inner)
            elif key in ("unicast_src_ip", "mcast_src_ip") and values and is_address(values[0]):
                self.own(inner, values[0])
            elif key == "unicast_peer":
                self.peers(inner)
            elif key == "track_interface":
                tracked.append(inner)
            elif key in ("virtual_routes", "virtual_rules"):
                routing += self.routing(inner)
            elif key in _NOTIFY:
                notify.append(inner)
            else:
                self.detail(inner)
        addresses = tuple(a for listed in lists for a in self.addresses(listed, interface))
        self.tracked(tracked, {interface, *(a.interface for a in addresses)})
        wanted = None if self.alone or nopreempt else priority
        if not addresses:
            self.host.wrong(statement.place, f"vrrp_instance {name} has no virtual_ipaddress")
        elif name in self.instances:
            before = self.instances[name].statement.place
            self.host.wrong(statement.place, f"vrrp_instance {name} is already in {before}")
        else:
            vip = ServedVip(name, addresses, wanted, statement.place, tuple(routing))
            self.instances[name] = _Instance(name, vip, statement, notify, priority)

    def priority(self, statement: _Statement, values: list[str]) -> int:
        if len(values) != 1 or not re.fullmatch(r"[0-9]{1,3}", values[0]) or not 1 <= int(values[0]) <= 255:
            self.host.wrong(statement.place, f"{statement.said}: a priority is a number from 1 to 255")
            return PRIORITY_DEFAULT
        if self.alone or self.host.source.node is None:
            sentence = "who is preferred follows from all hosts' files: `convert a=FILE b=FILE`"
            self.remark(statement, (Fate.LEFT_OUT, sentence))
        else:
            self.remark(statement, (Fate.CARRIED, "`prefer` has the hosts by falling priority"))
        return int(values[0])

    def own(self, statement: _Statement, address: str) -> None:
        if self.host.own in (None, address):
            self.host.own = address
            self.remark(statement, (Fate.CARRIED, "this host's [[node]] has it"))
        else:
            sentence = "a node's second network, if every host has one there: `addresses` of its [[node]]"
            self.remark(statement, (Fate.LEFT_OUT, sentence))

    def peers(self, statement: _Statement) -> None:
        for inner in statement.inner or ():
            for word in inner.words[:1]:
                if not is_address(word) or "/" in word:
                    self.host.wrong(inner.place, f"{inner.said} is not an address")
                elif all(word != known for known, _ in self.host.peers[-64:]):
                    self.host.peers.append((word, inner.place))
                    self.remark(inner, (Fate.CARRIED, "a [[node]] has it"))
                else:
                    self.remark(inner, (Fate.CARRIED, "as before"))

    def tracked(self, statements: list[_Statement], own: set[str]) -> None:
        """Interfaces without which there is no master; `own` are the VIP's."""
        for inner in (i for s in statements for i in s.inner or ()):
            watched = (Fate.CARRIED, "a VIP's own interfaces are watched")
            others = (Fate.LEFT_OUT, "an interface on which the VIP has no address is not watched")
            self.remark(inner, watched if inner.words[0] in own else others)

    def addresses(self, statement: _Statement, default: str) -> Iterator[Served]:
        """`IP[/prefix] [dev INTERFACE] [and what else ip-address takes]`, one a line."""
        for number, inner in enumerate(statement.inner or ()):
            words = inner.words
            if not is_address(words[0]):
                self.host.wrong(inner.place, f"{inner.said} is not an address")
                continue
            if number >= ENTRIES_MAX:
                self.host.wrong(inner.place, f"more than {ENTRIES_MAX} addresses")
                return
            interface = words[words.index("dev") + 1] if "dev" in words[:-1] else default
            rest = [w for w in words[1:] if w not in ("dev", interface)]
            if rest:
                self.remark(inner, (Fate.CHANGED, f"an address of the VIP, without {' '.join(rest)}"))
            else:
                self.remark(inner, (Fate.CARRIED, "an address of the VIP"))
            yield Served(words[0], interface, inner.place)

    def group(self, statement: _Statement) -> None:
        """One `vrrp_sync_group`."""
        group = _Group(statement.words[1].strip('"') if len(statement.words) > 1 else "", statement.place)
        for inner in statement.inner or ():
            if inner.words[0] == "group":
                for member in inner.inner or ():
                    group.members += [(word.strip('"'), member.place) for word in member.words]
            elif inner.words[0] in _NOTIFY:
                group.notify.append(inner)
            elif inner.words[0] == "track_interface":
                group.tracked.append(inner)
            else:
                self.detail(inner)
        if not group.name or not group.members:
            self.host.wrong(statement.place, f"{statement.said}: a name and `group {{ … }}` are needed")
            return
        self.groups.append(group)
        self.remark(statement, (Fate.CARRIED, f"[[vip]] {group.name}: its instances' addresses move as one"))

    def routing(self, statement: _Statement) -> Iterator[Routed]:
        """`virtual_routes` and `virtual_rules`: what ip-route and ip-rule take, one a line."""
        key = "routes" if statement.words[0] == "virtual_routes" else "rules"
        read = route if key == "routes" else rule
        for inner in statement.inner or ():
            words = [w for w in inner.words if w != "no_track"]
            if key == "routes" and "to" in words[1:-1]:  # here it comes first
                at = words.index("to")
                words = [*words[at : at + 2], *words[:at], *words[at + 2 :]]
            text = " ".join(words)
            try:
                read(text)
            except ValueError as wrong:
                self.remark(inner, (Fate.LEFT_OUT, f"{key} of a [[vip]] are a part of what ip takes: it {wrong}"))
                continue
            self.remark(inner, (Fate.CARRIED, f"{key} of the [[vip]]"))
            yield Routed(key, text, inner.place)

    def notify(self, statements: list[_Statement], kind: str, name: str, priority: int, vip: ServedVip) -> None:
        """Scripts that are called when the state changes. `kind` and `name` are what `notify` tells its script."""
        for statement in statements:
            what = statement.words[0]
            words = _program(statement.words[1] if len(statement.words) > 1 else "")
            if not words or not words[0].startswith("/") or len(self.host.hooks) >= ENTRIES_MAX:
                self.remark(statement, (Fate.LEFT_OUT, "a [[hook]] needs a command with an absolute path"))
                continue
            for on in _NOTIFY[what]:
                more = (kind, name, _STATES[on], str(priority)) if what == "notify" else ()
                self.host.hooks.append(Called((on,), (*words, *more), "vip", vip.ips, statement.place))
            told = f"a [[hook]] on {' and one on '.join(_NOTIFY[what])}"
            if len(statement.words) > 2:
                self.remark(statement, (Fate.CHANGED, f"{told}, as the daemon's user"))
            elif what in ("notify_fault", "notify_stop"):
                self.remark(statement, (Fate.CHANGED, f"{told}, whatever the reason: WACKAMOLE_CAUSE says why"))
            else:
                self.remark(statement, (Fate.CARRIED, told))

    def vips(self) -> None:
        """What moves as one: an instance, or all of a sync group."""
        for group in self.groups:
            for name, place in group.members:
                instance = self.instances.get(name)
                if instance is None:
                    self.host.wrong(place, f"there is no vrrp_instance {name}")
                elif instance.group is not None:
                    self.host.wrong(place, f"vrrp_instance {name} is already in the group {instance.group.name}")
                else:
                    instance.group = group
        by_group: dict[_Group, list[ServedVip]] = {g: [] for g in self.groups}
        for instance in self.instances.values():
            if instance.group is None:
                self.host.vips.append(instance.vip)
                self.remark(instance.statement, (Fate.CARRIED, "a [[vip]]; its addresses move as one"))
                self.notify(instance.notify, "INSTANCE", instance.name, instance.priority, instance.vip)
            else:
                by_group[instance.group].append(instance.vip)
                self.remark(instance.statement, (Fate.CARRIED, f"part of the [[vip]] {instance.group.name}"))
        for group, vips in by_group.items():
            if not vips:
                continue
            wants = [v.priority for v in vips]
            # the group is master where its weakest instance is: one that is a backup makes all of it a backup
            priority = min((p for p in wants if p is not None), default=None) if None not in wants else None
            addresses = tuple(a for v in vips for a in v.addresses)
            routing = tuple(r for v in vips for r in v.routing)
            vip = ServedVip(group.name, addresses, priority, group.place, routing)
            self.host.vips.append(vip)
            self.tracked(group.tracked, {a.interface for a in addresses})
            self.notify(group.notify, "GROUP", group.name, priority or PRIORITY_DEFAULT, vip)
            for instance in self.instances.values():
                if instance.group is group:
                    self.notify(instance.notify, "INSTANCE", instance.name, instance.priority, vip)


def _program(text: str) -> list[str]:
    """A script and its arguments, in quotes if there are any."""
    try:
        return shlex.split(text.strip('"'))
    except ValueError:
        return []
