"""The program `wackamole`. Loading the command line's grammar takes longer than asking and showing, so what is typed in a
hurry, in exactly these words, does without it (docs/decisions/0026-a-short-way-to-status.md)."""

from __future__ import annotations

import json
import os
import sys

SOCKET = "/run/wackamole/control.sock"
SOCKET_VARIABLE = "WACKAMOLE_SOCKET"


def show_status(socket: str, *, as_json: bool) -> int:
    """Print who holds what, as the daemon on this socket says it; the exit code."""
    from .client import NotReachable, Refused, ask

    try:
        found = ask(socket, "status")
    except (NotReachable, Refused) as no:
        print(f"wackamole: {no}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        from .render import print_status

        print_status(found)
    return 0


def _answer() -> int:
    words = sys.argv[1:]
    if words in (["status"], ["status", "--json"]):
        return show_status(os.environ.get(SOCKET_VARIABLE) or SOCKET, as_json="--json" in words)
    from .cli import app

    app()
    return 0


def main() -> None:
    """Whatever was typed; ends with the exit code."""
    try:
        code = _answer()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
