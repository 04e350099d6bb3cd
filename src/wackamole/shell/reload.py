"""Another config for a running member: everything that can fail comes first, and then the rest cannot.

What differs is put in place, and nothing else is touched. VIPs are added and removed by the group, as everybody knows them or
no longer does; so a config goes round one node at a time, and each VIP is served meanwhile by who knows it.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from .. import keys
from ..config import Config, ConfigError, NodeConfig, find_self, load, settings_for
from ..core import events as ev
from ..difference import Change, difference, fixed
from ..engine.corosync.managed import ring_nodes
from ..engine.sealed import SealedEngine
from .claim import Refused
from .hooks import Hooks

if TYPE_CHECKING:
    from .daemon import Daemon

TOLD_MAX = 1000
"""Characters of a record; who asked is told all."""


class Reload:
    """Reloads for one member, one after the other."""

    def __init__(self, member: Daemon) -> None:
        self._member = member
        self._one = asyncio.Lock()

    async def reload(self, *, dry: bool = False) -> tuple[Change, ...]:
        """Take the config file as it is now; `dry`: only say what would change. Returns what changes. Raises Refused with all
        problems, and then nothing has changed."""
        async with self._one:
            try:
                changes = await self._reload(dry=dry)
            except Refused as no:
                self._member.journal.record("reload_refused", reason=str(no)[:TOLD_MAX])
                raise
            if dry:
                return changes
            self._member.journal.record("reloaded", count=len(changes), changes="; ".join(map(str, changes))[:TOLD_MAX])
            return changes

    async def on_signal(self) -> None:
        """As SIGHUP asks for it: nobody is answered, the journal has what came of it."""
        with contextlib.suppress(Refused):
            await self.reload()

    async def _reload(self, *, dry: bool) -> tuple[Change, ...]:
        member = self._member
        config, node, secrets = await asyncio.to_thread(self._read)
        changes = difference(member.config, config)
        stay = [f"{c} needs `systemctl restart wackamole`" for c in fixed(changes, node.name)]
        if stay:
            raise Refused("\n".join(f"{config.path}: {sentence}" for sentence in stay))
        if dry:
            return changes
        if member.done.is_set() or member.leaving:
            raise Refused("this node is leaving")
        hooks = None
        if config.hooks != member.config.hooks:
            hooks = Hooks(config.hooks, node.name, member.common, member.journal.put)
            try:
                await hooks.start()
            except OSError as wrong:
                raise Refused(f"the hooks cannot be started: {wrong.strerror}") from None
        if isinstance(member.engine, SealedEngine):
            member.engine.seal.change(secrets)
        await member.reconfigure(config, node, hooks)
        if member.ring is not None:
            member.ring.reconfigure(ring_nodes(config.nodes))
        member.tell(ev.ConfigReloaded(settings_for(config, node, member.share_rule(config))))
        return changes

    def _read(self) -> tuple[Config, NodeConfig, tuple[bytes, ...]]:
        """The file, and the secrets of the seal; on a thread: it takes a while."""
        member = self._member
        try:
            config = load(Path(member.config.path))
            node = find_self(config, member.node.name)
            secrets = self._secrets(config)
        except ConfigError as wrong:
            raise Refused("\n".join(wrong.problems)) from None
        except keys.KeyRefused as no:
            raise Refused(str(no)) from None
        return config, node, secrets

    def _secrets(self, config: Config) -> tuple[bytes, ...]:
        path, corosync = config.cluster.key_file, self._member.corosync
        if path is None:
            return ()
        if corosync is not None and keys.read(Path(path)) != corosync.secret:
            raise Refused(
                f"{path} has another key than before: `systemctl restart wackamole`, on all nodes, for the private Corosync"
            )
        return keys.read_all(Path(path))
