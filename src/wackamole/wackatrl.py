"""`wackatrl`, the control program of the original, for our daemon: the same options, and the same lines to read.

    wackatrl [-c FILE] -l | -f | -s

Exit codes: 0 done, 1 failure, 2 wrong usage or config.
"""

from __future__ import annotations

import getopt
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .client import NotReachable, Refused, ask
from .config import Config, ConfigError, HostsMissing, load

USAGE = """\
usage: wackatrl [-c FILE] -l | -f | -s
  -c FILE  the configuration, wackamole.toml or wackamole.conf
  -l       list the VIPs and who holds them
  -f       this node lets go of its VIPs and takes none, as if it had failed
  -s       this node takes part again
"""
PLACES = (Path("/etc/wackamole/wackamole.toml"), Path("/etc/wackamole/wackamole.conf"), Path("wackamole.conf"))
VERBS = {"-l": None, "-f": "drain", "-s": "resume"}


def run(arguments: Sequence[str], places: Sequence[Path] = PLACES) -> int:
    """The program; returns its exit code. Without -c the configuration is the first of `places` that is there."""
    try:
        options, rest = getopt.getopt(list(arguments), "c:fsl")
    except getopt.GetoptError as wrong:
        print(f"wackatrl: {wrong}\n{USAGE}", end="", file=sys.stderr)
        return 2
    files = [Path(value) for option, value in options if option == "-c"]
    asked = [option for option, _ in options if option in VERBS]
    if not asked or rest:
        print(USAGE, end="", file=sys.stderr)
        return 2
    try:
        config = _config(files[-1] if files else None, places)
    except ConfigError as wrong:
        print(wrong, file=sys.stderr)
        return 2
    verb = VERBS[asked[-1]]  # the last one counts, as it did
    try:
        if verb is not None:
            ask(config.control.socket, verb, {"force": True})
        status = ask(config.control.socket, "status")
    except (NotReachable, Refused) as no:
        print(f"wackatrl: {no}", file=sys.stderr)
        return 1
    for line in listed(config, status):
        print(line)
    return 0


def _config(file: Path | None, places: Sequence[Path]) -> Config:
    """The file's, or that of the first of `places`; the latter also for an old file that the daemon could not run by."""
    own = next((p for p in places if p.exists()), places[0])
    try:
        return load(file or own)
    except HostsMissing:
        if file is None or file.resolve() == own.resolve():
            raise
        print(f"wackatrl: {file} does not list the hosts, so {own} is read", file=sys.stderr)
        return load(own)


def listed(config: Config, status: Mapping[str, Any]) -> Iterator[str]:
    """The VIPs in the config's order: their holder's own address, then their addresses, on this host's interfaces."""
    holders = {vip["key"]: vip["holder"] for vip in status["vips"]}
    own = {node.name: node.addresses[0] for node in config.nodes}
    names = next((dict(n.interfaces) for n in config.nodes if n.name == status["node"]), {})
    for vip in (v.vip for v in config.vips):
        holder = holders.get(vip.key)
        yield f"Owner: {'not acquired' if holder is None else own.get(holder, holder)}"
        for number, address in enumerate(vip.addresses):
            interface = names.get(address.interface, address.interface) or "-"
            yield f"\t{' ->' if number else '*  '} {interface:>5}:{address}"


def main() -> int:
    """The entry point."""
    return run(sys.argv[1:])
