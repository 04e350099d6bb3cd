"""Running a program for what it says: without a shell, in a session of its own, with a clean environment, and with bounded
output. Whoever runs one bounds its time by cancelling it; then all that it has started ends as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_BYTES_MAX = 1024
"""What is kept; a program may write more, and must not wait because nobody reads it."""


class NotStarted(Exception):
    """It cannot be run; the sentence says why."""


async def run(
    command: tuple[str, ...], environment: Mapping[str, str], *, errors: int = asyncio.subprocess.STDOUT
) -> tuple[int, bytes]:
    """Its exit code (negative: the signal that ended it) and the beginning of what it wrote; `errors`: where its standard
    error goes. Raises NotStarted."""
    # A pipe of our own: asyncio waits for the end of its pipes too, and whoever escaped from the session may keep one open.
    reading, writing = os.pipe()
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(OUTPUT_BYTES_MAX)
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0))
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writing,
            stderr=errors,
            env={"PATH": PATH, "LC_ALL": "C", **environment},
            cwd="/",
            start_new_session=True,
        )
    except OSError as no:
        pipe.close()
        raise NotStarted(f"{command[0]} cannot be run: {no.strerror}") from None
    finally:
        os.close(writing)
    written = bytearray()
    listening = loop.create_task(_listen(reader, written))
    try:
        code = await process.wait()
        await listening
    finally:
        listening.cancel()
        pipe.close()
        with contextlib.suppress(ProcessLookupError):  # also what it has started
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return code, bytes(written)


async def _listen(reader: asyncio.StreamReader, written: bytearray) -> None:
    while part := await reader.read(OUTPUT_BYTES_MAX):
        written += part[: OUTPUT_BYTES_MAX - len(written)]


def module_paths() -> dict[str, str]:
    """What a Python of ours needs in its environment to find the modules that this one finds."""
    if "PYTHONPATH" not in os.environ:
        return {}
    entries = os.environ["PYTHONPATH"].split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in entries)}


def first_line(written: bytes, characters_max: int) -> str:
    """What people are shown of it."""
    text = written.decode(errors="replace")
    found = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "".join(c if c.isprintable() else "?" for c in found[:characters_max])
