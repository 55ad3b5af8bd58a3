"""`python -m benchmarks.board`: a store with many signals and charts, the board on it, and a headless Chromium.

Prints JSON: for 200 and 1,000 signals the first paint, when the machines are there, and the frames of eight seconds in
which the page scrolls and the store changes each second. No peer: the bar is what people notice (a second; 60 frames).
"""

import asyncio
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from playwright.sync_api import sync_playwright
from starlette.applications import Starlette

from board.app import routes
from fieldlab.model import Batch, ChartPoint, Place, Record, RecordKind, SignalInfo, SignalKey, SignalTable
from ingest.stores import load_kind
from ingest.stores.base import StoreContext

SECOND = 10**9
PER_MACHINE = 40
CHARTS = 50
SECONDS = 8
FRAMES = """async seconds => {
  const times = [];
  const until = performance.now() + seconds * 1000;
  await new Promise(done => {
    const frame = now => {
      times.push(now);
      window.scrollTo(0, (now / 2) % Math.max(1, document.documentElement.scrollHeight - innerHeight));
      if (now < until) requestAnimationFrame(frame); else done();
    };
    requestAnimationFrame(frame);
  });
  return times.slice(1).map((t, i) => t - times[i]);
}"""


class Hall:
    """A store with `count` signals on machines of forty, and fifty control charts."""

    def __init__(self, folder: Path, count: int) -> None:
        self._signals = SignalTable()
        kind = load_kind("embedded")
        context = StoreContext(name="embedded", agent="bench", data=folder)
        self.store, self.reader = kind.create(kind.config(), context, self._signals)
        self._position = 0
        machines = [Place("site", "area", f"{n // 5}", f"machine-{n:02d}") for n in range(max(1, count // PER_MACHINE))]
        self._keys = [SignalKey(machines[n % len(machines)], f"signal_{n:04d}") for n in range(count)]
        self._index = np.array([self._signals.index(key) for key in self._keys], np.uint32)
        self._start = time.time_ns() - 400 * SECOND
        infos = tuple(SignalInfo(key=key, unit="mm") for key in self._keys)
        self._write(RecordKind.SIGNAL, rows=infos)
        for n in range(400):
            self.step(n)

    def step(self, n: int) -> None:
        """One second: a reading of each signal and a point of each chart."""
        at = self._start + n * SECOND
        values = 20 + np.sin(n / 10 + np.arange(len(self._keys)))
        times = np.full(len(values), at, np.int64)
        status = np.zeros(len(values), np.uint32)
        self._write(RecordKind.READINGS, batch=Batch(self._index, times, values, status))
        limits: dict[str, Any] = {"center": 20.0, "ucl": 20.9, "lcl": 19.1, "limits_version": 1}
        points = (
            ChartPoint(time=at, place=k.place, signal=k.name, chart="size", statistic=float(v), **limits)
            for k, v in zip(self._keys[:CHARTS], values, strict=False)
        )
        self._write(RecordKind.CHART, rows=tuple(points))

    def _write(self, kind: RecordKind, **what: Any) -> None:
        self._position += 1
        refused = self.store.write([Record(position=self._position, kind=kind, time=time.time_ns(), **what)])
        assert not refused


def serve(hall: Hall) -> tuple[str, uvicorn.Server, threading.Event, threading.Thread]:
    """The board on a free loopback port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    closing = threading.Event()
    assert hall.reader is not None
    app = Starlette(routes=routes(hall.reader, dict, closing.is_set))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/", server, closing, thread


def measure(count: int) -> dict[str, Any]:
    """One hall: times in seconds, frames in milliseconds."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        hall = Hall(Path(folder), count)
        url, server, closing, thread = serve(hall)
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(url)
        page.wait_for_selector(".machine")
        there = page.evaluate("performance.now()") / 1000
        first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
        going = threading.Event()

        def change() -> None:
            n = 400
            while not going.wait(1.0):
                hall.step(n)
                n += 1

        changes = threading.Thread(target=change)
        changes.start()
        frames = np.array(page.evaluate(FRAMES, SECONDS))
        going.set()
        changes.join()
        browser.close()
        closing.set()
        server.should_exit = True
        thread.join()
        hall.store.close()
    return {
        "signals": count,
        "charts": min(count, CHARTS),
        "first_paint_s": round(first, 3),
        "machines_shown_s": round(there, 3),
        "frames_a_second": round(1000 * len(frames) / float(frames.sum()), 1),
        "frame_ms": {f"p{p}": round(float(np.percentile(frames, p)), 1) for p in (50, 95, 99)}
        | {"max": round(float(frames.max()), 1)},
    }


if __name__ == "__main__":
    found = [measure(count) for count in (200, 1000)]
    print(json.dumps({"load": os.getloadavg()[0], "halls": found}, indent=2))
