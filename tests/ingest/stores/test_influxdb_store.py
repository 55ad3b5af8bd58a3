"""The InfluxDB store: real influxd, real VictoriaMetrics, and a scripted server for every refusal."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldlab.config import Duration
from fieldlab.errors import ConfigError
from fieldlab.model import Batch, BatchBuilder, MachineState, Place, Record, RecordKind, SignalKey, SignalTable
from fieldlab.model.status import BAD_NO_COMMUNICATION
from ingest.stores import load_kind
from ingest.stores.base import StoreContext, StoreMisconfiguredError, StoreUnavailableError
from ingest.stores.influxdb.config import InfluxConfig
from ingest.stores.influxdb.kind import create_reader, create_store
from ingest.stores.influxdb.transport import open_transport

T0 = 1_763_900_000_000_000_000
CNC = Place("drachten", "shavers", "3", "cnc-07")
KEYS = [SignalKey(CNC, name) for name in ("load", "poison", "diameter")]
Script = Callable[[list[bytes]], tuple[int, dict[str, str], bytes] | None]


def context(tmp_path: Path) -> StoreContext:
    return StoreContext(name="influx", agent="line-3", data=tmp_path)


def record(batch: Batch, position: int = 1) -> Record:
    return Record(position, RecordKind.READINGS, T0, batch)


def numbers(n: int, signal: int = 0, start: int = T0) -> Batch:
    return Batch.of(np.full(n, signal, np.uint32), start + np.arange(n), np.arange(n, dtype=np.float64))


class Scripted:
    """Answers /api/v2/write as `script(lines)` says; None or 204 keeps the lines, as a server would."""

    def __init__(self) -> None:
        self.script: Script = lambda lines: None
        self.kept: set[bytes] = set()
        self.requests: list[tuple[str, dict[str, str], int]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet: else each answer waits 40 ms for an acknowledgement

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                lines = body.split(b"\n")[:-1] if body.endswith(b"\n") else body.split(b"\n")
                outer.requests.append((self.path, dict(self.headers), len(body)))
                answer = outer.script(lines)
                if answer is None:
                    answer = (204, {}, b"")
                status, headers, text = answer
                if status == 204:
                    outer.kept.update(lines)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                if headers.get("Connection") == "close":
                    self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # loopback must not be reached through it
    monkeypatch.delenv("no_proxy", raising=False)
    made = Scripted()
    yield made
    made.close()


@pytest.fixture
def open_store(tmp_path: Path) -> Callable[..., Any]:
    def make(url: str, **keys: Any) -> Any:
        token = tmp_path / "token"
        token.write_text("a token\n")
        token.chmod(0o600)
        config = InfluxConfig(**{"url": url, "org": "fieldlab", "token_file": token, **keys})
        return create_store(config, context(tmp_path), SignalTable(KEYS))

    return make


def refuse(message: str, status: int = 400) -> tuple[int, dict[str, str], bytes]:
    code = {400: "invalid", 422: "unprocessable entity"}.get(status, "error")
    return status, {"Content-Type": "application/json"}, json.dumps({"code": code, "message": message}).encode()


def has_poison(lines: list[bytes]) -> bool:
    return any(b"signal=poison" in line for line in lines)


def test_a_write_says_who_and_where_and_how(scripted: Scripted, open_store: Callable[..., Any]) -> None:
    store = open_store(scripted.url)
    assert store.write([record(numbers(3))]) == []
    ((path, headers, _),) = scripted.requests
    assert path == "/api/v2/write?org=fieldlab&bucket=telemetry&precision=ns"
    assert headers["Authorization"] == "Token a token"
    assert len(scripted.kept) == 3
    assert store.write([]) == []
    assert len(scripted.requests) == 1


def test_requests_are_bounded_in_lines_and_bytes(scripted: Scripted, open_store: Callable[..., Any]) -> None:
    sizes: list[int] = []
    scripted.script = lambda lines: sizes.append(len(lines))
    store = open_store(scripted.url)
    store.write([record(numbers(12_000))])
    builder = BatchBuilder()
    for i in range(500):
        builder.add(0, T0 + i, "x" * 10_000)
    store.write([record(builder.build())])
    assert sizes[:3] == [5000, 5000, 2000]
    assert sum(sizes) == 12_500
    assert max(size for _, _, size in scripted.requests) <= 1_000_000


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("partial", [True, False])
def test_only_poison_is_refused_for_good(
    status: int, partial: bool, scripted: Scripted, open_store: Callable[..., Any]
) -> None:
    def script(lines: list[bytes]) -> Any:
        if not has_poison(lines):
            return None
        if partial:  # some were kept, but the request counts as unsaved
            scripted.kept.update(line for line in lines if b"signal=poison" not in line)
        bad = sum(b"signal=poison" in line for line in lines)
        return refuse(f"partial write: field type conflict dropped={bad}", status)

    scripted.script = script
    batch = numbers(1000)
    poisoned = [0, 1, 499, 500, 998, 999]
    batch.signal[poisoned] = 1
    state = Record(2, RecordKind.MACHINE_STATE, T0, rows=(MachineState(time=T0, place=CNC, state="x"),))
    (letter,) = open_store(scripted.url).write([record(batch), state])
    assert len(scripted.kept) == 1000 - 6 + 1
    assert (letter.store, letter.machine, letter.signal) == ("influx", CNC.path, "poison")
    assert (letter.readings, letter.counts) == (6, {1: 6})
    assert (letter.first, letter.last) == (T0, T0 + 999)
    assert letter.body.count(b"\n") == letter.body.count(b"signal=poison") == 6
    assert letter.reason == f"{status}: partial write: field type conflict dropped=1"


def test_a_dead_letter_can_be_sent_again(scripted: Scripted, open_store: Callable[..., Any]) -> None:
    store = open_store(scripted.url)
    scripted.script = lambda lines: refuse("no") if has_poison(lines) else None
    (letter,) = store.write([record(numbers(4, signal=1))])
    assert store.resend(letter) == [letter]
    scripted.script = lambda lines: None
    assert store.resend(letter) == []
    assert len(scripted.kept) == 4


def test_a_server_that_says_it_refuses_all_is_asked_once(scripted: Scripted, open_store: Callable[..., Any]) -> None:
    scripted.script = lambda lines: refuse(f"partial write: points beyond retention policy dropped={len(lines)}", 422)
    (letter,) = open_store(scripted.url).write([record(numbers(5000))])
    assert (letter.readings, len(scripted.requests)) == (5000, 1)


def test_an_outage_in_the_middle_of_a_bisection_decides_nothing(
    scripted: Scripted, open_store: Callable[..., Any]
) -> None:
    store = open_store(scripted.url)
    batch = numbers(64)
    batch.signal[[5, 40]] = 1
    for answers in range(1, 12):
        left = [answers]

        def script(lines: list[bytes], left: list[int] = left) -> Any:
            left[0] -= 1
            if left[0] < 0:
                return refuse("timeout", 503)
            return refuse("conflict") if has_poison(lines) else None

        scripted.script = script
        with pytest.raises(StoreUnavailableError):
            store.write([record(batch)])
    scripted.script = lambda lines: refuse("conflict") if has_poison(lines) else None
    (letter,) = store.write([record(batch)])
    assert letter.readings == 2
    assert len(scripted.kept) == 62


def test_too_large_is_halved_until_it_fits(scripted: Scripted, open_store: Callable[..., Any]) -> None:
    scripted.script = lambda lines: refuse("too large", 413) if len(lines) > 7 else None
    assert open_store(scripted.url).write([record(numbers(100))]) == []
    assert len(scripted.kept) == 100
    scripted.script = lambda lines: refuse("too large", 413)
    (letter,) = open_store(scripted.url).write([record(numbers(1))])
    assert letter.reason == "413: too large"


@pytest.mark.parametrize(
    ("status", "words"), [(401, "token"), (403, "'telemetry'.*token"), (404, "bucket 'telemetry'"), (301, "InfluxDB")]
)
def test_what_a_person_must_mend(
    status: int, words: str, scripted: Scripted, open_store: Callable[..., Any], tmp_path: Path
) -> None:
    scripted.script = lambda lines: refuse("no", status)
    with pytest.raises(StoreMisconfiguredError, match=words) as caught:
        open_store(scripted.url).write([record(numbers(3))])
    assert scripted.url in str(caught.value)
    if status in (401, 403):
        assert str(tmp_path / "token") in str(caught.value)


def test_a_new_token_is_read_after_a_401(scripted: Scripted, open_store: Callable[..., Any], tmp_path: Path) -> None:
    store = open_store(scripted.url)
    scripted.script = lambda lines: refuse("no", 401)
    with pytest.raises(StoreMisconfiguredError):
        store.write([record(numbers(3))])
    (tmp_path / "token").write_text("another")
    scripted.script = lambda lines: None
    store.write([record(numbers(3))])
    assert scripted.requests[-1][1]["Authorization"] == "Token another"


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [(429, "7", 7.0), (503, "2.5", 2.5), (503, "soon", None), (500, None, None), (504, None, None), (429, "1e9", 3600)],
)
def test_busy_is_tried_again_later(
    status: int, header: str | None, seconds: float | None, scripted: Scripted, open_store: Callable[..., Any]
) -> None:
    headers = {"Retry-After": header} if header else {}
    scripted.script = lambda lines: (status, headers, b"busy")
    with pytest.raises(StoreUnavailableError, match="busy") as caught:
        open_store(scripted.url).write([record(numbers(3))])
    assert caught.value.retry_after == seconds


def test_retry_after_may_be_a_date(scripted: Scripted, open_store: Callable[..., Any]) -> None:
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    scripted.script = lambda lines: (503, {"Retry-After": date}, b"")
    with pytest.raises(StoreUnavailableError) as caught:
        open_store(scripted.url).write([record(numbers(3))])
    assert caught.value.retry_after == pytest.approx(60, abs=20)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((500, {"Content-Length": "1000", "Connection": "close"}, b"half"), StoreUnavailableError),
        ((200, {}, b"<html>welcome to the hotel</html>"), StoreMisconfiguredError),
        ((400, {}, b"<html>400 The plain HTTP request was sent to HTTPS port</html>"), StoreMisconfiguredError),
        ((400, {}, b"Client sent an HTTP request to an HTTPS server."), StoreMisconfiguredError),
        ((500, {}, b"\xff\xfe"), StoreUnavailableError),
    ],
)
def test_what_is_not_a_verdict_on_our_lines(
    answer: tuple[int, dict[str, str], bytes],
    error: type[Exception],
    scripted: Scripted,
    open_store: Callable[..., Any],
) -> None:
    scripted.script = lambda lines: answer
    for api in ("v2", "v1"):
        with pytest.raises(error):
            open_store(scripted.url, api=api).write([record(numbers(3))])


def test_an_answer_after_the_timeout_is_no_answer(scripted: Scripted, open_store: Callable[..., Any]) -> None:
    release = threading.Event()

    def script(lines: list[bytes]) -> Any:
        release.wait(20)
        return (204, {}, b"")

    scripted.script = script
    for api in ("v2", "v1"):
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            open_store(scripted.url, api=api, timeout=Duration(0.2)).write([record(numbers(3))])
    release.set()


def test_a_server_that_is_not_there(open_store: Callable[..., Any], free_port: Callable[[], int]) -> None:
    for api in ("v2", "v1"):
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            open_store(f"http://127.0.0.1:{free_port()}", api=api).write([record(numbers(3))])


def test_secrets_that_are_missing_or_open_to_others_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    for keys in ({"token_file": secret}, {"api": "v1", "user": "u", "password_file": secret}):
        secret.unlink(missing_ok=True)
        config = InfluxConfig(url="http://127.0.0.1:1", **keys)
        with pytest.raises(ConfigError, match="chmod 600"):
            create_store(config, context(tmp_path), SignalTable())
        secret.write_text("x")
        secret.chmod(0o640)
        with pytest.raises(ConfigError, match=f"chmod 600 {secret}"):
            create_store(config, context(tmp_path), SignalTable())
        assert load_kind("influxdb").check(config, context(tmp_path))[0].level == "fail"
        secret.chmod(0o600)
        create_store(config, context(tmp_path), SignalTable())
        secret.write_text("\n")
        with pytest.raises(ConfigError, match="one line"):
            create_store(config, context(tmp_path), SignalTable())


def test_influxd_keeps_every_reading_with_its_time_and_status(influxd: Any, tmp_path: Path) -> None:
    database = influxd.create_database()
    config = InfluxConfig(url=influxd.url, api="v1", bucket=database)
    store = create_store(config, context(tmp_path), SignalTable(KEYS))
    rng = np.random.default_rng(1)
    n = 12_000
    status = rng.choice(np.array([0, 0x40000000, BAD_NO_COMMUNICATION], np.uint32), n)
    batch = Batch.of(rng.integers(0, 3, n, np.uint32), T0 + np.arange(n), rng.normal(size=n), status)
    for _ in range(2):
        assert store.write([record(batch)]) == []
    reader = create_reader(config)
    assert sum(reader.counts().values()) == n
    for index, key in enumerate(KEYS):
        mine = batch.signal == index
        series = reader.telemetry(key, 0, 2**63 - 1)
        np.testing.assert_array_equal(series.time, batch.time[mine])
        np.testing.assert_array_equal(series.status, batch.status[mine])
        np.testing.assert_array_equal(series.value, batch.value[mine])
    (row,) = influxd.query('SELECT count("value") FROM telemetry', database)
    assert row["count"] == int((status < 0x80000000).sum())
    store.close()
    reader.close()


def mixed() -> Batch:
    builder = BatchBuilder()
    for i in range(1000):
        builder.add(0, T0 + i, float(i))
    builder.add(1, T0 + 500, "text=1,value=2 \\")
    builder.add(1, T0 + 501, "another")
    return builder.build()


def test_influxd_refuses_a_type_conflict_and_keeps_the_rest(influxd: Any, tmp_path: Path) -> None:
    database = influxd.create_database()
    config = InfluxConfig(url=influxd.url, api="v1", bucket=database)
    store = create_store(config, context(tmp_path), SignalTable(KEYS))
    assert store.write([record(numbers(1, start=T0 - 1))]) == []
    open_transport(config).write(b"telemetry,signal=other text=1 %d" % T0)  # somebody writes numbers there after us
    letters = store.write([record(mixed())])
    assert [(a.signal, a.readings, a.counts) for a in letters] == [("poison", 2, {1: 2})]
    assert 'field type conflict: input field "text"' in letters[0].reason
    assert create_reader(config).counts()[KEYS[0]] == 1001


def test_a_type_conflict_is_kept_away_from_the_server(influxd: Any, tmp_path: Path) -> None:
    database = influxd.create_database()
    config = InfluxConfig(url=influxd.url, api="v1", bucket=database)
    open_transport(config).write(b"telemetry,signal=other text=1 %d" % T0)  # somebody wrote numbers there before us
    (line,) = load_kind("influxdb").check(config, context(tmp_path))
    assert (line.level, "`text` of `telemetry`" in line.text) == ("fail", True)
    store = create_store(config, context(tmp_path), SignalTable(KEYS))
    sent: list[bytes] = []
    transport = store._transport
    write = transport.write
    transport.write = lambda body: sent.append(body) or write(body)  # type: ignore[method-assign,func-returns-value]  # listens in
    (letter,) = store.write([record(mixed())])
    assert (letter.signal, letter.readings, letter.counts) == ("poison", 2, {1: 2})
    assert "is float already, and Fieldlab writes string" in letter.reason
    assert len(sent) == 1  # no bisection
    assert b"poison" not in sent[0]
    influxd._ask("POST", 'DROP MEASUREMENT "telemetry"', database)  # mended
    assert store.resend(letter) == []
    assert create_reader(config).counts()[KEYS[1]] == 2
    assert store.write([record(mixed())]) == []


def test_a_server_that_tells_no_types_is_written_to(scripted: Scripted, open_store: Callable[..., Any]) -> None:
    store = open_store(scripted.url)
    for i in range(5):  # its /query answers 501
        assert store.write([record(numbers(1, start=T0 + i))]) == []
    assert len(scripted.kept) == 5


def test_influxd_without_the_database(influxd: Any, tmp_path: Path) -> None:
    config = InfluxConfig(url=influxd.url, api="v1", bucket="nowhere")
    with pytest.raises(StoreMisconfiguredError, match="database 'nowhere'"):
        create_store(config, context(tmp_path), SignalTable(KEYS)).write([record(numbers(3))])
    (line,) = load_kind("influxdb").check(config, context(tmp_path))
    assert (line.level, "nowhere" in line.text) == ("fail", True)
    good = InfluxConfig(url=influxd.url, api="v1", bucket=influxd.create_database())
    assert [c.level for c in load_kind("influxdb").check(good, context(tmp_path))] == ["ok"]
    wrong_api = InfluxConfig(url=influxd.url, bucket=good.bucket)
    with pytest.raises(StoreMisconfiguredError, match='api = "v2"'):
        create_store(wrong_api, context(tmp_path), SignalTable(KEYS)).write([record(numbers(3))])


def test_influxd_killed_and_started_again_keeps_what_was_acknowledged(
    influxd_factory: Callable[..., Any], tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    server = influxd_factory()
    config = InfluxConfig(url=server.url, api="v1", bucket=server.create_database("kept"))
    store = create_store(config, context(tmp_path), SignalTable(KEYS))
    store.write([record(numbers(3000))])
    server.kill()
    with pytest.raises(StoreUnavailableError):
        store.write([record(numbers(3000, start=T0 + 3000))])
    server.start()
    store.write([record(numbers(3000, start=T0 + 3000))])
    assert create_reader(config).counts() == {KEYS[0]: 6000}


def test_victoria_metrics_takes_influxdb_clients_writes(victoria_metrics: Any, tmp_path: Path) -> None:
    store = create_store(InfluxConfig(url=victoria_metrics.url), context(tmp_path), SignalTable(KEYS))
    n = 12_000
    start = (time.time_ns() // 10**9 - 3600) * 10**9
    times = start + np.arange(n) * 10**6  # whole milliseconds, as finer ones are cut
    batch = Batch.of(np.arange(n, dtype=np.uint32) % 3, times, np.arange(n, dtype=np.float64))
    assert store.write([record(batch)]) == []
    found = victoria_metrics.export('{__name__="telemetry_value"}')
    assert sum(len(s["values"]) for s in found) == n
    for series in found:
        mine = batch.signal == [k.name for k in KEYS].index(series["metric"]["signal"])
        assert series["metric"]["machine"] == "cnc-07"
        assert series["timestamps"] == (batch.time[mine] // 10**6).tolist()
        assert series["values"] == batch.value[mine].tolist()
