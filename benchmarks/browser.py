"""Control of headless Chromium over a pipe with the DevTools protocol. The tests of the page use it too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from itertools import count
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--remote-debugging-pipe",
    "--mute-audio",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--autoplay-policy=no-user-gesture-required",
)


class Browser:
    """One browser tab. `events` are the protocol's events since the page was opened."""

    def __init__(self, profile: Path) -> None:
        if not CHROMIUM:
            raise RuntimeError("Chromium is not installed; run: apt-get install chromium")
        self.ids, self.rest = count(1), b""
        self.events: list[dict[str, Any]] = []
        self.session: dict[str, str] = {}
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()

        def as_three_and_four() -> None:
            a, b = os.dup(to_browser), os.dup(from_browser)
            for found, wanted in ((a, 3), (b, 4)):
                os.dup2(found, wanted)
                os.set_inheritable(wanted, True)  # dup2 does not set it if both are the same

        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            command, preexec_fn=as_three_and_four, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.session = {"sessionId": session}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one command of the protocol."""
        number = next(self.ids)
        message = {"id": number, "method": method, "params": params} | self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            part = os.read(self.read, 1 << 20)
            assert part, "the browser ended"
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\0")
        return dict(json.loads(line))

    def open(self, path: Path) -> None:
        """Open the HTML file `path` and wait until it is loaded."""
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        self.until("document.readyState === 'complete'")

    def eval(self, script: str) -> Any:
        """The value of the JavaScript expression `script`."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str, seconds: float = 60.0) -> Any:
        """Wait until `script` is true and return its value. Raises AssertionError after `seconds`."""
        end = time.monotonic() + seconds
        while not (value := self.eval(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)
        return value

    def close(self) -> None:
        """End the browser."""
        self.send("Browser.close")
        self.process.wait(10)
        os.close(self.read)
        os.close(self.write)
