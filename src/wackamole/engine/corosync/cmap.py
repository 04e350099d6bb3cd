"""Reading Corosync's own database through libcmap: what it really runs with, not what its file says."""

from __future__ import annotations

import ctypes as c

from .cpg import OK, LibraryMissing


def read_numbers(keys: tuple[str, ...]) -> dict[str, int]:
    """The unsigned 32-bit values of these keys, those that exist; {} when Corosync does not answer."""
    try:
        lib = c.CDLL("libcmap.so.4")
    except OSError as wrong:
        raise LibraryMissing(f"libcmap.so.4 cannot be loaded ({wrong}); install the package libcmap4") from wrong
    handle = c.c_uint64(0)
    if lib.cmap_initialize(c.byref(handle)) != OK:
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
