"""A real embedded store, the board served from it on loopback, and a headless Chromium to look at it."""

import asyncio
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from board.app import routes
from fieldlab.model import Record, RecordKind, SignalTable
from fieldlab.model.record import KIND_OF_ROW, Row
from ingest.stores import load_kind
from ingest.stores.base import Reader, Store, StoreContext

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


class Shop:
    """A store, its reader, and what the agent would say."""

    def __init__(self, folder: Path) -> None:
        self.signals = SignalTable()
        kind = load_kind("embedded")
        store, reader = kind.create(
            kind.config(), StoreContext(name="embedded", agent="line-3", data=folder), self.signals
        )
        assert reader is not None
        self.store: Store = store
        self.reader: Reader = reader
        self.status: dict[str, Any] = {}
        self._position = 0

    def close(self) -> None:
        """Close the store, also under a reading: DuckDB refuses while one runs, and none starts after the first try."""
        until = time.monotonic() + 20
        while True:
            try:
                self.store.close()
            except duckdb.Error:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)  # between two tries
            else:
                return

    def write(self, *rows: Row) -> None:
        """Store rows, as a forwarder would."""
        by_kind: dict[RecordKind, list[Row]] = {}
        for row in rows:
            by_kind.setdefault(KIND_OF_ROW[type(row)], []).append(row)
        self._write([(kind, {"rows": tuple(some)}) for kind, some in by_kind.items()])

    def write_batch(self, batch: Any) -> None:
        """Store readings."""
        self._write([(RecordKind.READINGS, {"batch": batch})])

    def _write(self, what: list[tuple[RecordKind, dict[str, Any]]]) -> None:
        records = []
        for kind, more in what:
            self._position += 1
            records.append(Record(position=self._position, kind=kind, time=time.time_ns(), **more))
        assert not self.store.write(records)


class Served:
    """The board on a loopback port; can be stopped, and started again on the same port."""

    def __init__(
        self, reader: Reader, status: Callable[[], Mapping[str, Any]], beside: Sequence[BaseRoute] = ()
    ) -> None:
        self._parts = (reader, status)
        self._beside = list(beside)  # what else the agent answers
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self._closing = threading.Event()
        app = Starlette(routes=[*self._beside, *routes(*self._parts, closing=self._closing.is_set)])
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve(sockets=[listener])))
        self._thread.start()

    def stop(self) -> None:
        """Ends by itself within a second or so: the event streams see `closing`."""
        self._closing.set()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "an open event stream keeps the server waiting"


@contextmanager
def _shop(folder: Path) -> Iterator[Shop]:
    shop = Shop(folder)
    try:
        yield shop
    finally:
        shop.close()


@contextmanager
def _board(
    reader: Reader, status: Callable[[], Mapping[str, Any]], beside: Sequence[BaseRoute] = ()
) -> Iterator[Served]:
    served = Served(reader, status, beside)
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="session")
def open_shop() -> Any:
    """`with open_shop(folder) as shop`."""
    return _shop


@pytest.fixture(scope="session")
def open_board() -> Any:
    """`with open_board(reader, status) as served`."""
    return _board


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with _shop(tmp_path) as shop:
        yield shop


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Serve the board from a reader: `serve(shop.reader, lambda: shop.status)`."""
    with ExitStack() as stack:
        yield lambda reader, status, beside=(): stack.enter_context(_board(reader, status, beside))


@pytest.fixture(scope="module")  # Playwright keeps an event loop running: no test of asyncio may come after it
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    found = shutil.which("chromium")
    if found is None:
        message = "chromium is not installed: needs Debian package chromium"
        if os.environ.get("FIELDLAB_REQUIRE_SERVICES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    expect.set_options(timeout=30_000)  # a slow machine is not a wrong page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_page(browser: Browser) -> Any:
    """`with open_page(url) as page`; what its console complains about is in `page.complaints`, and fails at the end."""

    @contextmanager
    def open_one(
        url: str, *, width: int = 1600, height: int = 1000, scheme: Any = "light", locale: str = "en-GB"
    ) -> Iterator[Page]:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, locale=locale, reduced_motion="reduce"
        )
        context.set_default_timeout(30_000)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.complaints = complaints  # type: ignore[attr-defined]  # ours, for the test and for the end of it
        page.goto(url)
        yield page
        context.close()
        assert complaints == []

    return open_one


@pytest.fixture
def look(open_page: Any) -> Iterator[Callable[..., Page]]:
    """Open a page that ends with the test: `look(url, width=390)`."""
    with ExitStack() as stack:
        yield lambda url, **more: stack.enter_context(open_page(url, **more))
