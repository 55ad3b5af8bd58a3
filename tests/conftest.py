"""Real servers for tests: each on a free loopback port, in a folder of its own, ended with the test.

What is not installed skips the test with the name of the package to install; with `FIELDLAB_REQUIRE_SERVICES=1`, as in
CI, that is a failure.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

import pytest
import structlog

_LOOPBACK = "127.0.0.1"
_SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # where Debian keeps servers; not on everybody's PATH
_NODE = (20, 19)  # since then a script may `require` a module of the new kind, as node-opcua is
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy of the environment


S = TypeVar("S", bound="Server")


def _absent(message: str) -> NoReturn:
    if os.environ.get("FIELDLAB_REQUIRE_SERVICES") == "1":
        pytest.fail(message)
    pytest.skip(message)


def _require(binary: str, package: str) -> str:
    """Path of `binary`; skips (or fails) the test if it is absent."""
    found = shutil.which(binary, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN]))
    if found is None:
        _absent(f"{binary} is not installed: needs Debian package {package}")
    return found


def _wait_until(condition: Callable[[], Any], timeout: float = 20.0, what: str = "") -> Any:
    """The first true value of `condition`; fails the test after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout} s: {what or condition}; last value {value!r}")
        time.sleep(0.01)  # between two looks at a condition, not instead of one


def _free_port() -> int:
    # below the kernel's ephemeral range, so that no client's connection takes the port while its server restarts
    for port in random.SystemRandom().sample(range(20_000, 32_000), 200):
        with socket.socket() as s:
            try:
                s.bind((_LOOPBACK, port))
            except OSError:
                continue
            return port
    pytest.fail("no free port between 20000 and 32000")


class Server:
    """A server program on loopback, in its folder."""

    def __init__(self, command: Sequence[str], folder: Path, port: int) -> None:
        self.command = list(command)
        self.folder = folder
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, "not running"
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything the server has printed."""
        path = self.folder / "server.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def start(self) -> Self:
        """Start it and wait until it accepts connections."""
        assert self.process is None, "already running"
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        _wait_until(self._accepts, 30.0, f"{self.command[0]} accepts connections on port {self.port}")
        return self

    def _accepts(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"{self.command[0]} ended with {self.process.returncode}:\n{self.log[-2000:]}")
        try:
            socket.create_connection((_LOOPBACK, self.port), timeout=1).close()
        except OSError:
            return False
        return self.process.poll() is None and self._ready()

    def _ready(self) -> bool:
        return True

    def stop(self) -> None:
        """End it in order (SIGTERM)."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        """Stop it in order, and start it again on the same port with the same files."""
        self.stop()
        self.start()


class Mosquitto(Server):
    """A real broker: persistence, one user, everything else by `options`."""

    def __init__(
        self,
        folder: Path,
        *,
        user: str = "fieldlab",
        password: str = "secret of the test",
        max_inflight_messages: int = 20,
        max_queued_messages: int = 200_000,
        autosave: bool = False,
        anonymous: bool = False,
        config: Sequence[str] = (),
        listener: Sequence[str] = (),
    ) -> None:
        port = _free_port()
        binary = _require("mosquitto", "mosquitto")
        passwords = folder / "passwords"
        subprocess.run(
            [_require("mosquitto_passwd", "mosquitto"), "-c", "-b", str(passwords), user, password],
            check=True,
            capture_output=True,
        )
        self.user = user
        self.password = password
        self.password_file = folder / "password"
        self.password_file.write_text(password + "\n")
        self.password_file.chmod(0o600)
        self.url = f"mqtt://{_LOOPBACK}:{port}"
        lines = [
            "per_listener_settings false",
            f"listener {port} {_LOOPBACK}",
            *listener,
            f"allow_anonymous {'true' if anonymous else 'false'}",
            f"password_file {passwords}",
            "persistence true",
            f"persistence_location {folder}/",
            f"max_queued_messages {max_queued_messages}",
            f"max_inflight_messages {max_inflight_messages}",
            "log_dest stderr",
            "user root",  # else it drops its rights, when tests run as root, and cannot read this folder
            *(["autosave_interval 1", "autosave_on_changes true"] if autosave else []),
            *config,
        ]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        super().__init__([binary, "-c", str(folder / "mosquitto.conf")], folder, port)


class Influxd(Server):
    """InfluxDB 1.x: `/write?db=` and InfluxQL."""

    def __init__(self, folder: Path) -> None:
        port = _free_port()
        self.url = f"http://{_LOOPBACK}:{port}"
        for name in ("data", "meta", "wal"):
            (folder / name).mkdir()
        (folder / "influxdb.conf").write_text(
            f"""
reporting-disabled = true
bind-address = "{_LOOPBACK}:{_free_port()}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
max-series-per-database = 0
max-values-per-tag = 0
[http]
bind-address = "{_LOOPBACK}:{port}"
log-enabled = false
[monitor]
store-enabled = false
"""
        )
        super().__init__([_require("influxd", "influxdb"), "-config", str(folder / "influxdb.conf")], folder, port)

    def _ready(self) -> bool:
        try:
            with _DIRECT.open(f"{self.url}/ping", timeout=2) as answer:
                return bool(answer.status == 204)
        except OSError:
            return False

    def create_database(self, name: str = "") -> str:
        """Create a database, and give its name: a new one each time, unless `name` is given."""
        name = name or f"test_{uuid.uuid4().hex[:12]}"
        self._ask("POST", f'CREATE DATABASE "{name}"', "")
        return name

    def query(self, influxql: str, db: str) -> list[dict[str, Any]]:
        """Rows of the answer: columns and tags by name, `time` in ns, `_name` the measurement."""
        rows = []
        for result in self._ask("GET", influxql, db)["results"]:
            if "error" in result:
                raise ValueError(result["error"])
            for series in result.get("series", []):
                fixed = {"_name": series.get("name", ""), **series.get("tags", {})}
                rows += [{**fixed, **dict(zip(series["columns"], v, strict=True))} for v in series["values"]]
        return rows

    def _ask(self, method: str, influxql: str, db: str) -> dict[str, Any]:
        parameters = urllib.parse.urlencode({"q": influxql, "db": db, "epoch": "ns"})
        data = b"" if method == "POST" else None
        request = urllib.request.Request(f"{self.url}/query?{parameters}", data=data, method=method)
        with _DIRECT.open(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


class VictoriaMetrics(Server):
    """VictoriaMetrics, which takes influxdb-client's writes. Times are whole milliseconds; text becomes 0."""

    def __init__(self, folder: Path) -> None:
        port = _free_port()
        self.url = f"http://{_LOOPBACK}:{port}"
        command = [
            _require("victoria-metrics", "victoria-metrics"),
            f"-httpListenAddr={_LOOPBACK}:{port}",
            f"-storageDataPath={folder}/data",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
        ]
        super().__init__(command, folder, port)

    def _ready(self) -> bool:
        try:
            with _DIRECT.open(f"{self.url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def export(self, match: str = '{__name__!=""}') -> list[dict[str, Any]]:
        """Every series that `match` names: `metric` (labels), `values`, `timestamps` in ms."""
        self._get("/internal/force_flush")
        lines = self._get(
            "/api/v1/export?" + urllib.parse.urlencode({"match[]": match, "start": "0", "end": "4102444800"})
        )
        return [json.loads(line) for line in lines.splitlines()]

    def query(self, promql: str, at: float) -> list[dict[str, Any]]:
        """The answer of an instant query at `at`, in seconds."""
        self._get("/internal/force_flush")
        answer = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": promql, "time": str(at)}))
        found: list[dict[str, Any]] = json.loads(answer)["data"]["result"]
        return found

    def _get(self, path: str) -> bytes:
        with _DIRECT.open(self.url + path, timeout=30) as answer:
            body: bytes = answer.read()
        return body


@pytest.fixture(autouse=True)
def _logging_of_its_own() -> Iterator[None]:
    """A command that runs inside a test sets up logging: the next test starts afresh."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def require() -> Callable[[str, str], str]:
    """`require(binary, package)` gives the path of a program, or skips the test."""
    return _require


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    """`wait_until(condition, timeout=20, what="")` gives the first true value, or fails the test."""
    return _wait_until


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """`free_port()` gives a loopback port that nobody listens on."""
    return _free_port


@pytest.fixture
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Mosquitto]]:
    """`mosquitto(**options)` starts a broker; see `Mosquitto` for the options. `start=False` does not start it."""
    yield from _factory(tmp_path_factory, Mosquitto, "mosquitto")


@pytest.fixture
def influxd_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Influxd]]:
    """`influxd_factory()` starts an influxd of the test's own, which it may kill."""
    yield from _factory(tmp_path_factory, Influxd, "influxd")


@pytest.fixture
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    """A VictoriaMetrics of the test's own, which it may kill."""
    for make in _factory(tmp_path_factory, VictoriaMetrics, "victoria-metrics"):
        yield make()


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """One influxd for the whole session: use a database of your own, and leave it running."""
    for make in _factory(tmp_path_factory, Influxd, "influxd"):
        yield make()


@pytest.fixture(scope="session")
def sparkplug_payload() -> str:
    """The program `node`, where npm's Sparkplug B encoder is installed beside tests/interop/sparkplug.js."""
    node = _require("node", "nodejs")
    if not (Path(__file__).parent / "interop" / "node_modules" / "sparkplug-payload" / "package.json").exists():
        _absent("sparkplug-payload is not installed: run `npm ci` in tests/interop")
    return node


@pytest.fixture(scope="session")
def node_opcua() -> Path:
    """The `node_modules` folder with node-opcua, as `npm ci` in tests/interop makes it."""
    version = subprocess.run(
        [_require("node", "nodejs"), "--version"], capture_output=True, text=True, check=True
    ).stdout
    if tuple(int(number) for number in version.strip("v\n").split(".")[:2]) < _NODE:
        _absent(
            f"node is {version.strip()}, and node-opcua needs 20.19: Debian package nodejs of trixie, or npm's `node`"
        )
    folder = Path(__file__).parent / "interop" / "node_modules"
    if not (folder / "node-opcua" / "package.json").exists():
        _absent("node-opcua is not installed: run `npm ci` in tests/interop")
    return folder


def _factory(factory: pytest.TempPathFactory, kind: Callable[..., S], name: str) -> Iterator[Callable[..., S]]:
    running: list[S] = []

    def make(*, start: bool = True, **options: Any) -> S:
        folder = factory.mktemp(name)
        folder.chmod(0o755)
        made = kind(folder, **options)
        running.append(made)
        return made.start() if start else made

    try:
        yield make
    finally:
        for made in running:
            made.kill()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The time of each suite, that is of each folder or file directly below tests/."""
    seconds: dict[str, float] = {}
    tests: dict[str, set[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped", ""):  # "" holds set-up and tear-down
        for report in terminalreporter.getreports(outcome):
            if isinstance(report, pytest.TestReport):
                suite = Path(report.nodeid.partition("::")[0]).parts[1:2]
                name = suite[0] if suite else report.nodeid
                seconds[name] = seconds.get(name, 0.0) + report.duration
                tests.setdefault(name, set()).add(report.nodeid)
    if seconds:
        terminalreporter.section("time of each suite")
    for name, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        terminalreporter.line(f"{spent:8.1f} s {len(tests[name]):6d} tests  {name}")
