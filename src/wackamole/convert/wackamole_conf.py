"""Reads wackamole.conf of Wackamole 2.1.

    Spread = 4803@localhost        SpreadRetryInterval = 5s         Group = wack1
    Control = /var/run/wack.it     Mature = 5s                      Arp-Cache = 60s
    Balance { AcquisitionsPerRound = all  Interval = 4s }           LogFacility = daemon
    Prefer None | NETWORK | { NETWORK… }        VirtualInterfaces { VIP… }, VIP: ADDRESS | { ADDRESS… }
    Notify None | arp-cache | { (ADDRESS [throttle N] | arp-cache) [ping]… }
    ModuleDir = DIR    PerlUse MODULE    PerlUseLib DIR    RunDynamic FUNCTION (on|post) (up|down)

An ADDRESS is [interface:]IP/CIDR[nNET]. Keywords are of any case, blanks and line ends are alike, # begins a comment. A
token is the longest that fits, so `=` needs blanks around it.

What the original's file cannot say is said in comments that the original passes over:

    #wackamole: node a = 10.0.0.11, 10.1.0.11
    #wackamole: key_file = /etc/wackamole/web.key
    #wackamole: engine = spread
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from ..config import HOSTS_MAX, RANGE_MAX, THROTTLE_DEFAULT, THROTTLE_MAX
from ..original import control_address
from .facts import (
    ENGINES,
    ENTRIES_MAX,
    PROBLEMS_MAX,
    TOKENS_MAX,
    Called,
    Fate,
    Host,
    Options,
    Place,
    Served,
    ServedVip,
    Source,
    Told,
    is_address,
    shown,
)


class _T(Enum):
    OPEN = "{"
    CLOSE = "}"
    EQUALS = "="
    WORD = "a word"  # one of the grammar's
    ACTION = "on up, on down, post up or post down"
    NUMBER = "a number"
    TIME = "a time such as 5s"
    ADDRESS = "an address such as eth0:10.0.0.10/24"
    STRING = "a text"
    END = "the end of the file"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: _T
    text: str  # lower case for a word, without the quotes for a text
    start: int
    end: int
    place: Place


_BLANK = re.compile(r"[ \t\r\n]+")
_COMMENT = re.compile(r"#[^\n]*")
_STRING = re.compile(r"[^ \t\r\n#{}]+")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_ACTION = re.compile(r"(on|post)[ \t]+(up|down)", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+")
_TIME = re.compile(r"([0-9]+)([smh])", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:([^:]+):)?([0-9]{1,3}(?:\.[0-9]{1,3}){3})/([0-9]{1,2})(?:n([0-9]{1,2}))?")
_NOTE = re.compile(
    r"#wackamole:\s*(?:node\s+(?P<node>[^\s=]+)|(?P<key>[^\s=]+))\s*=\s*(?P<value>.*\S)\s*", re.IGNORECASE
)

SETTINGS = (
    *("spread", "spreadretryinterval", "group", "control", "mature", "balance", "arp-cache", "prefer", "notify"),
    *("virtualinterfaces", "vifs", "vips", "rundynamic", "moduledir", "perluse", "perluselib", "logfacility"),
)
_WORDS = frozenset({*SETTINGS, "acquisitionsperround", "interval", "all", "none", "throttle", "ping"})
_ON = {
    "on up": ("acquired", "vip"),
    "on down": ("released", "vip"),
    "post up": ("acquired", "round"),
    "post down": ("released", "round"),
}
"""What a hook is on, and how often it is called."""
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_DIGITS_MAX = 9
NOTE_CHARACTERS_MAX = 1000


class _Wrong(Exception):
    """This setting cannot be read; go on with the next."""


def read(source: Source, options: Options) -> Host:
    """Everything that the file says. Never raises: what is wrong is among the problems."""
    host = Host(source)
    _Reader(host, options).settings()
    return host


def _tokens(host: Host) -> Iterator[_Token]:
    text, at = host.source.text, 0
    line, line_start = 1, 0
    found = 0
    while at < len(text):
        place = host.at(line, at - line_start + 1)
        if found > TOKENS_MAX:
            host.wrong(place, f"the file has more than {TOKENS_MAX} words")
            break
        if blank := _BLANK.match(text, at):
            end = blank.end()
        elif comment := _COMMENT.match(text, at):
            _note(host, comment[0], place)
            end = comment.end()
        elif text[at] in "{}":
            found, end = found + 1, at + 1
            yield _Token(_T(text[at]), text[at], at, end, place)
        else:
            token = _longest(text, at, place)
            found, end = found + 1, token.end
            yield token
        lines = text.count("\n", at, end)
        if lines:
            line, line_start = line + lines, text.rindex("\n", at, end) + 1
        at = end
    yield _Token(_T.END, "", at, at, host.at(line, at - line_start + 1))


def _longest(text: str, at: int, place: Place) -> _Token:
    found = _STRING.match(text, at)
    assert found is not None, "everything else was looked for before"
    for pattern, kind in ((_QUOTED, _T.STRING), (_ACTION, _T.ACTION)):
        other = pattern.match(text, at)
        if other and other.end() >= found.end():
            inner = other[0][1:-1] if kind is _T.STRING else re.sub(r"[ \t]+", " ", other[0].lower())
            return _Token(kind, inner, at, other.end(), place)
    word = found[0]
    if word.lower() in _WORDS:
        return _Token(_T.WORD, word.lower(), at, found.end(), place)
    kinds = ((_NUMBER, _T.NUMBER), (_TIME, _T.TIME), (_ADDRESS, _T.ADDRESS))
    kind = next((kind for pattern, kind in kinds if pattern.fullmatch(word)), _T.STRING)
    return _Token(_T.EQUALS if word == "=" else kind, word, at, found.end(), place)


def _note(host: Host, comment: str, place: Place) -> None:
    """`#wackamole: …`"""
    if not comment.lower().startswith("#wackamole:"):
        return
    found = _NOTE.fullmatch(comment[:NOTE_CHARACTERS_MAX])
    if found and found["node"]:
        addresses = tuple(re.split(r"[,\s]+", found["value"]))
        host.nodes.append((found["node"], addresses, place))
        host.say(place, comment, Fate.CARRIED, "a [[node]]")
    elif found and found["key"] == "key_file":
        host.set("key_file", found["value"], place)
        host.say(place, comment, Fate.CARRIED, "key_file under [cluster]")
    elif found and found["key"] == "engine" and found["value"].lower() in ENGINES:
        host.set("engine", found["value"].lower(), place)
        host.say(place, comment, Fate.CARRIED, "type under [engine]")
    else:
        sentence = (
            "after #wackamole: comes `node NAME = ADDRESS, …`, `key_file = PATH`, or `engine = corosync` or `spread`"
        )
        host.wrong(place, sentence)


class _Reader:
    def __init__(self, host: Host, options: Options) -> None:
        self.host = host
        self.options = options
        self.tokens = list(_tokens(host))
        self.engine = options.engine or host.settings.get("engine", ("corosync",))[0]
        self.index = 0
        self.preferred: list[tuple[ipaddress.IPv4Network, _Token]] = []
        self.values: dict[str, _Token] = {}
        self.perl_words: list[str] = []  # of PerlUseLib and PerlUse
        self.perl_calls: list[tuple[str, str, _Token]] = []  # function, action

    # -- tokens

    @property
    def next(self) -> _Token:
        return self.tokens[self.index]

    def take(self) -> _Token:
        token = self.next
        if token.kind is not _T.END:
            self.index += 1
        return token

    def word(self, *words: str) -> _Token | None:
        """The next token, if it is one of these words."""
        return self.take() if self.next.kind is _T.WORD and self.next.text in words else None

    def expect(self, *kinds: _T, after: _Token) -> _Token:
        if self.next.kind in kinds:
            return self.take()
        found = self.next
        wanted = " or ".join(k.value if len(k.value) > 1 else f'"{k.value}"' for k in kinds)
        hint = ""
        if kinds == (_T.EQUALS,) and found.text.startswith("="):
            hint = '; "=" needs a blank on both sides'
        elif _T.STRING in kinds and found.kind not in (_T.OPEN, _T.CLOSE, _T.EQUALS, _T.END):
            hint = "; put it in quotes"
        raise self.wrong(found, f"{self.raw(after)} needs {wanted} here, not {self.named(found)}{hint}")

    def wrong(self, token: _Token, sentence: str) -> _Wrong:
        """What to raise, the problem being noted."""
        self.host.wrong(token.place, sentence)
        return _Wrong()

    def raw(self, first: _Token, last: _Token | None = None) -> str:
        return shown(self.host.source.text[first.start : (last or first).end])

    def named(self, token: _Token) -> str:
        return _T.END.value if token.kind is _T.END else f'"{self.raw(token)}"'

    def say(self, first: _Token, fate: Fate, sentence: str) -> None:
        """A remark on all from a token to the one that was taken last."""
        self.host.say(first.place, self.raw(first, self.tokens[self.index - 1]), fate, sentence)

    # -- settings

    def settings(self) -> None:
        """All of them; after a mistake, on with the next one."""
        while self.next.kind is not _T.END and len(self.host.problems) <= PROBLEMS_MAX:
            begin = self.index
            try:
                self.setting(self.take())
            except _Wrong:
                self.skip(begin)
        self.prefer_settled()
        self.perl_settled()

    def setting(self, first: _Token) -> None:
        known: dict[str, Callable[[_Token], None]] = {
            "spread": self.spread,
            "spreadretryinterval": self.retry,
            "group": self.group,
            "control": self.control,
            "mature": self.mature,
            "balance": self.balance,
            "arp-cache": self.arp_cache,
            "prefer": self.prefer,
            "notify": self.notify,
            "virtualinterfaces": self.vips,
            "vifs": self.vips,
            "vips": self.vips,
            "rundynamic": self.run_dynamic,
            "moduledir": self.module_dir,
            "perluse": self.perl,
            "perluselib": self.perl,
            "logfacility": self.log_facility,
        }
        if first.kind is _T.WORD and first.text in known:
            known[first.text](first)
            return
        name, _, rest = first.text.partition("=")
        if rest and name.lower() in known:
            raise self.wrong(first, f'{self.named(first)}: "=" needs a blank on both sides')
        near = difflib.get_close_matches(first.text.lower(), SETTINGS, 1)
        hint = f"; did you mean {near[0]}?" if near and first.kind is _T.STRING else ""
        raise self.wrong(first, f"{self.named(first)} is no setting{hint}")

    def skip(self, begin: int) -> None:
        """To the next setting: a word that opens one, at the start of a line or outside of all braces."""
        depth = sum({_T.OPEN: 1, _T.CLOSE: -1}.get(t.kind, 0) for t in self.tokens[begin : self.index])
        while (token := self.next).kind is not _T.END:
            opens_line = self.tokens[self.index - 1].place.line != token.place.line
            if token.kind is _T.WORD and token.text in SETTINGS:
                if depth <= 0 or (opens_line and token.text != "arp-cache"):
                    return
            elif token.kind is _T.STRING and opens_line:
                following = self.tokens[self.index + 1].kind
                glued = token.text.partition("=")[0].lower() in SETTINGS
                if glued or (depth <= 0 and following in (_T.EQUALS, _T.OPEN)):
                    return
            depth += {_T.OPEN: 1, _T.CLOSE: -1}.get(token.kind, 0)
            self.index += 1

    def value(self, first: _Token, *kinds: _T) -> _Token:
        """`= VALUE`; an earlier one of the same name is superseded."""
        self.expect(_T.EQUALS, after=first)
        token = self.expect(*kinds, after=first)
        before = self.values.get(first.text)
        if before is not None:
            self.host.say(before.place, self.raw(before), Fate.NOT_NEEDED, f"superseded on line {first.place.line}")
        self.values[first.text] = first
        return token

    def seconds(self, first: _Token, least: int, most: int) -> tuple[str, Fate, str]:
        """A time as our config has it, and what to say of it."""
        token = self.value(first, _T.TIME)
        number, unit = token.text[:-1], token.text[-1].lower()
        if len(number) > _DIGITS_MAX:
            raise self.wrong(token, f"{self.named(token)} is too long a time")
        asked = int(number) * _SECONDS[unit]
        found = min(max(asked, least), most)
        if found != asked:
            return f"{found}s", Fate.CHANGED, f" (from {least}s to {most}s are possible)"
        hint = " (the original took h for seconds; hours are meant here)" if unit == "h" else ""
        return f"{found}s" if unit == "s" else f"{int(number)}{unit}", Fate.CHANGED if hint else Fate.CARRIED, hint

    def spread(self, first: _Token) -> None:
        token = self.value(first, _T.STRING, _T.NUMBER)
        self.host.set("spread", token.text if "@" in token.text else f"{token.text}@localhost", first.place)
        if self.engine == "spread":
            self.say(first, Fate.CARRIED, "address under [engine]")
        else:
            sentence = "the daemon runs a Corosync of its own; `--engine spread` keeps Spread"
            self.say(first, Fate.NOT_NEEDED, sentence)

    def retry(self, first: _Token) -> None:
        value, fate, hint = self.seconds(first, 1, 600)
        self.host.set("retry", value, first.place)
        if self.engine == "spread":
            self.say(first, fate, f'retry = "{value}" under [engine]{hint}')
        else:
            self.say(first, Fate.NOT_NEEDED, "the daemon runs a Corosync of its own")

    def group(self, first: _Token) -> None:
        token = self.value(first, _T.STRING)
        self.host.set("cluster", token.text, first.place)
        self.say(first, Fate.CARRIED, "name under [cluster]")

    def control(self, first: _Token) -> None:
        token = self.value(first, _T.STRING)
        try:
            address = control_address(token.text)
        except ValueError as wrong:
            self.say(first, Fate.LEFT_OUT, f"{self.named(token)} {wrong}")
            return
        self.host.set("control", str(address), first.place)
        hint = f"; {address.warning}" if address.warning else ""
        self.say(first, Fate.CARRIED, f"original under [control]: an old wackatrl is served there{hint}")

    def mature(self, first: _Token) -> None:
        value, fate, hint = self.seconds(first, 0, 600)
        self.host.set("mature", value, first.place)
        self.say(first, fate, f'mature = "{value}" under [cluster]{hint}')

    def arp_cache(self, first: _Token) -> None:
        value, fate, hint = self.seconds(first, 1, 86_400)
        self.host.set("arp-cache", value, first.place)
        self.say(first, fate, f'interval = "{value}" under [neighbours]{hint}')

    def log_facility(self, first: _Token) -> None:
        self.value(first, _T.STRING)
        self.say(first, Fate.NOT_NEEDED, "the daemon logs to the journal; the original read this and did nothing")

    def balance(self, first: _Token) -> None:
        self.expect(_T.OPEN, after=first)
        before = self.index
        while word := self.word("acquisitionsperround", "interval"):
            if word.text == "interval":
                value, fate, hint = self.seconds(word, 1, 86_400)
                self.host.set("interval", value, word.place)
                self.say(word, fate, f'interval = "{value}" under [balance]{hint}')
            else:
                self.acquisitions(word)
        if self.index == before:
            raise self.wrong(self.next, f"Balance holds AcquisitionsPerRound or Interval, not {self.named(self.next)}")
        self.expect(_T.CLOSE, after=first)

    def acquisitions(self, word: _Token) -> None:
        self.expect(_T.EQUALS, after=word)
        if self.word("all"):
            moves = "all"
        else:
            number = self.expect(_T.NUMBER, after=word).text
            moves = str(int(number)) if len(number) <= _DIGITS_MAX and int(number) <= 4096 else "all"
        self.host.set("moves", moves, word.place)
        self.say(word, Fate.CARRIED, f"moves_per_round: {moves} under [balance]")

    # -- addresses

    def address(self, token: _Token) -> tuple[str, str, int, int | None] | None:
        """Interface, IP, prefix length, NET; None with a problem if it is none."""
        found = _ADDRESS.fullmatch(token.text)
        if found is None:
            hint = "; a length such as /24 is missing" if is_address(token.text.rpartition(":")[2]) else ""
            self.host.wrong(token.place, f"{self.named(token)} is not {_T.ADDRESS.value}{hint}")
            return None
        octets = [int(n) for n in found[2].split(".")]
        prefix, net = int(found[3]), int(found[4]) if found[4] else None
        if max(octets) > 255 or max(prefix, net or 0) > 32:
            self.host.wrong(token.place, f"{self.named(token)} is not an address: 0 to 255 and lengths up to 32")
            return None
        return found[1] or "", ".".join(map(str, octets)), prefix, net

    def items(self, first: _Token, *, groups: bool = False) -> Iterator[_Token]:
        """What stands in braces, the opening one being taken; whoever asks takes what belongs to an item."""
        count = 0
        while self.next.kind in (_T.ADDRESS, _T.STRING, _T.NUMBER, *([_T.OPEN] if groups else [])):
            count += 1
            token = self.take()
            if count <= ENTRIES_MAX:
                yield token
            elif count == ENTRIES_MAX + 1:
                self.host.wrong(token.place, f"{self.raw(first)} holds more than {ENTRIES_MAX} entries")
        if not count:
            raise self.wrong(self.next, f"{self.raw(first)} holds addresses, not {self.named(self.next)}")
        self.expect(_T.CLOSE, after=first)

    def vips(self, first: _Token) -> None:
        self.expect(_T.OPEN, after=first)
        for token in self.items(first, groups=True):
            served = []
            for member in list(self.items(token)) if token.kind is _T.OPEN else [token]:
                found = self.address(member)
                if found is None:
                    continue
                interface, ip, prefix, net = found
                served.append(Served(f"{ip}/{prefix}", interface, member.place))
                what = "a [[vip]]" if token is member else "an address of a [[vip]] that moves as one"
                hint = "" if net is None else f"; n{net} is not needed: the kernel knows the network"
                self.host.say(member.place, self.raw(member), Fate.CARRIED, what + hint)
            if served:
                self.host.vips.append(ServedVip("", tuple(served), None, token.place))

    def prefer(self, first: _Token) -> None:
        if self.word("none"):
            self.say(first, Fate.NOT_NEEDED, "no `prefer` means the same")
            return
        if self.next.kind is _T.OPEN:
            self.take()
            tokens = list(self.items(first))
        else:
            tokens = [self.expect(_T.ADDRESS, _T.STRING, after=first)]
        for token in tokens:
            if token.kind is _T.STRING and len(tokens) == 1:
                self.say(first, Fate.LEFT_OUT, "the original looked no names up either; write the VIP as 10.0.0.10/32")
            elif (found := self.address(token)) is not None:
                self.preferred.append((ipaddress.IPv4Network((found[1], found[2]), strict=False), token))

    def prefer_settled(self) -> None:
        """Prefer names VIPs by their first address, or all of a network; it may come before they do."""
        heads = sorted((int(ipaddress.IPv4Address(v.addresses[0].ip)), n) for n, v in enumerate(self.host.vips))
        if len(self.preferred) > ENTRIES_MAX:
            self.host.wrong(self.preferred[ENTRIES_MAX][1].place, f"more than {ENTRIES_MAX} preferred addresses")
        chosen: set[int] = set()
        for network, token in self.preferred[:ENTRIES_MAX]:
            first = bisect_left(heads, (int(network.network_address), -1))
            last = bisect_right(heads, (int(network.broadcast_address), len(heads)))
            if first == last:
                self.host.say(token.place, f"Prefer {token.text}", Fate.LEFT_OUT, "no VIP begins with this address")
            elif self.host.source.node is None:
                sentence = "it is this host's wish alone: name the host as in `convert a=FILE`"
                self.host.say(token.place, f"Prefer {token.text}", Fate.LEFT_OUT, sentence)
            else:
                sentence = f"{self.host.source.node} is in `prefer` of {last - first} VIP{'s' * (last - first != 1)}"
                self.host.say(token.place, f"Prefer {token.text}", Fate.CARRIED, sentence)
                chosen |= {n for _, n in heads[first:last]}
        if chosen:
            self.host.vips[:] = [
                ServedVip(v.name, v.addresses, 1 if n in chosen else None, v.place)
                for n, v in enumerate(self.host.vips)
            ]

    # -- whom to tell

    def notify(self, first: _Token) -> None:
        if self.word("none"):
            self.say(first, Fate.NOT_NEEDED, "VIPs are announced to their whole network all the same")
        elif self.next.kind is _T.WORD and self.next.text == "arp-cache":
            self.told(self.take())
        else:
            self.expect(_T.OPEN, after=first)
            before = self.index
            while self.next.kind in (_T.ADDRESS, _T.STRING) or (
                self.next.kind is _T.WORD and self.next.text == "arp-cache"
            ):
                self.told(self.take())
            if self.index == before:
                raise self.wrong(self.next, f"Notify holds addresses or arp-cache, not {self.named(self.next)}")
            self.expect(_T.CLOSE, after=first)

    def told(self, token: _Token) -> None:
        """An entry of Notify, its first token being taken."""
        if token.kind is _T.WORD:
            self.host.set("neighbours", "ping" if self.word("ping") else "yes", token.place)
            self.entry(token, Fate.CARRIED, "neighbours = true under [notify]")
            return
        found = self.address(token)
        number = self.expect(_T.NUMBER, after=throttle).text if (throttle := self.word("throttle")) else "0"
        ping = self.word("ping") is not None
        if found is None:
            return
        interface, ip, prefix, _ = found
        network = ipaddress.IPv4Network((ip, prefix), strict=False)
        # the original throttles nothing at 0
        rate = min(int(number[:_DIGITS_MAX]), THROTTLE_MAX) or None
        if network.num_addresses > RANGE_MAX:
            self.entry(
                token, Fate.LEFT_OUT, f"more than {RANGE_MAX} addresses; write the networks that the VIPs are in"
            )
        elif network.is_multicast or network.is_loopback or network.network_address.is_unspecified:
            self.entry(token, Fate.LEFT_OUT, "it is no host's address")
        elif len(self.host.told) == HOSTS_MAX:
            self.entry(token, Fate.LEFT_OUT, f"hosts under [notify] has at most {HOSTS_MAX} entries")
        else:
            text = str(network.network_address) if prefix == 32 else str(network)
            self.host.told.append(Told(text, interface, rate, ping, token.place))
            usual = (
                "" if rate or prefix == 32 else f"; at most {THROTTLE_DEFAULT} frames a second, as it sets no throttle"
            )
            self.entry(token, Fate.CHANGED if usual else Fate.CARRIED, f"hosts under [notify]{usual}")

    def entry(self, token: _Token, fate: Fate, sentence: str) -> None:
        """A remark on an entry of Notify."""
        said = self.raw(token, self.tokens[self.index - 1])
        self.host.say(token.place, f"Notify {said}", fate, sentence)

    # -- what has no equal here

    def run_dynamic(self, first: _Token) -> None:
        function = self.expect(_T.STRING, after=first)
        action = self.expect(_T.ACTION, after=function).text
        if "::" in function.text or ":" not in function.text:  # as the original tells them apart
            if not re.fullmatch(r"[A-Za-z_]\w*(::\w+)*", function.text, re.ASCII):
                self.say(first, Fate.LEFT_OUT, f"{self.named(function)} is no name of a Perl function")
                return
            self.perl_calls.append((function.text, action, first))
            self.say(
                first, Fate.CHANGED, f"a [[hook]] on {_ON[action][0]} that calls it in a perl of its own each time"
            )
        elif len(self.host.hooks) < ENTRIES_MAX:
            self.host.hooks.append(Called((_ON[action][0],), (), _ON[action][1], frozenset(), first.place))
            sentence = f"a shared object is not loaded; a [[hook]] on {_ON[action][0]} that runs a program replaces it"
            self.say(first, Fate.LEFT_OUT, sentence)

    def perl(self, first: _Token) -> None:
        word = self.expect(_T.STRING, after=first).text
        use = first.text == "perluse"
        if use and not re.fullmatch(r"\w+(::\w+)*", word, re.ASCII):
            self.say(first, Fate.LEFT_OUT, "a hook's perl gets modules by -M, which takes a name alone")
        elif len(self.perl_words) < 32:
            self.perl_words.append(f"-M{word}" if use else f"-I{word}")
            self.say(first, Fate.CARRIED, "a word of each hook that calls Perl")
        else:
            self.say(first, Fate.LEFT_OUT, "there are more than a hook's command has words")

    def perl_settled(self) -> None:
        """Hooks that call Perl functions, as the original did: with the first address, the others, and nothing more; after
        a round with nothing."""
        words = sorted(self.perl_words, key=lambda w: w[:2] != "-I")
        for function, action, token in self.perl_calls[:ENTRIES_MAX]:
            on, each = _ON[action]
            told = "my ($vip, @more) = map +{ ip => $_ }, split / /, $ENV{WACKAMOLE_IPS}; "
            code = f"{function}({{}}, [], {{}})" if each == "round" else told + f"{function}($vip, \\@more, {{}})"
            command = ("/usr/bin/perl", *words, "-e", code)
            self.host.hooks.append(Called((on,), command, each, frozenset(), token.place))

    def module_dir(self, first: _Token) -> None:
        self.value(first, _T.STRING)
        self.say(first, Fate.NOT_NEEDED, "shared objects are not loaded")
