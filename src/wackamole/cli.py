"""The command line. Exit codes: 0 done, 1 failure, 2 wrong usage or config.

Only what a verb needs is imported, and only when it runs: `status` is typed at three in the morning.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__

if TYPE_CHECKING:
    from .config import Config
    from .core.model import ShareRule
    from .core.state import State
    from .planning import Change

SOCKET = "/run/wackamole/control.sock"
CONFIG = Path("/etc/wackamole/wackamole.toml")

app = typer.Typer(
    name="wackamole",
    help="N-way fail-over for IP addresses in a cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SocketOption = Annotated[str, typer.Option("--socket", envvar="WACKAMOLE_SOCKET", help="The daemon's control socket.")]
ForOption = Annotated[str | None, typer.Option("--for", help="Only for so long: 90s, 2h, 3d.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why, for whoever looks.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"wackamole {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """N-way fail-over for IP addresses in a cluster."""


@contextmanager
def _answered() -> Iterator[None]:
    """Turn the daemon's refusals into one sentence and exit code 1."""
    from .client import NotReachable, Refused

    try:
        yield
    except (NotReachable, Refused) as no:
        print(f"wackamole: {no}", file=sys.stderr)
        raise typer.Exit(1) from None


def _print_json(what: Any) -> None:
    print(json.dumps(what, indent=2, ensure_ascii=False))


def _worked(socket: str, verb: str, asked: Mapping[str, object], doing: str) -> Any:
    """Ask for something that takes a while; stderr says how far it is."""
    from .client import NotReachable, converse

    with _answered():
        for kind, said in converse(socket, verb, asked):
            if kind == "result":
                return said
            print(f"{doing} {said['done']} of {said['of']} VIPs", file=sys.stderr, flush=True)
        raise NotReachable(f"the daemon on {socket} closed the connection without an answer")


def _seconds(duration: str | None) -> int | None:
    """A duration, in whole seconds, at least one."""
    from .config import duration_ms

    if duration is None:
        return None
    try:
        return max(1, duration_ms(duration) // 1000)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong)) from None


@app.command()
def run(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = CONFIG,
    node: Annotated[str | None, typer.Option("--node", help="Which node this is, if it cannot be found out.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log the kernel's steps too.")] = False,
) -> None:
    """Run the daemon in the foreground. SIGTERM hands every VIP over, then exits."""
    command = [sys.executable, "-m", "wackamole.shell.daemon", "--config", str(config)]
    if node is not None:
        command += ["--node", node]
    if verbose:
        command.append("--verbose")
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 - the daemon's process has nothing of the command line in it


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="The configuration file.")] = CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Validate a configuration file: all problems at once, each with its place."""
    from dataclasses import replace

    from .config import ConfigError, load
    from .core.model import Partition, Takeover
    from .keys import KeyRefused, read, read_all
    from .original import notes as original_notes

    problems: tuple[str, ...] = ()
    notes: list[str] = []
    try:
        found = load(config)
    except ConfigError as wrong:
        problems = wrong.problems
    else:
        fence = found.fence
        if found.cluster.partition is Partition.MAJORITY:
            fence = replace(fence, takeover=Takeover.STRICT)  # always so
        notes.append(f"fence {fence.mode}: {fence.arithmetic(found.engine.detection_ms, found.engine.evict_after_ms)}")
        notes += [*found.notes, *original_notes(found)]
        if found.cluster.key_file is None:
            notes.append("no key_file: anybody on the ring's network can join it; `wackamole keygen` makes a key")
        else:
            try:
                (read if found.engine.managed else read_all)(Path(found.cluster.key_file))
            except KeyRefused as no:
                notes.append(f"on this host, {no}")
    if as_json:
        _print_json({"file": str(config), "problems": list(problems), "notes": notes})
    elif problems:
        print("\n".join(problems), file=sys.stderr)
    else:
        print(f"{config}: {len(found.nodes)} nodes, {len(found.vips)} VIPs, digest {found.digest}")
        for note in notes:
            print(f"note: {note}")
    if problems:
        raise typer.Exit(2)


@app.command("schema")
def print_schema() -> None:
    """Print the configuration's JSON Schema, for editors that check and complete TOML."""
    from .schema import schema

    _print_json(schema())


@app.command()
def convert(
    files: Annotated[list[str], typer.Argument(metavar="[NODE=]FILE...", help="The files, each with its host's name.")],
    node: Annotated[
        list[str] | None, typer.Option("--node", metavar="NAME=ADDRESS[,ADDRESS...]", help="A host and its addresses.")
    ] = None,
    nodes: Annotated[Path | None, typer.Option("--nodes", help="CTDB's nodes file.")] = None,
    kind: Annotated[
        str | None, typer.Option("--from", help="wackamole, keepalived or ctdb; found out if it is not given.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="corosync, or spread to stay with Spread; default: the file's word.")
    ] = None,
    cluster: Annotated[str | None, typer.Option("--cluster", help="The cluster's name, if not the file's.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file, not to stdout.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the TOML of a wackamole.conf, keepalived.conf or CTDB's lists; stderr has what became of each line."""
    from .convert import Kind, Options, Source
    from .convert import convert as convert_texts
    from .convert.files import NotRead, node_option, read_source, write

    known = {k.value: k for k in Kind}
    if kind is not None and kind not in known:
        raise typer.BadParameter(f"--from is one of {', '.join(known)}")
    if engine not in (None, "corosync", "spread"):
        raise typer.BadParameter("--engine is corosync or spread")
    try:
        options = Options(tuple(map(node_option, node or ())), engine, cluster, known[kind] if kind else None)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong)) from None
    try:
        sources = [read_source(file) for file in files]
        done = convert_texts(sources, options, Source(str(nodes), read_source(str(nodes)).text) if nodes else None)
        if output is not None and not done.problems:
            write(output, done.toml, force=force)
    except NotRead as no:
        print(f"wackamole: {no}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        remarks = [
            {"place": str(r.place), "said": r.said, "fate": r.fate.value, "sentence": r.sentence} for r in done.remarks
        ]
        problems = [str(p) for p in done.problems]
        _print_json({"toml": done.toml, "remarks": remarks, "problems": problems, "missing": list(done.missing)})
    else:
        for said in done.problems or done.remarks:
            print(said, file=sys.stderr)
        for missing in done.missing:
            print(f"missing: {missing}", file=sys.stderr)
        if output is None and not done.problems:
            print(done.toml, end="")
    if done.problems:
        raise typer.Exit(2)


@app.command()
def status(socket: SocketOption = SOCKET, as_json: JsonOption = False) -> None:
    """Show who holds what: the agreed table, and this host's kernel."""
    from .client import ask

    with _answered():
        found = ask(socket, "status")
    if as_json:
        _print_json(found)
        return
    from .render import print_status

    print_status(found)


@app.command()
def why(
    vip: Annotated[str, typer.Argument(help="The VIP: its name or an address.")],
    socket: SocketOption = SOCKET,
    as_json: JsonOption = False,
) -> None:
    """Explain a VIP's place step by step: who may hold it, who is chosen, and why it stays or moves."""
    from .client import ask

    with _answered():
        found = ask(socket, "why", {"vip": vip})
    if as_json:
        _print_json(found)
        return
    from .render import print_why

    print_why(found)


@app.command()
def history(
    vip: Annotated[str, typer.Argument(help="The VIP: its name or an address.")],
    since: Annotated[str | None, typer.Option(help="From this time on, as for `events`.")] = None,
    socket: SocketOption = SOCKET,
    as_json: JsonOption = False,
) -> None:
    """Show where a VIP was, oldest first: when, from where, why, and how long it took."""
    from .client import ask

    with _answered():
        found = ask(socket, "history", {"vip": vip, "since": _since(since)})
    if as_json:
        _print_json(found)
        return
    from .render import print_history

    print_history(found)


@app.command()
def plan(
    down: Annotated[list[str] | None, typer.Option("--down", metavar="NODE", help="This host is lost.")] = None,
    drained: Annotated[list[str] | None, typer.Option("--drain", metavar="NODE", help="This node is drained.")] = None,
    weight: Annotated[list[str] | None, typer.Option("--weight", metavar="NODE=N", help="Another weight.")] = None,
    add_vip: Annotated[
        list[str] | None, typer.Option("--add-vip", metavar="[NAME=]ADDRESS", help="One more VIP.")
    ] = None,
    new: Annotated[Path | None, typer.Option("--config", metavar="NEW.toml", help="All nodes read this file.")] = None,
    offline: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Suppose a cluster of this file, all nodes up; ask no daemon."),
    ] = None,
    socket: SocketOption = SOCKET,
    as_json: JsonOption = False,
) -> None:
    """Show what would happen if: which VIPs would go where, and why. Nothing is changed."""
    from dataclasses import asdict

    from .config import ConfigError, load
    from .difference import difference
    from .planning import PlanRefused, Supposition, cluster_of, vip_of, weight_of
    from .planning import plan as plan_of

    try:
        later = load(new) if new is not None else None
        then = Supposition(
            tuple(down or ()),
            tuple(drained or ()),
            tuple(map(weight_of, weight or ())),
            tuple(map(vip_of, add_vip or ())),
            later,
            _share_rule(later) if later is not None else None,
        )
        if offline is not None:
            config = load(offline)
            now = cluster_of(config, _share_rule(config))
        else:
            with _answered():
                config, now = _running(socket)
        moves = plan_of(now, then)
    except ConfigError as wrong:
        print("\n".join(wrong.problems), file=sys.stderr)
        raise typer.Exit(2) from None
    except PlanRefused as no:
        print(f"wackamole: {no}", file=sys.stderr)
        raise typer.Exit(2) from None
    changes = [str(c) for c in difference(config, later)] if later is not None else []
    if as_json:
        _print_json({"changes": changes, "moves": [asdict(m) for m in moves], "vips": len(now.table.rows)})
        return
    _print_plan(changes, moves, len(now.table.rows))


def _print_plan(changes: Iterable[str], moves: Sequence[Change] | None, vips: int) -> None:
    for line in changes:
        print(line)
    if moves is None:
        return
    for move in moves:
        print(f"{move.vip}  {move.source or 'nobody'} → {move.to or 'nobody'}  ({move.cause})")
    print(f"{len(moves)} of {vips} VIPs would move" if moves else "nothing would move")


def _share_rule(config: Config) -> ShareRule | None:
    from .shell.shares import rule_of

    return rule_of(config.balance.entry_point, lambda *_: None) if config.balance.entry_point else None


def _running(socket: str) -> tuple[Config, State]:
    """The config file of the daemon as it is now, and the cluster that runs. Raises ConfigError, Refused and NotReachable."""
    from .client import ask
    from .config import load
    from .core.model import NodeId
    from .planning import running
    from .wire import table_from

    found = ask(socket, "table")
    config = load(Path(found["config"]))
    return config, running(table_from(found["table"]), NodeId(found["me"]), config, _share_rule(config))


@app.command()
def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    since: Annotated[
        str | None, typer.Option(help="From this time on: 1h, or 2026-11-26T10:00 (local if it names no zone).")
    ] = None,
    vip: Annotated[str | None, typer.Option(help="Of this VIP only.")] = None,
    node: Annotated[str | None, typer.Option(help="Said by this node, or about it.")] = None,
    local: Annotated[bool, typer.Option("--local", help="What this node alone saw, in detail.")] = False,
    socket: SocketOption = SOCKET,
    as_json: JsonOption = False,
) -> None:
    """Show what happened in the cluster, oldest first."""
    from .client import converse
    from .render import event_line

    if local and (since is not None or vip is not None or node is not None):
        raise typer.BadParameter("--since, --vip and --node are for the cluster's history, without --local")
    asked = {"cluster": not local, "follow": follow, "since": _since(since), "vip": vip, "node": node}
    try:
        with _answered():
            for kind, said in converse(socket, "events", asked, patient=follow):
                if kind == "progress":
                    print(json.dumps(said, ensure_ascii=False) if as_json else event_line(said), flush=follow)
    except (KeyboardInterrupt, BrokenPipeError):
        # the reader has seen enough; nothing is left to flush into a closed pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def _since(text: str | None) -> float | None:
    """A time or how long ago, as seconds since 1970."""
    import time

    from .config import duration_ms

    if text is None:
        return None
    try:
        return time.time() - duration_ms(text) / 1000
    except ValueError:
        moment = _moment(text, "a duration such as 1h, or a time such as 2026-11-24T10:00")
        return None if moment is None else moment / 1_000_000


@app.command()
def watch(socket: SocketOption = SOCKET) -> None:
    """Watch the cluster live on this terminal: nodes, VIPs, moves, events. Keys drain, resume and move; ? explains them."""
    from .watch.terminal import NoTerminal
    from .watch.terminal import watch as watch_cluster

    try:
        watch_cluster(socket)
    except NoTerminal as no:
        print(f"wackamole: {no}", file=sys.stderr)
        raise typer.Exit(1) from None


@contextmanager
def _serving() -> Iterator[None]:
    """For a page of our own, until Ctrl-C."""
    from .serving import CannotServe

    try:
        yield
    except CannotServe as no:
        print(f"wackamole: {no}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def web(
    listen: Annotated[str, typer.Option(help="The address and port to listen on.")] = "127.0.0.1:8420",
    name: Annotated[
        list[str] | None, typer.Option("--name", help="A host name by which the page may be opened, besides addresses.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Root becomes this user; others need none.")] = None,
    socket: SocketOption = SOCKET,
) -> None:
    """Serve a page that shows the cluster live; read only. A process of its own, which needs no rights."""
    from .serving import Listen
    from .web.server import serve

    def ready(url: str) -> None:
        print(f"{url}  (Ctrl-C ends it; nothing of the cluster depends on it)", flush=True)

    with _serving():
        serve(socket, Listen.of(listen), names=tuple(name or ()), user=user, ready=ready)


@app.command()
def metrics(
    listen: Annotated[str, typer.Option(help="The address and port to listen on.")] = "127.0.0.1:8421",
    user: Annotated[str | None, typer.Option(help="Root becomes this user; others need none.")] = None,
    socket: SocketOption = SOCKET,
) -> None:
    """Serve /metrics for Prometheus, /healthz and /readyz. A process of its own, which needs no rights."""
    from .metrics.server import serve
    from .serving import Listen

    def ready(url: str) -> None:
        print(f"{url}metrics  (Ctrl-C ends it; nothing of the cluster depends on it)", flush=True)

    with _serving():
        serve(socket, Listen.of(listen), user=user, ready=ready)


@app.command()
def move(
    names: Annotated[list[str], typer.Argument(metavar="VIP... NODE", help="One or more VIPs, then the node.")],
    duration: ForOption = None,
    reason: ReasonOption = None,
    socket: SocketOption = SOCKET,
    as_json: JsonOption = False,
) -> None:
    """Move VIPs to a node and pin them to it: they are there whenever it may have them, until `unhold` or `balance`."""
    if len(names) < 2:
        raise typer.BadParameter("name at least one VIP, and the node last")
    asked = {"vips": names[:-1], "node": names[-1], "reason": reason, "for_s": _seconds(duration)}
    done = _worked(socket, "move", asked, f"{names[-1]} has")
    if as_json:
        _print_json(done)
    else:
        print(f"{', '.join(done['moved'])} → {done['to']}")


@app.command()
def drain(
    node: Annotated[str | None, typer.Argument(help="The node; default: this one.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if no other node could take over.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="However long it takes; else 10 s.")] = False,
    duration: ForOption = None,
    reason: ReasonOption = None,
    socket: SocketOption = SOCKET,
    as_json: JsonOption = False,
) -> None:
    """Move everything off a node and keep it empty, also over its restart, until `resume`."""
    asked = {"node": node, "force": force, "wait": wait, "reason": reason, "for_s": _seconds(duration)}
    done = _worked(socket, "drain", asked, f"{node or 'this node'} is rid of")
    if as_json:
        _print_json(done)
    else:
        print(f"{done['node']} is drained: {done['vips_moved']} VIPs moved")


@app.command()
def resume(
    node: Annotated[str | None, typer.Argument(help="The node; default: this one.")] = None,
    socket: SocketOption = SOCKET,
    as_json: JsonOption = False,
) -> None:
    """Let a drained node hold VIPs again."""
    from .client import ask

    with _answered():
        done = ask(socket, "resume", {"node": node})
    if as_json:
        _print_json(done)
    else:
        print(f"{done['node']} may hold VIPs again")


@app.command()
def hold(
    vips: Annotated[list[str], typer.Argument(metavar="VIP...", help="One or more VIPs.")],
    duration: ForOption = None,
    reason: ReasonOption = None,
    socket: SocketOption = SOCKET,
    as_json: JsonOption = False,
) -> None:
    """Have balance leave VIPs where they are, until `unhold`."""
    from .client import ask

    with _answered():
        done = ask(socket, "hold", {"vips": vips, "reason": reason, "for_s": _seconds(duration)})
    if as_json:
        _print_json(done)
    else:
        print(f"balance leaves {', '.join(done['vips'])} alone")


@app.command()
def unhold(
    vips: Annotated[list[str], typer.Argument(metavar="VIP...", help="One or more VIPs.")],
    socket: SocketOption = SOCKET,
    as_json: JsonOption = False,
) -> None:
    """Take back a `hold`, and what `move` has pinned."""
    from .client import ask

    with _answered():
        done = ask(socket, "unhold", {"vips": vips})
    if as_json:
        _print_json(done)
    else:
        print(f"balance may move {', '.join(done['vips'])}")


@app.command()
def balance(
    now: Annotated[bool, typer.Option("--now", help="All of it, whatever the rounds' limits say.")] = False,
    socket: SocketOption = SOCKET,
    as_json: JsonOption = False,
) -> None:
    """Even out the load; VIPs moved by hand lose their place."""
    done = _worked(socket, "balance", {"now": now}, "balance has moved")
    if as_json:
        _print_json(done)
    elif now:
        print(f"balanced: {done['moved']} VIPs moved")
    else:
        print("a round of balancing was asked for; see `wackamole events`")


@app.command()
def reload(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    socket: SocketOption = SOCKET,
    as_json: JsonOption = False,
) -> None:
    """Have the daemon take its config file as it is now. What did not change is not touched. Shows what would change, and what
    would move when all nodes have read it, before it does anything."""
    from dataclasses import asdict

    from .client import NotReachable, Refused, ask
    from .config import ConfigError
    from .planning import PlanRefused, Supposition
    from .planning import plan as plan_of

    with _answered():
        shown = ask(socket, "reload", {"dry": True})
    moves, vips = None, 0
    try:
        config, now = _running(socket)
        moves, vips = plan_of(now, Supposition(config=config, rule=_share_rule(config))), len(now.table.rows)
    except (
        ConfigError,
        PlanRefused,
        Refused,
        NotReachable,
    ) as no:  # what it moves is told only while the group has agreed
        print(f"wackamole: what would move cannot be told: {no}", file=sys.stderr)
    if not as_json:
        _print_plan(shown["changes"], moves, vips)
    done = shown
    if not dry_run:
        with _answered():
            done = ask(socket, "reload")
    if as_json:
        _print_json({**done, "moves": [asdict(m) for m in moves] if moves is not None else None})
    elif done["changes"] != shown["changes"]:
        print("\n".join(["the file was changed meanwhile; what was put in place:", *done["changes"]]))


@app.command()
def restart(
    within: Annotated[str, typer.Option(help="How long the others keep this node's VIPs for it (1s to 60s).")] = "5s",
    socket: SocketOption = SOCKET,
    as_json: JsonOption = False,
) -> None:
    """Replace the daemon's process, after an upgrade, while its VIPs are served on. One node at a time."""
    import time

    from .client import NotReachable, ask
    from .config import duration_ms

    try:
        within_ms = duration_ms(within)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong)) from None
    with _answered():
        before = ask(socket, "status")["process"]
        done = ask(socket, "restart", {"within_ms": within_ms})
        began = time.monotonic()
        while True:
            try:
                found = ask(socket, "status")
            except NotReachable:
                found = None
            if found is not None and found["process"] != before and found["phase"] == "settled":
                break
            if time.monotonic() - began > within_ms / 1000 + 5:
                raise NotReachable(
                    f"the new process is not a member after {time.monotonic() - began:.0f} s; see its log"
                )
            time.sleep(0.02)
    done = {**done, "took_s": round(time.monotonic() - began, 2), "version": found["version"]}
    if as_json:
        _print_json(done)
    else:
        print(f"{done['node']} runs version {done['version']}; {done['held']} VIPs served on, {done['took_s']} s")


@app.command()
def leave(socket: SocketOption = SOCKET, as_json: JsonOption = False) -> None:
    """Hand every VIP over and stop the daemon, as SIGTERM does."""
    from .client import ask

    with _answered():
        done = ask(socket, "leave")
    if as_json:
        _print_json(done)
    else:
        print(f"{done['leaving']} hands over and leaves")


@app.command()
def doctor(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = CONFIG,
    node: Annotated[str | None, typer.Option("--node", help="Which node this is, if it cannot be found out.")] = None,
    socket: Annotated[
        str | None,
        typer.Option("--socket", envvar="WACKAMOLE_SOCKET", help="The daemon's control socket, if not the file's."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Send nothing: no ARP probes, no ICMP echoes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look for what is wrong on this host and in its cluster, and say the remedy. Exit code: how many problems."""
    from .doctor.examination import EXIT_CODE_MAX, as_plain, examine
    from .doctor.host import look

    found = as_plain(examine(look(config, node, socket), quiet=quiet))
    if as_json:
        _print_json(found)
    else:
        from .render import print_doctor

        print_doctor(found)
    raise typer.Exit(min(found["problems"], EXIT_CODE_MAX))


@app.command()
def release(socket: SocketOption = SOCKET, as_json: JsonOption = False) -> None:
    """Remove what a dead daemon left on this host: its addresses, routes and fence. Never while one lives."""
    from .shell.kernel.release import NotReleased
    from .shell.kernel.release import release as release_all

    try:
        done = release_all(socket)
    except NotReleased as no:
        print(f"wackamole: {no}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        addresses = [{"address": address, "interface": interface} for address, interface in done.addresses]
        _print_json({"addresses": addresses, "tables": list(done.tables), "routes": done.routes})
        return
    for address, interface in done.addresses:
        print(f"removed {address} from {interface}")
    for table in done.tables:
        print(f"removed the nftables table netdev {table}")
    if done.routes:
        print(f"removed {done.routes} routes and policy rules")
    if not done.addresses and not done.tables and not done.routes:
        print("nothing was left")


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(help="The key file to make (mode 0600); never overwritten.")],
    as_json: JsonOption = False,
) -> None:
    """Make a key for the ring; copy it to every node."""
    from .keys import KeyRefused, write_new

    try:
        write_new(file)
    except KeyRefused as no:
        print(f"wackamole: {no}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        _print_json({"file": str(file)})
    else:
        print(f'{file} made; copy it to every node and set key_file = "{file}" under [cluster]')


def _moment(text: str | None, wanted: str = "a time such as 2026-11-24T10:00:00") -> int | None:
    """A time of the wall clock, ISO 8601 (local if it names no zone), as microseconds."""
    from datetime import datetime

    if text is None:
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1_000_000)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not {wanted}") from None


@app.command()
def audit(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The audit.jsonl (and .1) of every node.")],
    since: Annotated[str | None, typer.Option(help="From this time on, by the first node's clock.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to this time.")] = None,
    uncovered_max: Annotated[
        float | None, typer.Option(min=0, help="Seconds for which an address may be without a host.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove from the nodes' records that every address was served by one host, and by somebody. 1: it was not so."""
    from .audit import AuditRefused, Verdict
    from .audit import audit as judge

    begin, end = _moment(since), _moment(until)
    try:
        report = judge(
            [(str(file), file.read_bytes()) for file in files],
            since=begin,
            until=end,
            uncovered_max=None if uncovered_max is None else round(uncovered_max * 1_000_000),
        )
    except OSError as no:
        print(f"{no.filename}  cannot be read: {no.strerror}", file=sys.stderr)
        raise typer.Exit(2) from None
    except AuditRefused as no:
        print(no, file=sys.stderr)
        raise typer.Exit(2) from None
    from .audit.shown import as_json as as_plain
    from .audit.shown import print_audit

    if as_json:
        _print_json(as_plain(report))
    else:
        print_audit(report)
    verdicts = (report.exclusive, report.covered)
    raise typer.Exit(1 if Verdict.REFUTED in verdicts else 2 if Verdict.UNDECIDED in verdicts else 0)


lab = typer.Typer(no_args_is_help=True, help="A cluster on this machine, in network namespaces, to try things out.")
app.add_typer(lab, name="lab")

LabOption = Annotated[str, typer.Option("--name", envvar="WACKAMOLE_LAB", help="Which lab.")]
NodeArgument = Annotated[str, typer.Argument(help="A node of the lab.")]


@contextmanager
def _lab_errors() -> Iterator[None]:
    from .config import ConfigError
    from .lab.lab import LabRefused, NotInTime
    from .lab.namespaces import ToolFailed

    try:
        yield
    except ConfigError as wrong:
        print(wrong, file=sys.stderr)
        raise typer.Exit(2) from None
    except (LabRefused, ToolFailed, NotInTime) as no:
        print(f"wackamole lab: {no}", file=sys.stderr)
        raise typer.Exit(1) from None


@lab.command("up")
def lab_up(
    nodes: Annotated[int, typer.Option(min=1, max=16, help="How many nodes.")] = 3,
    vips: Annotated[int, typer.Option(min=1, max=200, help="How many VIPs.")] = 6,
    detection: Annotated[str, typer.Option(help="How long a silent host stays a member.")] = "200ms",
    rings: Annotated[int, typer.Option(min=1, max=2, help="Networks between the nodes.")] = 1,
    config: Annotated[
        Path | None, typer.Option(help="Use this file; nodes get addresses of the lab, VIPs go on eth0.")
    ] = None,
    engine: Annotated[str, typer.Option(help="corosync, or spread where its daemon is installed.")] = "corosync",
    routed: Annotated[
        bool, typer.Option("--routed", help="Nodes are routers between `client` and `server`, with a virtual gateway.")
    ] = False,
    name: LabOption = "lab",
) -> None:
    """Make the namespaces and start a real Corosync, or Spread, and a real daemon in each."""
    from .lab.lab import Lab, Layout

    with _lab_errors():
        layout = Layout.of(
            name,
            nodes=nodes,
            vips=vips,
            detection=detection,
            rings=rings,
            config=config,
            engine=engine,
            routed=routed,
        )
        made = Lab.create(layout)
        try:
            made.start_all()
            made.until_settled()
        except BaseException:
            made.down()
            raise
    first, rest = layout.nodes[0], "" if name == "lab" else f" --name {name}"
    print(f"{len(layout.nodes)} nodes are up: {', '.join(layout.nodes)}. Try:")
    for words, meaning in (
        (f"status{rest}", "who holds what"),
        (f"crash{rest} {first}", "the host is gone, without a word"),
        (f"exec{rest} {first} bash", "a shell on a node (or on `client`)"),
        (f"down{rest}", "take everything away"),
    ):
        print(f"  wackamole lab {words:<24} {meaning}")


@lab.command("down")
def lab_down(name: LabOption = "lab") -> None:
    """End everything that the lab started and remove it; also what a killed `lab` left behind."""
    from .lab.lab import Lab

    with _lab_errors():
        Lab.open(name, missing_ok=True).down()


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def lab_exec(
    node: NodeArgument,
    command: Annotated[list[str], typer.Argument(help="What to run there.")],
    name: LabOption = "lab",
) -> None:
    """Run a command on a node, or on `client`."""
    from .lab.lab import Lab

    with _lab_errors():
        raise typer.Exit(Lab.open(name).call(node, *command))


@lab.command("start")
def lab_start(node: NodeArgument, name: LabOption = "lab") -> None:
    """Start a node that was crashed, killed or has left."""
    from .lab.lab import Lab

    with _lab_errors():
        Lab.open(name).start(node)


@lab.command("crash")
def lab_crash(node: NodeArgument, name: LabOption = "lab") -> None:
    """The host dies: daemon, Corosync and network at the same moment."""
    from .lab.lab import Lab

    with _lab_errors():
        Lab.open(name).crash(node)


@lab.command("kill")
def lab_kill(node: NodeArgument, name: LabOption = "lab") -> None:
    """kill -9 of the daemon alone."""
    from .lab.lab import Lab

    with _lab_errors():
        Lab.open(name).kill_daemon(node)


WhatOption = Annotated[
    str, typer.Option("--what", help="`all` processes of the node, its `daemon`, or its `corosync`.")
]


@lab.command("freeze")
def lab_freeze(node: NodeArgument, what: WhatOption = "all", name: LabOption = "lab") -> None:
    """Stop a node's processes (SIGSTOP); its kernel goes on."""
    from .lab.lab import Lab

    with _lab_errors():
        Lab.open(name).freeze(node, what)


@lab.command("thaw")
def lab_thaw(node: NodeArgument, what: WhatOption = "all", name: LabOption = "lab") -> None:
    """Let frozen processes go on."""
    from .lab.lab import Lab

    with _lab_errors():
        Lab.open(name).thaw(node, what)


@lab.command("cut")
def lab_cut(node: NodeArgument, name: LabOption = "lab") -> None:
    """Pull the node's cables: its interfaces lose their carrier."""
    from .lab.lab import Lab

    with _lab_errors():
        Lab.open(name).cut(node)


@lab.command("plug")
def lab_plug(node: NodeArgument, name: LabOption = "lab") -> None:
    """Plug the node's cables in again."""
    from .lab.lab import Lab

    with _lab_errors():
        Lab.open(name).plug(node)


@lab.command("partition")
def lab_partition(
    groups: Annotated[list[str], typer.Argument(metavar="A,B C", help="Groups of nodes that hear each other.")],
    name: LabOption = "lab",
) -> None:
    """Split the network between groups of nodes; carriers stay up."""
    from .lab.lab import Lab

    with _lab_errors():
        Lab.open(name).partition(*[tuple(g.split(",")) for g in groups])


@lab.command("heal")
def lab_heal(name: LabOption = "lab") -> None:
    """Undo every partition."""
    from .lab.lab import Lab

    with _lab_errors():
        Lab.open(name).heal()


@lab.command("status")
def lab_status(name: LabOption = "lab", as_json: JsonOption = False) -> None:
    """Show every node's own view of the cluster."""
    from .lab.lab import Lab
    from .render import print_lab_status

    with _lab_errors():
        found = Lab.open(name).statuses()
    if as_json:
        _print_json(found)
    else:
        print_lab_status(found)


@lab.command("chaos")
def lab_chaos(
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="How long faults are made.")] = 300,
    pause: Annotated[float, typer.Option(min=0, max=3600, help="Seconds between two faults, at most.")] = 14,
    seed: Annotated[int | None, typer.Option(help="Which faults; the same seed gives the same ones.")] = None,
    nodes: Annotated[int, typer.Option(min=2, max=16, help="How many nodes.")] = 3,
    vips: Annotated[int, typer.Option(min=1, max=50, help="How many VIPs.")] = 6,
    detection: Annotated[str, typer.Option(help="How long a silent host stays a member.")] = "200ms",
    rings: Annotated[int, typer.Option(min=1, max=2, help="Networks between the nodes.")] = 1,
    takeover: Annotated[str, typer.Option(help="`fast` or `strict`, as in the configuration.")] = "fast",
    partition: Annotated[str, typer.Option(help="`cover` or `majority`, as in the configuration.")] = "cover",
    keep: Annotated[
        Path | None, typer.Option(help="A folder for the report, the captured frames, logs and events.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make faults of every kind in a lab of its own, and watch who answers. Needs root."""
    from .lab.chaos import run_chaos

    with _lab_errors():
        code = run_chaos(
            seconds=seconds,
            pause_s_max=pause,
            seed=seed,
            nodes=nodes,
            vips=vips,
            detection=detection,
            rings=rings,
            takeover=takeover,
            partition=partition,
            keep=keep,
            as_json=as_json,
        )
    raise typer.Exit(code)


@app.command()
def demo(
    as_json: JsonOption = False,
    picture: Annotated[Path, typer.Option(help="Where to put the picture of the timeline (SVG).")] = Path(
        "wackamole-demo.svg"
    ),
    detection: Annotated[str, typer.Option(help="How long a silent host stays a member.")] = "200ms",
) -> None:
    """See it happen: three nodes, six VIPs, a crash, a come-back, a drain; about a minute. Needs root."""
    from .lab.demo import run_demo

    with _lab_errors():
        raise typer.Exit(run_demo(as_json=as_json, picture=picture, detection=detection))


def main() -> None:
    """The program `wackamole`."""
    try:
        app()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
