"""`python -m wackamole.shell.hook_function package.module:function`: calls it with what happened, which is on the standard input.

A process of its own, so that nothing that the function does is done to the daemon.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def main() -> None:
    """Import it and call it with one dict; an exception's last line is what the history has of it."""
    module, _, name = sys.argv[1].partition(":")
    said = json.load(sys.stdin)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        found(said)
    except Exception as wrong:
        sys.exit(f"{type(wrong).__name__}: {wrong}")


if __name__ == "__main__":
    main()
