"""What a visit of the page costs: seconds from navigation to the first click that works, bytes, requests, memory.

A backend of its own, whose model is loaded beforehand, and the page beside it, once without kernels that wait (cold)
and once with one (preheated). Each visit is by Chromium with an empty cache. A click works when the kernel has
answered it: the button of the lessons is pressed as soon as it is there, and the lessons are waited for. Afterwards
nothing is done for a minute, in which an idle page sends and gets nothing.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from playwright.sync_api import Browser, CDPSession, sync_playwright

from benchmarks import setting
from benchmarks.serving import PATIENCE_SECONDS, backend
from editlab.serving.ports import free_port
from editlab.serving.settings import Settings

KERNEL = "editlab.page.kernel"
STILL_SECONDS = 2.0  # a kernel that used no processor for so long waits for its visitor
SETTLE_SECONDS = 10.0  # after a visit's last click, until nothing is on its way any more
IDLE_SECONDS = 60.0
BINARY = 2  # opcode of a web socket's frame, which Chromium's protocol tells in base 64
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"


@dataclass(frozen=True)
class Served:
    """The page that is served, and its kernels."""

    process: subprocess.Popen[bytes]
    address: str

    def kernels(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if child.is_running() and KERNEL in " ".join(child.cmdline())]

    def wait_until_still(self, kernels: int) -> None:
        """Wait until there are so many kernels and they have nothing left to do."""
        end, used = time.monotonic() + PATIENCE_SECONDS, -1.0
        while time.monotonic() < end:
            found = self.kernels()
            now = sum(sum(kernel.cpu_times()[:2]) for kernel in found)
            if len(found) == kernels and now == used:
                return
            used = now
            time.sleep(STILL_SECONDS)
        raise TimeoutError(f"there are {len(self.kernels())} kernels, {kernels} were waited for")


@contextmanager
def page_for(backend_address: str, preheat: int) -> Iterator[Served]:
    """The page alone, for a backend, until the block ends."""
    port = free_port()
    settings = Settings(backend=backend_address, page={"port": port, "preheat": preheat})  # type: ignore[arg-type]
    process = subprocess.Popen(
        [sys.executable, "-m", "editlab.cli.supervised", "page"], env={**os.environ, **settings.to_environment()},
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    served = Served(process, f"http://127.0.0.1:{port}/")
    try:
        _wait(lambda: any(c.laddr.port == port for c in psutil.Process(process.pid).net_connections("tcp")))
        served.wait_until_still(preheat)
        yield served
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the page was not served in time")
        time.sleep(0.1)


class Traffic:
    """What went over the wire to a page: bytes of answers as they were sent, and the frames of its web socket."""

    def __init__(self, session: CDPSession) -> None:
        self.requests = self.bytes = self.frames = self.socket_bytes = 0
        session.send("Network.enable")
        session.on("Network.loadingFinished", self._finished)
        session.on("Network.webSocketFrameReceived", self._frame)

    def _finished(self, event: dict[str, Any]) -> None:
        self.requests += 1
        self.bytes += int(event["encodedDataLength"])

    def _frame(self, event: dict[str, Any]) -> None:
        self.frames += 1
        payload = event["response"]["payloadData"]
        binary = event["response"]["opcode"] == BINARY
        self.socket_bytes += len(base64.b64decode(payload)) if binary else len(payload.encode())


def visit(browser: Browser, served: Served) -> dict[str, float]:
    """One visit with an empty cache: seconds since navigation, traffic, and the memory of its kernel."""
    before = {kernel.pid for kernel in served.kernels()}
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE_SECONDS)
    traffic = Traffic(context.new_cdp_session(page))
    start = time.perf_counter()
    page.goto(served.address, wait_until="commit")
    page.locator(".el-title").wait_for()
    seconds = {"title": time.perf_counter() - start}
    page.get_by_role("button", name="Guided tour", exact=True).click()
    seconds["clicked"] = time.perf_counter() - start
    page.locator(".el-lessons").wait_for()
    seconds["first_working_click"] = time.perf_counter() - start
    seconds["first_paint"] = page.evaluate(PAINTED) / 1000
    page.wait_for_timeout(1000)  # what is still on its way
    told = {"requests": traffic.requests, "bytes": traffic.bytes}
    told |= {"socket_frames": traffic.frames, "socket_bytes": traffic.socket_bytes}
    page.wait_for_timeout(1000 * SETTLE_SECONDS)
    before_idle = traffic.requests, traffic.frames
    page.wait_for_timeout(1000 * IDLE_SECONDS)
    told |= {"idle_requests": traffic.requests - before_idle[0], "idle_frames": traffic.frames - before_idle[1]}
    # Of a preheated visit it is the one that waited; the one that is started in its place comes later.
    kernel = min(served.kernels(), key=lambda each: (each.pid not in before, each.create_time()))
    memory = kernel.memory_full_info()
    page.close(run_before_unload=True)  # it tells its kernel to end, which takes a moment
    time.sleep(1)
    context.close()
    return {**seconds, **told, "kernel_rss": memory.rss, "kernel_uss": memory.uss}


def visits(browser: Browser, backend_address: str, preheat: int, count: int) -> dict[str, float]:
    """Medians over some visits, one after the other."""
    with page_for(backend_address, preheat) as served:
        found = []
        for _ in range(count):
            served.wait_until_still(preheat)
            found.append(visit(browser, served))
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def main(
    model: Annotated[str, typer.Option(help="a model's name or folder")] = "smollm2-135m",
    count: Annotated[int, typer.Option("--visits", help="visits of each kind, of which the median is told")] = 3,
    threads: Annotated[int, typer.Option(help="torch's threads, in the backend")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Visit the page cold and preheated."""
    names = ("chromium", "chromium-browser", "google-chrome")
    results: dict[str, Any] = {"model": model, "visits": count, "threads": threads}
    with (
        tempfile.TemporaryDirectory() as folder,
        backend(model, Path(folder) / "sessions.sqlite", threads) as running,
        sync_playwright() as tool,
    ):
        executable = next((path for name in names if (path := shutil.which(name))), None)
        browser = tool.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for kind, preheat in (("cold", 0), ("preheated", 1)):
            found = visits(browser, running.lab.url, preheat, count)
            results |= {f"{kind}_{name}": value for name, value in found.items()}
        browser.close()
    setting.tell(results, as_json)


if __name__ == "__main__":
    typer.run(main)
