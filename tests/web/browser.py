"""A real browser without a window: Chromium, spoken to through two pipes (its DevTools protocol)."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

SECONDS_MAX = 60.0
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "needs Chromium: apt-get install chromium"


class Browser:
    """One page, of this size. `requests`: the addresses of everything that it loaded; `faults`: what it complained of."""

    def __init__(self, folder: Path, width: int = 1400, height: int = 1000) -> None:
        assert CHROMIUM is not None, MISSING
        theirs_in, ours_out = (_high(fd) for fd in os.pipe())
        ours_in, theirs_out = (_high(fd) for fd in os.pipe())

        def pipes() -> None:
            os.dup2(theirs_in, 3)
            os.dup2(theirs_out, 4)

        options = (
            "--headless=new --remote-debugging-pipe --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
        )
        self._process = subprocess.Popen(
            [CHROMIUM, *options.split(), "--disable-background-networking", f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=pipes,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out, self._rest, self._number = ours_in, ours_out, b"", 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.faults: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, wrong: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **params: Any) -> Any:
        """One command of the protocol, and its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            said = self._next(deadline)
            if said.get("id") == self._number:
                assert "error" not in said, said["error"]
                return said["result"]

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = deadline - time.monotonic()
            assert left > 0, "the browser does not answer"
            assert select.select([self._in], [], [], left)[0], "the browser does not answer"
            more = os.read(self._in, 1 << 16)
            assert more, "the browser has ended"
            self._rest += more
        text, self._rest = self._rest.split(b"\0", 1)
        said: dict[str, Any] = json.loads(text)
        match said.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])
            case "Runtime.exceptionThrown":
                self.faults.append(json.dumps(said["params"]["exceptionDetails"]))
            case "Log.entryAdded" if said["params"]["entry"]["level"] == "error":
                self.faults.append(said["params"]["entry"]["text"])
        return said

    def size(self, width: int, height: int) -> None:
        """Give the page another size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name: str) -> None:
        """`light` or `dark`, as a reader's system would say."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def open(self, url: str) -> None:
        """Go there, and wait until the document is read."""
        self.call("Page.navigate", url=url)
        self.until(
            f"location.href === new URL({json.dumps(url)}).href && document.readyState !== 'loading'", "it is there"
        )

    def value(self, expression: str) -> Any:
        """What JavaScript makes of it."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str, story: str) -> Any:
        """Wait until it is true in the page: whatever changes there is looked at between two pictures."""
        deadline = time.monotonic() + SECONDS_MAX
        while not (found := self.value(expression)):
            assert time.monotonic() < deadline, f"{story}; there is:\n{self.value('document.body.innerText')}"
            self.value("new Promise((done) => setTimeout(done, 50))")
        return found

    def picture(self, file: Path) -> None:
        """A PNG of what is to be seen."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


def _high(fd: int) -> int:
    """The same pipe by a number that is not in the way of 3 and 4."""
    found = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return found
