"""Who is answered, and with which headers; and what is read how often."""

import gzip
import http.client
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from board.guard import is_allowed


def get(port: int, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


LOCAL = ["localhost", "LOCALHOST:8321", "127.0.0.1", "127.0.0.1:8321", "127.8.8.8", "[::1]:8321", "[::1]", "::1"]
FOREIGN = ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "0.0.0.0", "[::2]:80"]


@pytest.mark.parametrize("host", LOCAL)
def test_loopback_names_are_answered(host: str) -> None:
    assert is_allowed(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_not(host: str) -> None:
    assert not is_allowed(host)


def test_a_configured_name_is_answered() -> None:
    assert is_allowed("Hall.example:8321", ["hall.example"])


@given(st.text())
def test_any_host_header_has_an_answer(host: str) -> None:
    is_allowed(host)


def test_foreign_host_is_refused_everywhere(shop: Any, serve: Any) -> None:
    served = serve(shop.reader, dict)
    for path in ("/", "/static/board.js", "/static/plotly.min.js", "/api/machines", "/api/events"):
        answer, _ = get(served.port, path, Host="rebound.example")
        assert answer.status == 421
    assert get(served.port, "/api/machines", Host=f"localhost:{served.port}")[0].status == 200


def test_policy_is_strict(shop: Any, serve: Any) -> None:
    answer, body = get(serve(shop.reader, dict).port, "/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert b"//" not in body.replace(b"<!--", b"")  # nothing from elsewhere


def test_chart_library_is_compressed_and_cached(shop: Any, serve: Any) -> None:
    port = serve(shop.reader, dict).port
    answer, body = get(port, "/static/plotly.min.js", Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "immutable" in answer.headers["Cache-Control"]
    assert len(body) < 2_000_000
    assert get(port, "/static/plotly.min.js")[1] == gzip.decompress(body)
    again, nothing = get(port, "/static/plotly.min.js", If_None_Match=answer.headers["ETag"])
    assert (again.status, nothing) == (304, b"")


@pytest.mark.parametrize(
    "path",
    ["/static/nothing.js", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/api/nothing", "/api/charts/nothing"],
)
def test_what_is_not_there_is_404(shop: Any, serve: Any, path: str) -> None:
    assert get(serve(shop.reader, dict).port, path)[0].status == 404


class Counting:
    """The real reader, and when it was asked for findings."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.asked: list[float] = []
        self.often = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def findings(self, *args: Any, **more: Any) -> Any:
        self.asked.append(time.monotonic())
        if len(self.asked) >= 4:
            self.often.set()
        return self._reader.findings(*args, **more)


def test_many_pages_share_one_reading_a_second(shop: Any, serve: Any) -> None:
    reader = Counting(shop.reader)
    served = serve(reader, dict)
    streams = []
    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
        connection.request("GET", "/api/events")
        streams.append((connection, connection.getresponse()))
    assert reader.often.wait(30)
    gaps = [b - a for a, b in zip(reader.asked, reader.asked[1:], strict=False)]
    assert min(gaps) > 0.9
    for connection, _ in streams:
        connection.close()
