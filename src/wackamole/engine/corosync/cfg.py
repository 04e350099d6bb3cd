"""Having Corosync read its file again, through libcfg (corosync/cfg.h)."""

from __future__ import annotations

import ctypes as c

from .cpg import OK, CpgError, loaded


def reload_config() -> None:
    """Have every Corosync of the ring read its own file again: who finds nothing new there changes nothing. Blocks until this
    one has. Raises CpgError, or LibraryMissing."""
    lib = loaded("libcfg.so.7", "libcfg7")
    handle = c.c_uint64(0)
    code = lib.corosync_cfg_initialize(c.byref(handle), None)
    if code != OK:
        raise CpgError("corosync_cfg_initialize", code)
    lib.corosync_cfg_reload_config.argtypes = [c.c_uint64]
    lib.corosync_cfg_finalize.argtypes = [c.c_uint64]
    try:
        code = lib.corosync_cfg_reload_config(handle)
        if code != OK:
            raise CpgError("corosync_cfg_reload_config", code)
    finally:
        lib.corosync_cfg_finalize(handle)
