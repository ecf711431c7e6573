"""Chromium without a window, steered over two pipes: what a page does and how it looks."""

from __future__ import annotations

import base64
import functools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE_SECONDS = 60.0


@functools.cache
def binary() -> str | None:
    """The first Chromium that starts; ``CHROMIUM`` in the environment names one."""
    names = filter(None, (os.environ.get("CHROMIUM"), *NAMES))
    return next(filter(_starts, filter(None, map(shutil.which, names))), None)


def _starts(path: str) -> bool:
    # Ubuntu has a script of that name that only says where to get the browser.
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@dataclass
class Look:
    """What came of showing a page.

    Attributes
    ----------
    said : list of str
        Errors and warnings of the console, exceptions, violated policies.
    asked : list of str
        Every URL that was asked for, the page's own and those that hold their data left out.
    width, height : int
        Of what is to be shown, in CSS pixels; wider than the window where it has to be moved sideways.
    sticking_out : list of str
        Elements that reach beyond the window's right edge and cannot be moved there.
    png : bytes
    """

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    width: int = 0
    height: int = 0
    sticking_out: list[str] = field(default_factory=list)
    png: bytes = b""


_STICKING_OUT = """
[...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  let parent = element;
  while ((parent = parent.parentElement)) {
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(parent).overflowX)) return false;
  }
  return box.width > 0 && (box.right > WIDTH + 0.5 || box.left < -0.5);
}).map(element => element.tagName + '.' + element.getAttribute('class'))
"""


# The browser's pipes are descriptors 3 and 4.
_EXEC = """
import os, sys
for at, given in enumerate(sys.argv[1:3]):
    os.dup2(int(given), 60 + at)
for at in range(2):
    os.dup2(60 + at, 3 + at)
    os.close(60 + at)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One browser, one page at a time."""

    def __init__(self, path: str, profile: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        words = [
            *(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
            *("--no-first-run", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        ]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _EXEC, str(to_read), str(to_write), *words],
                pass_fds=(to_read, to_write),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(to_read)
            os.close(to_write)
        self._number = 0
        self._rest = b""
        self._events: list[dict[str, Any]] = []

    def close(self) -> None:
        os.close(self._write)
        self._process.kill()
        self._process.wait()
        os.close(self._read)

    def show(self, url: str, width: int, height: int, dark: bool = False) -> Look:
        """Load a page in a window of that size."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", session)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", session, features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", session, **size)
        self._events = []
        self._call("Page.navigate", session, url=url)
        self._wait("Page.loadEventFired", session)
        look = Look()
        look.width, look.height = self._value(
            session, "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        )
        look.sticking_out = self._value(session, _STICKING_OUT.replace("WIDTH", str(width)))
        area = {"x": 0, "y": 0, "width": look.width, "height": look.height, "scale": 1}
        shot = self._call("Page.captureScreenshot", session, clip=area, captureBeyondViewport=True)
        look.png = base64.b64decode(shot["data"])
        for event in self._events:
            self._note(look, url, event["method"], event["params"])
        self._call("Target.closeTarget", targetId=target)
        return look

    def _note(self, look: Look, url: str, method: str, what: dict[str, Any]) -> None:
        if method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            look.said.append(what["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            look.said.append(what["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled":
            look.said.append(json.dumps(what["args"]))
        elif method == "Network.requestWillBeSent":
            asked = what["request"]["url"]
            if asked != url and not asked.startswith("data:"):
                look.asked.append(asked)

    def _value(self, session: str, expression: str) -> Any:
        return self._call("Runtime.evaluate", session, expression=expression, returnByValue=True)["result"]["value"]

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self._events.append(answer)

    def _wait(self, method: str, session: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(event["method"] == method and event.get("sessionId") == session for event in self._events):
            self._events.append(self._next(deadline))

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, f"the browser ended with {self._process.wait()}"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))
