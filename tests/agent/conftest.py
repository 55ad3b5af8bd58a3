"""A real agent in a process of its own, the command, and a node-opcua server."""

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fieldlab.cli.common import ask_agent

AGENT = """[agent]
name = "{name}"
data = "data"
http = "{http}"
{keys}
[place]
site = "drachten"
area = "shavers"
line = "3"
"""
SERVER = Path(__file__).parents[1] / "interop" / "server.js"
EPOCH_TICKS = 116_444_736_000_000_000


class Done(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


def run_fieldlab(*arguments: object, timeout: float = 120, **environment: str) -> Done:
    """Run `fieldlab` to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "fieldlab.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **environment},
    )
    return Done(done.returncode, done.stdout, done.stderr)


class AgentProcess:
    """`fieldlab agent` on a configuration in its own folder; what it has in common with others is written for it."""

    def __init__(
        self, folder: Path, tables: str, name: str, wait_until: Callable[..., Any], http: str = "", keys: str = ""
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.config = folder / "fieldlab.toml"
        self._head = AGENT.format(name=name, http=http, keys=keys)
        self.configure(tables)
        self.process: subprocess.Popen[bytes] | None = None
        self._wait_until = wait_until

    def configure(self, tables: str) -> None:
        """Write the configuration file."""
        self.config.write_text(self._head + tables, "utf-8")

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every event it has logged; a line that is none (a traceback) counts as the event `unreadable`."""
        found = []
        for line in (self.folder / "agent.log").read_text("utf-8", "replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"event": "unreadable", "line": line})
        return found

    @property
    def troubles(self) -> list[dict[str, Any]]:
        """What it has logged that should not be: errors of ours, and what is no event."""
        return [
            e
            for e in self.log
            if e["event"] == "unreadable"
            or "exception" in e
            or (e["level"] in ("error", "critical") and not e["event"].endswith("_unreachable"))
        ]

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start it and wait for nothing."""
        assert self.process is None
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fieldlab.cli", "agent", str(self.config)], stdout=log, stderr=log
            )
        return self.process

    def start(self, *, connected: bool = True) -> "AgentProcess":
        """Start it and wait until it answers, and until its sources are connected."""
        self.launch()
        self._wait_until(lambda: self._up(connected), 60.0, "the agent is up")
        return self

    def _up(self, connected: bool) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"the agent ended with {self.process.returncode}: {self.log[-20:]}")
        status = ask_agent(self.data, "/status")
        return status is not None and (not connected or all(s["connected"] for s in status["sources"]))

    def status(self) -> dict[str, Any]:
        """What `fieldlab status --json` prints."""
        status: dict[str, Any] = ask_agent(self.data, "/status")
        return status

    def ledger(self) -> dict[str, int]:
        """The ledger's totals; they add up at any moment."""
        ledger: dict[str, int] = self.status()["ledger"]
        assert ledger["received"] == ledger["committed"] + ledger["duplicate"] + ledger["rejected"], ledger
        assert ledger["stored"] + ledger["dead"] + ledger["dropped"] <= ledger["committed"], ledger
        return ledger

    def consumer(self, name: str) -> dict[str, Any]:
        """The status of one consumer."""
        return next(c for c in self.status()["consumers"] if c["name"] == name)

    def settled(self) -> bool:
        """Whether every consumer has done everything."""
        return all(c["lag_records"] == 0 for c in self.status()["consumers"])

    def query(self, path: str) -> Any:
        """An answer of the agent's first store."""
        return ask_agent(self.data, f"/query/{path}")

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process is None:
            return 0
        self.process.terminate()
        code = self.process.wait(60)
        self.process = None
        return code


@pytest.fixture(scope="session")
def fieldlab() -> Callable[..., Done]:
    """`fieldlab(*arguments, timeout=120, **environment)` runs the command to its end: code, out, err."""
    return run_fieldlab


@pytest.fixture
def agent(tmp_path: Path, wait_until: Callable[..., Any]) -> Iterator[Callable[..., AgentProcess]]:
    """Makes agents from the tables of a configuration file; each in a folder of its own."""
    made: list[AgentProcess] = []

    def make(tables: str, name: str = "test", **options: Any) -> AgentProcess:
        folder = tmp_path / f"agent-{len(made)}"
        folder.mkdir()
        made.append(AgentProcess(folder, tables, name, wait_until, **options))
        return made[-1]

    yield make
    for process in made:
        if process.process is not None:
            process.kill()


class Publisher:
    """Publishes at QoS 1 and knows what the broker has taken."""

    def __init__(self, broker: Any) -> None:
        self.taken = 0
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.username_pw_set(broker.user, broker.password)
        self._client.max_inflight_messages_set(200)
        self._client.on_publish = self._on_publish
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()

    def _on_publish(self, *_: Any) -> None:
        self.taken += 1

    def send(self, messages: Sequence[tuple[str, str]], *, wait: bool = True) -> None:
        """Publish (topic, payload) in order, and wait until the broker has the last."""
        info = None
        for topic, payload in messages:
            info = self._client.publish(topic, payload, qos=1)
        if wait and info is not None:
            info.wait_for_publish(60)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def publish() -> Iterator[Callable[[Any], Publisher]]:
    """`publish(broker)` connects a `Publisher`."""
    made: list[Publisher] = []

    def connect(broker: Any) -> Publisher:
        made.append(Publisher(broker))
        return made[-1]

    yield connect
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def mqtt_source() -> Callable[..., str]:
    """`mqtt_source(broker, more="")`: the table of a source that reads everything of a broker."""

    def make(broker: Any, more: str = "") -> str:
        return (
            f'[[source]]\nkind = "mqtt"\nurl = "{broker.url}"\nusername = "{broker.user}"\n'
            f'password_file = "{broker.password_file}"\ntopics = ["fieldlab/#"]\n{more}'
        )

    return make


class OpcuaServer:
    """tests/interop/server.js, as a process."""

    def __init__(self, modules: Path, folder: Path, port: int, variables: dict[str, Any], **options: Any) -> None:
        self.url = f"opc.tcp://127.0.0.1:{port}/interop"
        self._modules = modules
        self._folder = folder
        self._options = {"port": port, "pki": str(folder / "pki"), "variables": variables, **options}
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def start(self) -> "OpcuaServer":
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["node", str(SERVER), json.dumps(self._options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"NODE_OPCUA_MODULES": str(self._modules), "PATH": os.environ["PATH"]},
            )
        assert self._line()["ready"]
        return self

    def _line(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        while True:
            line, found, self._rest = self._rest.partition(b"\n")
            if found and line.startswith(b"{"):
                answer: dict[str, Any] = json.loads(line)
                assert "error" not in answer, answer["error"]
                return answer
            if not found:
                ready, _, _ = select.select([self._process.stdout], [], [], 60)
                chunk = os.read(self._process.stdout.fileno(), 1 << 20) if ready else b""
                assert chunk, f"the node-opcua server said nothing: {(self._folder / 'server.log').read_text()[-2000:]}"
                self._rest = line + chunk

    def ask(self, command: str, **rest: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **rest}).encode() + b"\n")
        self._process.stdin.flush()
        return self._line()

    def produced(self) -> list[tuple[str, int, Any, int]]:
        """(name, ns, value, status) of everything that the server produced."""
        rows = self.ask("produced")["produced"]
        return [(n, (int(t) - EPOCH_TICKS) * 100, value, status) for n, t, value, status, _ in rows]

    def source(self, names: Sequence[str], more: str = "") -> str:
        """The table of a source that reads these variables, every change."""
        table = (
            f'[[source]]\nkind = "opcua"\nmachine = "cnc-07"\nurl = "{self.url}"\nsecurity = "none"\n'
            f'interval = "50ms"\nsampling = "0ms"\nqueue = 5000\n{more}'
        )
        for name in names:
            table += f'[[source.signal]]\nname = "{name}"\nnode = "nsu=urn:fieldlab:interop;s={name}"\n'
        return table

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self._process = None


@pytest.fixture
def opcua_server(
    node_opcua: Path, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Callable[..., OpcuaServer]]:
    """`opcua_server(variables, start=True, **options)`: a node-opcua server of the test's own."""
    running: list[OpcuaServer] = []

    def make(variables: dict[str, Any], *, start: bool = True, **options: Any) -> OpcuaServer:
        server = OpcuaServer(node_opcua, tmp_path_factory.mktemp("opcua"), free_port(), variables, **options)
        running.append(server)
        return server.start() if start else server

    yield make
    for server in running:
        server.kill()
