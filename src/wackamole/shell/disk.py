"""What a member must not forget over a restart: the electorates (core/electorate.py), and operators' orders
(core/standing.py). Small files of JSON, written whole, and to the disk before anybody hears that they are there."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..core.model import Electorate
from ..core.standing import Register, join
from ..wire import WireError, orders_from, plain_orders

FILE_BYTES_MAX = 1 << 20


class DiskRefused(Exception):
    """The file cannot be used; the sentence says why and what to do."""


def read(path: Path, cluster: str) -> tuple[Electorate, ...]:
    """What is remembered for this cluster; () if nothing ever was."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(FILE_BYTES_MAX))
        if found["cluster"] != cluster:
            return ()
        electorates = tuple(
            Electorate(_number(e["epoch"]), tuple(sorted((str(k), _number(v)) for k, v in e["votes"].items())))
            for e in found["electorates"]
        )
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise DiskRefused(
            f"{path} cannot be read ({wrong}): it says who votes on a majority; restore it, or, when no member of this"
            " cluster runs elsewhere, remove it"
        ) from None
    return tuple(sorted(electorates))


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def write(path: Path, cluster: str, electorates: tuple[Electorate, ...]) -> None:
    """Replace what is remembered; it is on the disk when this returns. Raises OSError."""
    _replace(
        path, {"cluster": cluster, "electorates": [{"epoch": e.epoch, "votes": dict(e.votes)} for e in electorates]}
    )


def read_orders(path: Path, cluster: str) -> Register:
    """The orders that are kept for this cluster; () if there never were any. Raises DiskRefused."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(FILE_BYTES_MAX))
        return join((), orders_from(found["orders"])) if found["cluster"] == cluster else ()
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, WireError) as wrong:
        raise DiskRefused(
            f"{path} cannot be read ({wrong}); what other members know of operators' orders counts"
        ) from None


def write_orders(path: Path, cluster: str, orders: Register) -> None:
    """Replace what is kept; it is on the disk when this returns. Raises OSError."""
    _replace(path, {"cluster": cluster, "orders": plain_orders(orders)})


def _replace(path: Path, content: object) -> None:
    text = json.dumps(content)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(path.name + ".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
