"""Reading Corosync's own database through libcmap: what it really runs with, not what its file says."""

from __future__ import annotations

import ctypes as c

from .cpg import OK, loaded

CONFIGURATION, STATISTICS = 0, 1
"""Its maps: CMAP_MAP_ICMAP and CMAP_MAP_STATS (corosync/cmap.h)."""


def read_numbers(keys: tuple[str, ...], of: int = CONFIGURATION) -> dict[str, int]:
    """The unsigned 32-bit values of these keys, those that exist; {} when Corosync does not answer."""
    lib = loaded("libcmap.so.4", "libcmap4")
    handle = c.c_uint64(0)
    if lib.cmap_initialize_map(c.byref(handle), c.c_int(of)) != OK:
        return {}
    try:
        found: dict[str, int] = {}
        for key in keys:
            value = c.c_uint32(0)
            if lib.cmap_get_uint32(handle, key.encode(), c.byref(value)) == OK:
                found[key] = value.value
        return found
    finally:
        lib.cmap_finalize(handle)
