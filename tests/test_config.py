"""The config: every problem at once, each with its place; equal meaning, equal digest."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wackamole.config import CHECK_KINDS, PROFILES, ConfigError, find_self, load, parse, settings_for
from wackamole.core.model import By, Count, Shares
from wackamole.engine.corosync.conf import timings
from wackamole.shell.probes import PROBES

BY_LOAD = '[balance]\nby = "load"\n[load]\n'
CHECK = "[[check]]\nname = 'c'\nkind = 'tcp'\naddress = '127.0.0.1:80'"
PAGE = '[[check]]\nname = "c"\nkind = "http"\nurl = "http://127.0.0.1:80/"'
GATEWAY = '[[check]]\nname = "c"\nkind = "gateway"\ninterface = "eth0"'
GOOD = """\
[cluster]
name = "web"

[[node]]
name = "a"
address = "10.0.0.11"

[[node]]
name = "b"
address = "10.0.0.12"

[[vip]]
name = "web-1"
address = "192.0.2.10/32"
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "web.toml")
    return list(caught.value.problems)


def the_problem(text: str) -> str:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


def test_spread_has_defaults_of_its_own() -> None:
    engine = parse(GOOD + '\n[engine]\ntype = "spread"\n').engine
    assert (str(engine.address), engine.retry_ms, engine.session) == ("4803@localhost", 2000, "w")
    assert (engine.detection_ms, engine.managed) == (3200, False)


@pytest.mark.parametrize(("profile", "detection_ms"), PROFILES.items())
def test_a_profile_is_the_detection_that_is_not_given(profile: str, detection_ms: int) -> None:
    engine = parse(GOOD + f'\n[engine]\nprofile = "{profile}"\n').engine
    assert engine.detection_ms == detection_ms
    assert engine.beat_ms <= detection_ms * 3 // 5  # or an idle daemon takes itself for one that stood still
    timers = timings(detection_ms)
    assert timers.token + timers.consensus == detection_ms
    assert timers.token / (timers.retransmits + 0.2) >= 30  # or Corosync does not start
    given = parse(GOOD + f'\n[engine]\nprofile = "{profile}"\ndetection = "700ms"\n').engine
    assert given.detection_ms == 700


def test_a_profile_is_one_of_four_and_not_for_spread() -> None:
    assert 'engine.profile  must be one of "lan-fast", "lan", "cloud", "wan", not "lane"' in the_problem(
        GOOD + '\n[engine]\nprofile = "lane"\n'
    )
    assert 'engine.profile  is not for type = "spread"' in the_problem(
        GOOD + '\n[engine]\ntype = "spread"\nprofile = "wan"\n'
    )


def test_the_smallest_config_has_the_documented_defaults() -> None:
    config = parse(GOOD)
    assert (config.engine.detection_ms, config.engine.beat_ms, config.engine.evict_after_ms) == (200, 120, 758)
    assert (config.fence.lease_ms, config.fence.beat_age_max_ms, config.fence.dark_after_ms) == (600, 100, 750)
    assert config.engine.managed
    assert config.cluster.mature_ms == 5000
    assert config.balance.moves_per_round is None
    assert config.balance.count is Count.VIPS
    assert (config.fence.duplicates, config.fence.withdraw_after) == ("announce", 5)
    assert config.control.socket == "/run/wackamole/control.sock"
    assert config.control.original is None
    assert [n.id for n in config.nodes] == [11, 12]
    assert str(config.vips[0].vip.addresses[0]) == "192.0.2.10/32"


def test_what_shares_follow_is_part_of_the_meaning_and_how_a_host_measures_is_not() -> None:
    plain, load = parse(GOOD), parse(GOOD + BY_LOAD)
    assert plain.load is None
    assert settings_for(plain, plain.nodes[0]).shares == Shares()
    assert load.load is not None
    assert (load.load.command, load.load.interval_ms, load.load.smoothing_ms, load.load.hysteresis) == (
        (),
        10_000,
        60_000,
        15,
    )
    assert parse(GOOD + '[balance]\nby = "weight"').digest == plain.digest
    assert plain.digest != load.digest == parse(GOOD + BY_LOAD + 'command = ["/bin/echo", "1"]').digest
    assert load.digest != parse(GOOD + BY_LOAD + 'smoothing = "5m"').digest


def test_the_version_of_an_entry_points_distribution_is_part_of_the_meaning() -> None:
    balance = parse(GOOD + '[balance]\nby = "msgspec.msgpack:shares"').balance
    assert (balance.by, balance.entry_version) == (By.ENTRY_POINT, f"msgspec {version('msgspec')}")


def test_every_problem_is_told_at_once_each_with_its_line() -> None:
    text = GOOD.replace('"192.0.2.10/32"', '"10.0.0.300/24"').replace('"10.0.0.12"', '"10.0.0.11"')
    text += '\n[[vip]]\nname = "web-1"\naddress = "192.0.2.11"\nprefer = ["c"]\n\n[engine]\ndetection = "5"\n'
    found = problems(text)
    assert found == [
        "web.toml:10  node[2].address  address 10.0.0.11 is already declared on line 6",
        'web.toml:14  vip[1].address  "10.0.0.300/24" is not an address',
        "web.toml:17  vip[2].name  VIP web-1 is already declared on line 13",
        'web.toml:19  vip[2].prefer  there is no node "c"',
        'web.toml:22  engine.detection  must be a duration such as "250ms" or "4s", not "5"',
    ]


@pytest.mark.parametrize(
    ("line", "place", "words"),
    [
        ('[engine]\ntipe = "corosync"', "engine.tipe", "did you mean 'type'"),
        ("[engine]\nmanaged = 1", "engine.managed", "true or false"),
        ('[engine]\ndetection = "50ms"', "engine.detection", "from 150ms to 1m"),
        ('[engine]\nbeat = "161ms"', "engine.beat", "at most 160ms"),
        ('[engine]\ndetection = "2s"\nevict_after = "1s"', "engine.evict_after", "too soon"),
        ('[fence]\nduplicates = "ignore"', "fence.duplicates", '"announce", "withdraw"'),
        ("[fence]\nwithdraw_after = 3", "fence.withdraw_after", 'duplicates = "withdraw"'),
        ('[fence]\nduplicates = "withdraw"\nwithdraw_after = 11', "fence.withdraw_after", "from 1 to 10"),
        ('[fence]\nwitness = "c"', "fence.witness", "true or false"),
        ('[engine]\ntype = "totem"', "engine.type", '"corosync", "spread"'),
        ('[engine]\naddress = "4803@localhost"', "engine.address", 'not for type = "corosync"'),
        ('[engine]\ntype = "spread"\nmanaged = false', "engine.managed", 'not for type = "spread"'),
        ('[engine]\ntype = "spread"\naddress = "localhost"', "engine.address", "4803@localhost"),
        ('[engine]\ntype = "spread"\naddress = 4803', "engine.address", "must be a text"),
        ('[engine]\ntype = "spread"\nsession = "web1"', "engine.session", "one to three letters"),
        ('[engine]\ntype = "spread"\nretry = "1ms"', "engine.retry", "from 20ms"),
        ('[balance]\nmoves_per_round = "some"', "balance.moves_per_round", '"all" or a whole number'),
        ("[balance]\nmoves_per_round = -1", "balance.moves_per_round", '"all" or a whole number'),
        ('[balance]\ncount = "all"', "balance.count", '"vips", "addresses"'),
        ('[balance]\nby = "luck"', "balance.by", '"count", "weight", "load", or "module:function"'),
        ('[balance]\nby = "no_such_module_here:shares"', "balance.by", "no installed distribution"),
        ('[load]\ninterval = "5s"', "load", 'only for by = "load"'),
        (BY_LOAD + 'source = "disk"', "load.source", '"loadavg", "command"'),
        (BY_LOAD + 'source = "command"', "load", "a `command` exactly if"),
        (BY_LOAD + 'source = "loadavg"\ncommand = ["/bin/true"]', "load", "a `command` exactly if"),
        (BY_LOAD + 'command = ["true"]', "load.command", "absolute path"),
        (BY_LOAD + 'command = "/bin/true"', "load.command", "list of texts"),
        (BY_LOAD + 'command = ["/bin/true", "a\\u0000b"]', "load.command", "NUL"),
        (BY_LOAD + 'interval = "10ms"', "load.interval", "from 1s to 1h"),
        (BY_LOAD + 'interval = "2s"\ntimeout = "3s"', "load.timeout", "longer than `interval`"),
        (BY_LOAD + "hysteresis = 1", "load.hysteresis", "from 5 to 100"),
        ('[control]\nsocket = "here"', "control.socket", "absolute"),
        (f'[control]\nsocket = "/{"x" * 120}"', "control.socket", "100 bytes"),
        ('[[node]]\nname = "c d"\naddress = "10.0.0.13"', "node[3].name", "is no name"),
        ('[[node]]\naddress = "10.0.0.13"', "node[3]", "needs a name"),
        ('[[node]]\nname = "c"', "node[3]", "`address` or `addresses`"),
        ('[[node]]\nname = "c"\naddress = "10.0.0.13/24"', "node[3].address", "no /prefix"),
        ('[[node]]\nname = "c"\naddress = "224.0.0.1"', "node[3].address", "cannot be a node's address"),
        ('[[node]]\nname = "c"\naddress = "10.1.0.11"', "node[3]", "has the number 11, as node a has"),
        ('[[node]]\nname = "c"\naddresses = ["10.0.0.13", "10.1.0.13"]', "node[3].addresses", "one per link"),
        ('[[node]]\nname = "c"\naddress = "2001:db8::13"', "node[3]", "cannot talk"),
        ('[[node]]\nname = "c"\naddress = "10.0.0.13"\nweight = "heavy"', "node[3].weight", "whole number"),
        (
            '[[node]]\nname = "c"\naddress = "10.0.0.13"\ninterfaces = { public = "a/b" }',
            "node[3].interfaces",
            "no interface name",
        ),
        ('[[vip]]\naddress = "192.0.2.255/24"', "vip[2].address", "broadcast address"),
        ('[[vip]]\naddress = "192.0.2.1"\nroutes = "default"', "vip[2].routes", "list of texts"),
        ('[[vip]]\naddress = "192.0.2.1"\nroutes = ["default"]', "vip[2].routes", '"default" needs a gateway'),
        ('[[vip]]\naddress = "192.0.2.1"\nrules = ["from 192.0.2.1"]', "vip[2].rules", "needs a table"),
        (f'[[vip]]\naddress = "192.0.2.1"\nrules = {["lookup 1"] * 65}', "vip[2].rules", "at most 64"),
        ('[[vip]]\naddress = "192.0.2.1"\nconnections = "reset"', "vip[2].connections", '"destroy", "keep"'),
        ('[[hook]]\ncommand = ["/bin/true"]', "hook[1]", "needs `on`"),
        ('[[hook]]\non = ["aquired"]\ncommand = ["/bin/true"]', "hook[1].on", "did you mean 'acquired'"),
        ('[[hook]]\non = ["view"]', "hook[1]", "either `command` or `python`"),
        ('[[hook]]\non = ["view"]\ncommand = ["/bin/true"]\npython = "a:b"', "hook[1]", "either `command` or `python`"),
        ('[[hook]]\non = ["view"]\npython = "os.system"', "hook[1].python", "no entry point"),
        ('[[hook]]\non = ["view"]\ncommand = "/bin/true -v"', "hook[1].command", "no shell reads it"),
        ('[[hook]]\non = ["view"]\ncommand = ["true"]', "hook[1].command", "absolute path"),
        ('[[hook]]\non = ["view"]\ncommand = []', "hook[1].command", "1 to 64 words"),
        ('[[hook]]\non = ["view"]\ncommand = ["/bin/a\\u0000b"]', "hook[1].command", "1 to 64 words"),
        ('[[hook]]\non = ["view"]\ncommand = ["/bin/true"]\nvips = ["web-1"]', "hook[1].vips", "view concerns no VIP"),
        ('[[hook]]\non = ["moved"]\ncommand = ["/bin/true"]\nvips = ["web-2"]', "hook[1].vips", "mean 'web-1'"),
        ('[[hook]]\non = ["moved"]\ncommand = ["/bin/true"]\nnodes = ["c"]', "hook[1].nodes", "no node"),
        ('[[hook]]\non = ["moved"]\ncommand = ["/bin/true"]\neach = "view"', "hook[1].each", '"vip", "round"'),
        ('[[hook]]\non = ["moved"]\ncommand = ["/bin/true"]\ntimeout = "2h"', "hook[1].timeout", "to 1h"),
        ('[[hook]]\non = ["moved"]\ncommand = ["/bin/true"]\nbudget = "2ms"', "hook[1].budget", "before_release"),
        ('[[hook]]\non = ["before_release"]\ncommand = ["/bin/true"]\nbudget = "2s"', "hook[1].budget", "to 1s"),
        ('[[check]]\nkind = "tcp"\naddress = "[::1]:1"', "check[1]", "needs a name"),
        ('[[check]]\nname = "c"', "check[1].kind", "must be one of"),
        ('[[check]]\nname = "c"\nkind = "icmp"', "check[1].kind", '"tcp", "http"'),
        ('[[check]]\nname = "c"\nkind = "tcp"', "check[1]", "needs `address`"),
        ('[[check]]\nname = "c"\nkind = "tcp"\naddress = "127.0.0.1"', "check[1].address", "with a port"),
        ('[[check]]\nname = "c"\nkind = "tcp"\naddress = "h:70000"', "check[1].address", "with a port"),
        (f"{CHECK}\nurl = 'http://h'", "check[1].url", 'not for kind = "tcp"'),
        (f"{CHECK}\nvips = ['web-2']", "check[1].vips", "mean 'web-1'"),
        (f"{CHECK}\nlabels = ['db']", "check[1].labels", "no label of a VIP"),
        (f"{CHECK}\nnodes = ['c']", "check[1].nodes", "no node"),
        (f"{CHECK}\ninterval = '1s'\ntimeout = '2s'", "check[1].timeout", "longer than `interval`"),
        (f"{CHECK}\ninterval = '50ms'", "check[1].interval", "from 100ms"),
        (f"{CHECK}\nrise = 0", "check[1].rise", "from 1 to 100"),
        (f"{CHECK}\nfall = true", "check[1].fall", "from 1 to 100"),
        (f"{CHECK}\nunhealthy = 'drop'", "check[1].unhealthy", '"keep", "withdraw"'),
        (f"{CHECK}\nonly_one = true\nunhealthy = 'keep'", "check[1].unhealthy", "only_one withdraws"),
        (f"{CHECK}\n{CHECK}", "check[2].name", "check c is already declared on line 17"),
        (
            f"{CHECK}\nonly_one = true\n{CHECK.replace('name = ' + repr('c'), 'name = ' + repr('d'))}\nonly_one = true",
            "check[2].only_one",
            "web-1 has such a check already: c",
        ),
        ('[[check]]\nname = "c"\nkind = "http"\nurl = "ftp://h/"', "check[1].url", "no http:// or https:// URL"),
        ('[[check]]\nname = "c"\nkind = "http"\nurl = "http://h/a b"', "check[1].url", "no http:// or https:// URL"),
        ('[[check]]\nname = "c"\nkind = "http"\nurl = "http://h:x/"', "check[1].url", "no http:// or https:// URL"),
        ('[[check]]\nname = "c"\nkind = "http"\nurl = "http://u:p@h/"', "check[1].url", "user or a password"),
        (f"{PAGE}\nstatus = [99]", "check[1].status", "must be a status"),
        (f"{PAGE}\nstatus = ['200-']", "check[1].status", "must be a status"),
        (f'{PAGE}\nhost = "a\\r\\nb"', "check[1]", "`host` must be a name"),
        (f"{PAGE}\ntls_verify = false", "check[1].tls_verify", "only for https"),
        (f"{PAGE.replace('http:', 'https:')}\ntls_ca = 'ca.pem'", "check[1].tls_ca", "absolute path"),
        (f"{PAGE.replace('http:', 'https:')}\ntls_key = '/k'", "check[1].tls_key", "needs `tls_cert`"),
        ('[[check]]\nname = "c"\nkind = "exec"', "check[1].command", "1 to 64 words"),
        ('[[check]]\nname = "c"\nkind = "exec"\ncommand = "/bin/true"', "check[1].command", "no shell reads it"),
        ('[[check]]\nname = "c"\nkind = "process"', "check[1]", "either `process` or `pid_file`"),
        ('[[check]]\nname = "c"\nkind = "process"\npid_file = "x"', "check[1].pid_file", "absolute path"),
        ('[[check]]\nname = "c"\nkind = "unit"\nunit = "a b"', "check[1].unit", "no name of a unit"),
        ('[[check]]\nname = "c"\nkind = "unit"\nunit = "--all"', "check[1].unit", "no name of a unit"),
        ('[[check]]\nname = "c"\nkind = "file"\npath = "x"', "check[1].path", "absolute path"),
        ('[[check]]\nname = "c"\nkind = "interface"', "check[1]", "needs `interface`"),
        (f"{GATEWAY}\ngateway = 'router'", "check[1].gateway", "not an address"),
        (f"{GATEWAY}\ngateway = '192.0.2.10'", "check[1].gateway", "or a VIP's"),
        ('[[vip]]\naddress = "192.0.2.11"\nlabels = ["a b"]', "vip[2].labels", "16 names"),
        ('[[vip]]\naddress = "192.0.2.0/24"', "vip[2].address", "network address"),
        ('[[vip]]\naddress = "127.0.0.1"', "vip[2].address", "cannot be served"),
        ('[[vip]]\naddress = "fe80::1"', "vip[2].address", "link-local"),
        ('[[vip]]\naddress = "fe80::1%eth0"', "vip[2].address", "not by %"),
        ('[[vip]]\naddress = "192.0.2.10"', "vip[2].address", "already declared on line 14"),
        ("[[vip]]\naddresses = []", "vip[2].addresses", "1 to 64"),
        ("[[vip]]\naddress = 5", "vip[2].address", "must be a text"),
        ('[[vip]]\naddress = "192.0.2.11"\ninterface = "a very long name"', "vip[2].interface", "no interface name"),
        ('[[vip]]\naddress = "192.0.2.11"\nprefer = ["a", "a"]', "vip[2].prefer", "twice"),
        ('[[vip]]\naddress = "192.0.2.11"\npin = ["c"]', "vip[2].pin", "no node"),
        ('[[vip]]\naddress = "192.0.2.11"\npin = []', "vip[2].pin", "nobody could hold it"),
        ('[[vip]]\naddress = "192.0.2.11"\nnodes = []', "vip[2].nodes", "nobody could hold it"),
        ('[[vip]]\naddress = "192.0.2.11"\nnodes = "a"', "vip[2].nodes", "list of texts"),
        ('[[vip]]\naddress = "192.0.2.11"\npin = ["a"]\nnodes = ["a"]', "vip[2].nodes", "said by `pin`"),
        ('[[vip]]\naddress = "192.0.2.11"\npin = ["a"]\nprefer = ["a"]', "vip[2].prefer", "said by `pin`"),
        ('[[vip]]\naddress = "192.0.2.11"\nnodes = ["a"]\nprefer = ["b"]', "vip[2].prefer", "may not hold it"),
        ('[[vip]]\naddress = "192.0.2.11"\nnodes = ["a"]\navoid = ["b"]', "vip[2].avoid", "may not hold it"),
        ('[[vip]]\naddress = "192.0.2.11"\nprefer = ["a"]\navoid = ["a"]', "vip[2].avoid", "preferred as well"),
        ('[[vip]]\naddress = "192.0.2.11"\napart = "two words"', "vip[2].apart", "no name"),
        ('[[node]]\nname = "c"\naddress = "10.0.0.13"\ncapacity = -1', "node[3].capacity", "from 0 to 20000"),
        ('[[node]]\nname = "c"\naddress = "10.0.0.13"\navoid = ["web-1"]', "node[3].avoid", "true or false"),
        ('[notify]\nhost = ["10.0.0.1"]', "notify.host", "did you mean 'hosts'"),
        ('[notify]\nhosts = "10.0.0.1"', "notify.hosts", "list of at most 256"),
        ("[notify]\nhosts = [5]", "notify.hosts", "must be a text"),
        ("[notify]\nhosts = [{ throttle = 5 }]", "notify.hosts", "must be a text"),
        ('[notify]\nhosts = ["router"]', "notify.hosts", "no address and no network"),
        ('[notify]\nhosts = ["10.0.0.1/24"]', "notify.hosts", "bits after its prefix length"),
        ('[notify]\nhosts = ["10.0.0.0/15"]', "notify.hosts", "/16 is the largest"),
        ('[notify]\nhosts = ["fd00::/64"]', "notify.hosts", "/112 is the largest"),
        ('[notify]\nhosts = ["224.0.0.1"]', "notify.hosts", "no host's"),
        ('[notify]\nhosts = ["fe80::1%eth0"]', "notify.hosts", "not by %"),
        ('[notify]\nhosts = ["10.0.0.1", "10.0.0.1/32"]', "notify.hosts", "10.0.0.1/32 twice"),
        ('[notify]\nhosts = [{ address = "10.0.0.1", throttle = 0 }]', "notify.hosts.throttle", "from 1 to 10000"),
        ('[notify]\nhosts = [{ address = "10.0.0.1", pong = true }]', "notify.hosts.pong", "did you mean 'ping'"),
        ("[notify]\nthrottle = 10001", "notify.throttle", "from 1 to 10000"),
        ('[notify]\nneighbours = "all"', "notify.neighbours", "true or false"),
        ('[neighbours]\ninterval = "10ms"', "neighbours.interval", "from 1s to 24h"),
        ('[[vip]]\naddress = "192.0.2.11"\nnotify = ["192.0.2.300"]', "vip[2].notify", "no address and no network"),
        ('[vips]\nx = "y"', "vips", "did you mean 'vip'"),
    ],
)
def test_a_mistake_gets_a_sentence_with_its_place(line: str, place: str, words: str) -> None:
    said = the_problem(f"{GOOD}\n{line}\n")
    where = said.removeprefix("web.toml:").split("  ")
    assert int(where[0]) >= GOOD.count("\n")
    assert where[1] == place
    assert words in where[2]


def test_who_is_told_of_a_vip() -> None:
    text = """[notify]
hosts = ["192.0.2.1", { address = "192.0.2.0/24", interface = "public", throttle = 64 }]
ping = true
"""
    found = parse(f'{text}{GOOD}notify = ["192.0.2.9", {{ address = "2001:db8::/120", ping = false }}]\n')
    listed = [*found.notify.hosts, *found.vips[0].notify]
    assert [(str(h.network), h.interface, h.throttle, h.ping) for h in listed] == [
        ("192.0.2.1/32", "", 128, True),
        ("192.0.2.0/24", "public", 64, True),
        ("192.0.2.9/32", "", 128, True),
        ("2001:db8::/120", "", 128, False),
    ]
    assert (found.notify.neighbours, found.notify.interval_ms) == (False, 60_000)


def test_all_vips_together_name_a_bounded_number_of_hosts() -> None:
    entries = [f'"10.9.{n // 200}.{1 + n % 200}"' for n in range(300)]
    vip = '[[vip]]\naddress = "192.0.2.{}"\nnotify = [{}]\n'
    same = "".join(vip.format(20 + n, ",".join(entries[:200])) for n in range(9))
    assert parse(f"{GOOD}\n{same}").vips[1].notify
    more = vip.format(20, ",".join(entries[:200])) + vip.format(21, ",".join(entries[200:]))
    assert "300 hosts and networks" in the_problem(f"{GOOD}\n{more}")


def test_what_is_no_toml_is_told_with_its_line() -> None:
    assert the_problem("[cluster]\nname = \n").startswith("web.toml:2  is not TOML: ")


def test_deep_nesting_is_a_sentence_too() -> None:
    assert "not TOML" in the_problem("x = " + "[" * 100_000)


def test_a_file_that_cannot_be_read_or_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"[cluster]\n\xe4\n")
    with pytest.raises(ConfigError, match=r"latin.toml:2  is not UTF-8"):
        load(tmp_path / "latin.toml")


@given(st.text(max_size=200))
def test_any_text_is_a_config_or_a_list_of_problems(text: str) -> None:
    try:
        parse(text)
    except ConfigError as wrong:
        assert wrong.problems  # noqa: PT017 - nothing else may be raised


VALUES = st.recursive(
    st.one_of(st.integers(-5, 5), st.booleans(), st.text("abz/.:%é 01", max_size=6), st.floats(0, 1)),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(
    st.sampled_from(["cluster", "engine", "balance", "control", "node", "vip", "hook", "check"]),
    st.sampled_from(
        [
            *(
                "name",
                "key_file",
                "type",
                "profile",
                "detection",
                "managed",
                "evict_after",
                "id",
                "address",
                "weight",
                "prefer",
            ),
            *("on", "command", "python", "vips", "each", "timeout", "budget", "routes", "rules", "connections"),
            *("kind", "labels", "nodes", "interval", "rise", "unhealthy", "only_one", "url", "status", "body"),
            *("tls_verify", "tls_ca", "unit", "path", "exists", "interface", "gateway", "process", "pid_file"),
        ]
    ),
    VALUES,
)
def test_any_value_of_any_key_is_taken_or_refused_with_its_place(table: str, key: str, value: object) -> None:
    import json

    text = GOOD + f"\n[[{table}]]\n{key} = {json.dumps(value)}\n" if table in ("node", "vip", "hook", "check") else ""
    text = text or GOOD.replace(
        "[cluster]", f"[{table}]\n{key} = {json.dumps(value)}\n[cluster]", int(table != "cluster")
    )
    try:
        parse(text)
    except ConfigError as wrong:
        assert all(p.startswith("config") for p in wrong.problems)  # noqa: PT017 - nothing else may be raised


def test_the_digest_is_of_the_meaning_not_of_the_text() -> None:
    same = "# a comment\n" + GOOD.replace('name = "web"', 'name   =  "web"')
    blocks = GOOD.split("\n\n")
    swapped = "\n\n".join([blocks[0], blocks[2], blocks[1], blocks[3]])
    local = GOOD + '\n[control]\nsocket = "/tmp/x.sock"\noriginal = "/tmp/x.it"\n[notify]\nhosts = ["192.0.2.1"]\n'
    assert len({parse(t).digest for t in (GOOD, same, swapped, local)}) == 1
    other = [
        GOOD.replace("192.0.2.10/32", "192.0.2.10/24"),
        GOOD.replace('name = "web-1"', 'name = "www"'),
        GOOD + 'prefer = ["a"]\n',
        GOOD + 'pin = ["a"]\n',
        GOOD + 'nodes = ["a"]\n',
        GOOD + 'avoid = ["a"]\n',
        GOOD + 'apart = "web"\n',
        GOOD.replace('address = "10.0.0.12"', 'address = "10.0.0.12"\ncapacity = 3'),
        GOOD.replace('address = "10.0.0.12"', 'address = "10.0.0.12"\navoid = true'),
        GOOD + '\n[engine]\ndetection = "400ms"\n',
        GOOD + '\n[balance]\ncount = "addresses"\n',
        GOOD.replace("10.0.0.12", "10.0.0.13"),
    ]
    assert len({parse(t).digest for t in (GOOD, *other)}) == 1 + len(other)


def test_a_host_finds_itself() -> None:
    config = parse(GOOD)

    def here(name: str | None, host: str, *local: str) -> str:
        return find_self(config, name, hostname=lambda: host, is_local=lambda a: a in local).name

    assert here("b", "a") == "b"
    assert here(None, "a") == "a"
    assert here(None, "b.example.org") == "b"
    assert here(None, "elsewhere", "10.0.0.12") == "b"
    with pytest.raises(ConfigError, match="no node 'c'"):
        here("c", "a")
    with pytest.raises(ConfigError, match="is none of the nodes"):
        here(None, "elsewhere")
    with pytest.raises(ConfigError, match="several nodes"):
        here(None, "elsewhere", "10.0.0.11", "10.0.0.12")


def test_the_core_gets_names_not_indexes() -> None:
    config = parse(GOOD + 'prefer = ["b"]\n')
    settings = settings_for(config, config.nodes[0])
    assert settings.node == "a"
    assert dict(settings.prefer) == {config.vips[0].vip.key: ("b",)}


def test_a_pin_is_a_list_of_nodes_and_a_preference_and_a_spare_is_avoided_by_all_that_do_not_name_it() -> None:
    text = GOOD.replace('address = "10.0.0.12"', 'address = "10.0.0.12"\navoid = true\ncapacity = 2')
    text += 'pin = ["a"]\n[[vip]]\naddress = "192.0.2.11"\napart = "web"\n'
    text += '[[vip]]\naddress = "192.0.2.12"\nprefer = ["b"]\navoid = ["a"]\napart = "web"\n'
    config = parse(text)
    a, b = (settings_for(config, node) for node in config.nodes)
    pinned, plain, odd = (vip.vip.key for vip in config.vips)
    assert dict(a.prefer) == {pinned: ("a",), odd: ("b",)}
    assert (a.not_mine, b.not_mine) == ((), (pinned,))
    assert dict(a.avoid) == {pinned: ("b",), plain: ("b",), odd: ("a",)}
    assert a.avoid == b.avoid
    assert dict(a.apart) == {plain: "web", odd: "web"}
    assert (a.capacity, b.capacity) == (None, 2)


def test_a_hook_has_the_documented_defaults() -> None:
    text = '\n[[hook]]\non = ["acquired", "view"]\ncommand = ["/usr/bin/logger", "-t", "vip"]\n'
    text += (
        '[[hook]]\nname = "dns"\non = ["before_release"]\npython = "site.dns:update"\nvips = ["web-1"]\nnodes = ["a"]\n'
    )
    first, second = parse(GOOD + text).hooks
    assert (first.name, first.command[1:], first.python) == ("logger", ("-t", "vip"), "")
    assert (first.each, first.timeout_ms, first.vips, first.nodes) == ("vip", 10_000, (), ())
    assert (second.name, second.python, second.command, second.budget_ms) == ("dns", "site.dns:update", (), 200)
    assert (second.vips, second.nodes) == (("web-1",), ("a",))
    assert parse(GOOD).digest == parse(GOOD + text).digest


@given(
    st.sampled_from(list(CHECK_KINDS)),
    st.dictionaries(
        st.sampled_from(sorted({key for keys in CHECK_KINDS.values() for key in keys})),
        VALUES | st.sampled_from(["http://127.0.0.1/", "https://[::1]:8443/x?y", "http://[", "//", "10.0.0.1", "/x"]),
        max_size=4,
    ),
)
def test_whatever_a_check_is_to_look_at_is_taken_or_refused_with_its_place(kind: str, keys: dict[str, object]) -> None:
    import json

    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    try:
        (check,) = parse("\n".join([GOOD, "[[check]]", 'name = "c"', f'kind = "{kind}"', *lines])).checks
    except ConfigError as wrong:
        assert all(p.startswith("config") for p in wrong.problems)  # noqa: PT017 - nothing else may be raised
    else:
        json.dumps(dict(check.options))  # as it goes to another process
        environment: dict[str, object] = {"environment": {}} if kind == "exec" else {}
        PROBES[kind](**dict(check.options), **environment)  # has all that it needs


def test_a_check_is_about_all_vips_or_those_that_are_named_or_labelled_and_has_the_documented_defaults() -> None:
    more = '[[vip]]\nname = "db"\naddress = "192.0.2.11"\nlabels = ["data", "slow"]\n'
    more += '[[vip]]\nname = "x"\naddress = "192.0.2.12"\nlabels = ["data"]\n'
    parts = ("", "vips = ['x']", "labels = ['data']", "labels = ['slow']\nvips = ['web-1']")
    named = (CHECK.replace("name = 'c'", f"name = 'c{i}'") for i in range(len(parts)))
    text = GOOD + more + "\n".join(f"{check}\n{part}" for check, part in zip(named, parts, strict=True))
    checks = parse(text).checks
    assert [c.vips for c in checks] == [("db", "web-1", "x"), ("x",), ("db", "x"), ("db", "web-1")]
    first = checks[0]
    assert (first.interval_ms, first.timeout_ms, first.rise, first.fall) == (2000, 2000, 2, 3)
    assert (first.withdraw, first.only_one, first.nodes) == (False, False, ())
    assert dict(first.options) == {"host": "127.0.0.1", "port": 80}


def test_a_page_is_what_its_url_says() -> None:
    text = f"{GOOD}{PAGE.replace('http://127.0.0.1:80/', 'https://[::1]:8008/primary?x=1')}\nstatus = [200, '500-503']"
    options = dict(parse(text).checks[0].options)
    assert (options["host"], options["port"], options["path"]) == ("::1", 8008, "/primary?x=1")
    assert (options["host_header"], options["tls"], options["tls_verify"]) == ("[::1]:8008", True, True)
    assert (options["tls_name"], options["status"]) == ("::1", [(200, 200), (500, 503)])


def test_of_checks_the_digest_has_what_they_decide_and_not_how_they_find_it_out() -> None:
    checked = GOOD + CHECK
    same = checked.replace("127.0.0.1:80", "127.0.0.1:8080") + "\ninterval = '5s'\nfall = 1"
    assert parse(checked).digest == parse(same).digest
    other = [GOOD, f"{checked}\nunhealthy = 'withdraw'", f"{checked}\nonly_one = true", f"{checked}\nnodes = ['a']"]
    assert len({parse(text).digest for text in (checked, *other)}) == 5


def test_checks_that_would_run_too_often_are_refused() -> None:
    many = "\n".join(CHECK.replace("name = 'c'", f"name = 'c{i}'") + "\ninterval = '100ms'" for i in range(26))
    assert "more than 256 times a second" in the_problem(GOOD + many)
