"""What people see of `status` and `events`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .overview import PLACE, ago

WIDTH_WITHOUT_TERMINAL = 160


def console(width: int | None = None) -> Console:
    """Colours and the terminal's width on a terminal; plain and wide elsewhere."""
    probe = Console(highlight=False)
    if width is None and not probe.is_terminal:
        width = WIDTH_WITHOUT_TERMINAL
    return Console(width=width, highlight=False)


def event_line(entry: Mapping[str, Any]) -> str:
    """One line of a history: this node's, or the cluster's, which says who said it."""
    from .shell.journal import line

    rest = {k: v for k, v in entry.items() if k not in PLACE}
    who = f"{entry['said_by']} " if "said_by" in entry else ""
    stamp = float(entry["time"])
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stamp))
    return f"{clock}.{int(stamp * 1000) % 1000:03} {who}{line(str(entry['event']), rest)}"


def print_status(status: Mapping[str, Any], to: Console | None = None) -> None:
    """The whole answer of `status`."""
    out = to or console()
    settled = status["phase"] == "settled"
    head = Text.assemble(
        ("cluster ", "dim"),
        (status["cluster"], "bold"),
        ("   node ", "dim"),
        (status["node"], "bold"),
        ("   ", ""),
        (status["phase"], "green" if settled else "yellow"),
        ("   view ", "dim"),
        (str(status["view"]["id"] or "none"), ""),
        ("   engine ", "dim"),
        (f"{status['engine'].get('type', '?')}, {status['engine'].get('state', '?')}", ""),
    )
    out.print(head)
    out.print(_members(status))
    out.print(_vips(status))
    if status["orders"]:
        out.print(_orders(status["orders"]))
    if status.get("checks"):
        out.print(_checks(status["checks"]))
    out.print(_fence(status["fence"]))
    for warning in status["warnings"]:
        out.print(Text(f"warning: {warning}", "yellow"))


def _fence(fence: Mapping[str, Any]) -> Text:
    if fence["mode"] == "off":
        return Text(f"fence: off ({fence['note']})", "yellow")
    open_ = fence["state"] == "open"
    left = f", {fence['left_ms']} of {fence['lease_ms']} ms left" if open_ else ": this host's VIPs are silenced"
    text = Text.assemble(
        ("fence ", "dim"), f"{fence['mode']}, ", (f"{fence['state']}{left}", "green" if open_ else "red")
    )
    if fence.get("proven") is False:
        text.append("; not proven", "yellow")
    return text.append(f"   takeover {fence['takeover']}", "dim")


def _members(status: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("NODE", "VIPS", "WEIGHT", "STATE"):
        table.add_column(column, justify="right" if column in ("VIPS", "WEIGHT") else "left")
    first = status["view"]["representative"]
    for member in status["view"]["members"]:
        notes = list(member["reasons"])
        notes += ["drained"] if member["drain"] else []
        notes += ["leaving"] if member["leaving"] else []
        notes += [] if member["mature"] else ["not matured yet"]
        notes += [] if member["config_agrees"] else ["its config differs"]
        state = Text("; ".join(notes) if notes else "ok", "yellow" if notes else "green")
        if member["name"] == first:
            state.append("  representative", "dim")
        name = Text(member["name"], "bold" if member["name"] == status["node"] else "")
        table.add_row(name, str(member["vips"]), str(member["weight"]), state)
    for name in status["absent"]:
        table.add_row(Text(name, "dim"), "-", "-", Text("absent", "red"))
    return table


def _vips(status: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("VIP", "ADDRESSES", "HOLDER", "SINCE", "HERE", "WHY"):
        table.add_column(column, overflow="fold")
    now = time.time()
    for vip in status["vips"]:
        holder = Text(vip["holder"] or "nobody", "" if vip["holder"] else "red")
        if vip["moving"] and vip["target"] != vip["holder"]:
            holder.append(f" → {vip['target'] or 'nobody'}", "yellow")
        mine = vip["holder"] == status["node"]
        here = Text("yes" if vip["here"] else "", "green" if mine else "red")
        if mine and not vip["here"]:
            here = Text("missing", "red")
        why = vip["note"] or vip["cause"]
        if vip["pinned_by_operator"]:
            why += " (stays)"
        witness = vip["witness"]
        if witness is not None and witness["result"] != "verified":
            why += f" ({witness['result']} on the wire, {witness['by']} says)"
        since = ago(now - vip["since"]) if vip["since"] else "-"
        table.add_row(vip["name"], " ".join(vip["addresses"]), holder, since, here, Text(why, "dim"))
    return table


_ORDERED = {"drain": "drained", "pin": "pinned to {node}", "hold": "left alone by balance"}


def _orders(orders: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("ORDERED", "IS", "BY", "UNTIL", "REASON"):
        table.add_column(column, overflow="fold")
    for order in orders:
        what = _ORDERED[order["kind"]].format(node=order["node"])
        table.add_row(order["subject"], Text(what, "yellow"), order["by"], _until(order), Text(order["reason"]))
    return table


def _until(order: Mapping[str, Any]) -> str:
    """When an order is over."""
    if order["until"] is None:
        return "resume" if order["kind"] == "drain" else "unhold"
    left_s = order["until"] - time.time()
    return f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(order['until']))}, in {ago(left_s)}"


def _checks(checks: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("CHECK HERE", "KIND", "STATE", "SINCE", "VIPS", "SAW"):
        table.add_column(column, overflow="fold")
    colours = {"passing": "green", "failing": "red", "unknown": "yellow"}
    now = time.time()
    for check in checks:
        state = Text(check["state"], colours[check["state"]])
        if check["unhealthy"] == "withdraw":
            state.append(", on one only" if check["only_one"] else ", else withdrawn", "dim")
        names = check["vips"]
        vips = " ".join(names[:4]) + (f" … {len(names)} in all" if len(names) > 4 else "")
        table.add_row(check["name"], check["kind"], state, ago(now - check["since"]), vips, Text(check["said"], "dim"))
    return table


def print_why(found: Mapping[str, Any], to: Console | None = None) -> None:
    """The whole answer of `why`."""
    out = to or console()
    since = f", for {ago(time.time() - found['since'])}" if found["since"] else ""
    out.print(
        Text.assemble(
            (found["name"], "bold"),
            f" ({' '.join(found['addresses'])}) is held by ",
            (found["holder"] or "nobody", "bold"),
            f"{since}: {found['cause']}",
        )
    )
    for order in found["orders"]:
        reason = f": {order['reason']}" if order["reason"] else ""
        what = _ORDERED[order["kind"]].format(node=order["node"])
        out.print(Text(f"It is {what}, by {order['by']}{reason} (until {_until(order)})."))
    if found["target"] != found["holder"]:
        out.print(f"It is on its way to {found['target'] or 'nobody'}.")
    if found["releasing"]:
        out.print(f"It is being let go of by {', '.join(found['releasing'])}.")
    out.print(_sharers(found))
    out.print(Text(f"If it were free now, it would go to {found['choice'] or 'nobody'}:", ""))
    for number, step in enumerate(found["steps"], 1):
        scores = ", ".join(f"{name} {score}" for name, score in step["scores"].items())
        out.print(Text(f"  {number}. {step['scorer']}: {scores} → {', '.join(step['left'])}"))
    if len([m for m in found["members"] if m["candidate"]]) == 1:
        out.print("  it is the only one that may")
    if not found["mature"]:
        out.print("Nothing is given out yet: the cluster has not matured.")
    out.print(Text(_what_balance_says(found["balance"])))
    for name, reason in found["balance"]["refused"].items():
        out.print(Text(f"  {name}: {reason}"))


def _sharers(found: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("NODE", found["count"].upper(), "OF", "WEIGHT", "LOAD", "MAY HOLD IT"):
        table.add_column(column, justify="left" if column in ("NODE", "MAY HOLD IT") else "right")
    for member in found["members"]:
        load = "-" if member["load"] is None else f"{member['load']:.2f}"
        no = member["why_not"]
        may = Text(no or "yes", "green" if no is None else "yellow" if member["candidate"] else "red")
        if member["avoided"]:
            may.append(", avoided", "dim")
        if found["apart"] and member["of_group"]:
            may.append(f", has {member['of_group']} of {found['apart']}", "dim")
        if member["name"] in found["prefer"]:
            may.append(f", preferred ({found['prefer'].index(member['name']) + 1})", "dim")
        of = f"{member['quota']}" if member["capacity"] is None else f"{member['quota']} (max {member['capacity']})"
        numbers = (str(member["held"]), of, str(member["weight"]))
        table.add_row(member["name"], *numbers, load, may)
    return table


def _what_balance_says(balance: Mapping[str, Any]) -> str:
    if balance["off"]:
        return "Balance is off."
    if balance["moves_to"] is not None:
        return (
            f"Balance moves it to {balance['moves_to']}, in {'the next' if balance['next_round'] else 'a later'} round."
        )
    return f"Balance leaves it there: {balance['stays'] or 'nobody takes it, as'}"


def print_history(found: list[Mapping[str, Any]], to: Console | None = None) -> None:
    """The whole answer of `history`."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("TIME", "FROM", "TO", "TOOK", "WHY", "VIEW"):
        table.add_column(column, justify="right" if column == "TOOK" else "left", overflow="fold")
    for move in found:
        took = "-" if move["took_ms"] is None else f"{move['took_ms']} ms"
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(move["time"]))
        table.add_row(clock, move["from"], move["to"], took, Text(move["cause"], "dim"), Text(move["view"], "dim"))
    (to or console()).print(table)


def print_lab_status(found: Mapping[str, Any]) -> None:
    """One line per node and VIP: what each daemon says, and what each kernel has."""
    out = console()
    nodes = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("NODE", "HOST", "DAEMON", "PHASE", "VIEW", "MEMBERS", "KERNEL HAS"):
        nodes.add_column(column, overflow="fold")
    for name, node in found["nodes"].items():
        status = node["status"] or {"phase": "-", "view": {"id": "-", "members": []}}
        nodes.add_row(
            name,
            node["host"],
            node["daemon"],
            status["phase"],
            str(status["view"]["id"]),
            " ".join(m["name"] for m in status["view"]["members"]),
            " ".join(node["kernel"]),
        )
    out.print(nodes)


DOCTOR_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red", "not checked": "dim"}


def print_doctor(found: Mapping[str, Any]) -> None:
    """The whole answer of `doctor`: first a line for each check, then what to do."""
    out = console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("CHECK", "RESULT", "FOUND"):
        table.add_column(column, overflow="fold")
    for check in found["checks"]:
        table.add_row(check["check"], Text(check["result"], DOCTOR_STYLES[check["result"]]), Text(check["found"]))
    out.print(table)
    for check in found["checks"]:
        if check["remedy"]:
            out.print(Text(f"\n{check['check']}:", "bold"))
            out.print(Text("\n".join(f"  {line}" for line in check["remedy"].splitlines())), soft_wrap=True)
    count = found["problems"]
    said = "no problems" if not count else "1 problem" if count == 1 else f"{count} problems"
    out.print(Text(f"\n{said}", "bold red" if count else "green"))
