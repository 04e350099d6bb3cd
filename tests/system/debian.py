"""A Debian of its own in a directory: programs run in it in namespaces, and it can be booted, with its systemd as the first process.

Nothing of this host is in it but the network, and that only while packages are installed.
"""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ENTER = str(HERE / "enter.sh")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root", "TERM": "dumb"}
UNSHARE = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--fork", "--kill-child")
CHANGES_BY_ITSELF = ("var/log", "var/cache", "var/lib/apt", "var/lib/dpkg", "run/systemd", "proc", "sys", "dev", "tmp")
SECONDS_MAX = 600


class Failed(AssertionError):
    """A program that should not have failed did; with what it said."""


class Tree:
    """A Debian in a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def made(path: Path, *, release: str, packages: tuple[str, ...]) -> Tree:
        """Make it, from where this host gets its own packages, unless it is there already."""
        tree = Tree(path)
        stamp = path.with_suffix(".made")
        if stamp.exists() and stamp.read_text() == repr(packages):
            return tree
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        sites = _call("apt-get", "indextargets", "--format", "$(LABEL) $(CODENAME) $(SITE)", "Created-By: Packages")
        mirrors = sorted(line.split()[-1] for line in sites.splitlines() if line.startswith(f"Debian {release} "))
        _call("debootstrap", "--variant=minbase", release, str(path), mirrors[0])
        # nothing is started by an installation: invoke-rc.d(8)
        policy = path / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        for name in ("etc/resolv.conf", "etc/hosts"):
            shutil.copy(f"/{name}", path / name)
        tree.run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages)
        stamp.write_text(repr(packages))
        return tree

    def copy(self, path: Path) -> Tree:
        """Another one, as this one is now."""
        _call("cp", "-a", "--reflink=auto", str(self.path), str(path))
        return Tree(path)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program in it; what it printed, to both. Raises Failed."""
        return _call(*UNSHARE, "sh", ENTER, str(self.path), *command, check=check)

    def snapshot(self) -> dict[str, str]:
        """Every file and what is in it; without what changes by itself, such as logs and the package database."""
        found = {}
        for folder, folders, files in os.walk(self.path):
            here = os.path.relpath(folder, self.path)
            folders[:] = [f for f in folders if os.path.normpath(f"{here}/{f}") not in CHANGES_BY_ITSELF]
            for name in [*folders, *files]:
                path = Path(folder, name)
                shown = os.path.normpath(f"{here}/{name}")
                if here == "etc" and name.endswith("-"):
                    continue  # the copy that groupadd keeps of the file before
                found[shown] = _content(path)
        return found

    @contextmanager
    def booted(self, host: str, network: str) -> Iterator[Host]:
        """Its systemd as the first process of a host of that name, in a network namespace."""
        (self.path / "etc/hostname").write_text(f"{host}\n")
        (self.path / "etc/machine-id").write_text(hashlib.md5(str(self.path).encode()).hexdigest() + "\n")
        group = _own_group(f"wackamole-system-{os.getpid()}-{host}")
        log = self.path.with_suffix(f".{host}.log").open("wb")
        try:
            child = subprocess.Popen(
                [
                    *("sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group)),
                    *("ip", "netns", "exec", network, *UNSHARE),
                    *("sh", "-c", 'hostname "$0" && exec sh "$@"', host, ENTER, str(self.path)),
                    *("/lib/systemd/systemd", "--unit=multi-user.target"),
                ],
                env={**ENVIRONMENT, "BOOT": "yes", "container": "wackamole"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                booted = Host(child)
                booted.until(lambda: booted.state() in ("running", "degraded"), "it is up")
                yield booted
            finally:
                child.kill()  # and with it, by --kill-child and the pid namespace, all of the host
                child.wait()
        finally:
            log.close()
            _remove_group(group)


class Host:
    """A booted one."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def _first(self) -> int:
        children = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children").read_text().split()
        return int(children[0])

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program on it; what it printed, to both. Raises Failed."""
        try:
            first = str(self._first())
        except (OSError, IndexError):
            if check:
                raise Failed("the host is down") from None
            return ""
        enter = (
            "nsenter",
            "--target",
            first,
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
            "--root",
            "--wd",
        )
        return _call(*enter, *command, check=check)

    def state(self) -> str:
        """What systemd says of the whole host: "running", "degraded" (a unit has failed), …"""
        return self.run("systemctl", "is-system-running", check=False).strip()

    def down(self) -> bool:
        """Whether it was switched off."""
        return self._child.poll() is not None

    def until(self, fact: Callable[[], bool], story: str, within_s: float = 60) -> None:
        """Wait for a fact. Raises Failed with the journal's end."""
        deadline = time.monotonic() + within_s
        while not fact():
            if time.monotonic() > deadline:
                raise Failed(
                    f"not within {within_s:g} s: {story}\n"
                    + self.run("journalctl", "--no-pager", "-n", "60", check=False)
                )


def _call(*command: str, check: bool = True) -> str:
    done = subprocess.run(
        command,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    if check and done.returncode:
        raise Failed(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    if path.is_file():
        return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return "/"


def _own_group(name: str) -> Path:
    """A control group for a host."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    group = next(Path(m[1]) for m in mounts if m[2] == "cgroup2") / name
    group.mkdir()
    return group


def _remove_group(group: Path) -> None:
    """When the last process in it is gone; whatever is left is killed."""
    (group / "cgroup.kill").write_text("1")
    with (group / "cgroup.events").open() as events:
        changed = select.poll()
        changed.register(events, select.POLLPRI)
        while "populated 1" in events.read():
            changed.poll(1000)
            events.seek(0)
    for folder, _, _ in os.walk(group, topdown=False):
        Path(folder).rmdir()
