"""An edge node that speaks through npm's encoder, and a host that is fed by hand."""

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.rows import Rows
from edge.sources.mqtt.sparkplug.config import SparkplugConfig
from edge.sources.mqtt.sparkplug.host import HostDialect
from fieldlab.model import SignalTable

INTEROP = Path(__file__).parents[3] / "interop"


class Encoder:
    """npm's sparkplug-payload in a process of its own; see tests/interop/sparkplug.js."""

    def __init__(self, node: str) -> None:
        self._process = subprocess.Popen(
            [node, str(INTEROP / "sparkplug.js")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=INTEROP
        )

    def __call__(self, payload: dict[str, Any]) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(payload).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the encoder refuses {payload}"
        return base64.b64decode(line)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="session")
def encode(sparkplug_payload: str) -> Iterator[Encoder]:
    """`encode(payload)` is the bytes that npm's encoder makes of it."""
    made = Encoder(sparkplug_payload)
    yield made
    made.close()


class EdgeNode:
    """An edge node: births, data and deaths as the specification wants them, with npm's encoder.

    `births` and `data` return (topic, payload), not yet published.
    """

    def __init__(self, encode: Encoder, group: str = "g", node: str = "n") -> None:
        self.group, self.node = group, node
        self.bdseq = 0
        self.seq = 0
        self.clock = time.time_ns() // 1_000_000 - 60_000
        self._encode = encode

    def topic(self, kind: str, device: str = "") -> str:
        return f"spBv1.0/{self.group}/{kind}/{self.node}" + (f"/{device}" if device else "")

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def metric(self, name: str | None, value: Any, type: str = "Double", **more: Any) -> dict[str, Any]:  # noqa: A002  # npm's word
        made = {"value": value, "type": type, "timestamp": self.tick(), **more}
        return made if name is None else {"name": name, **made}

    def _next(self, metrics: list[dict[str, Any]]) -> dict[str, Any]:
        made = {"timestamp": self.tick(), "seq": self.seq, "metrics": metrics}
        self.seq = (self.seq + 1) % 256
        return made

    def nbirth(self, *metrics: dict[str, Any], bdseq: int | None = None) -> tuple[str, bytes]:
        self.seq = 0
        self.bdseq = self.bdseq if bdseq is None else bdseq
        own = self.metric("bdSeq", self.bdseq, "UInt64")
        control = self.metric("Node Control/Rebirth", value=False, type="Boolean")
        return self.topic("NBIRTH"), self._encode(self._next([own, control, *metrics]))

    def ndeath(self, bdseq: int | None = None) -> tuple[str, bytes]:
        own = {"name": "bdSeq", "value": self.bdseq if bdseq is None else bdseq, "type": "UInt64"}
        return self.topic("NDEATH"), self._encode({"timestamp": self.tick(), "metrics": [own]})

    def send(self, kind: str, *metrics: dict[str, Any], device: str = "") -> tuple[str, bytes]:
        return self.topic(kind, device), self._encode(self._next(list(metrics)))


@pytest.fixture
def edge_node(encode: Encoder) -> Callable[..., EdgeNode]:
    """`edge_node(group, node)` is a new edge node."""
    return lambda *names: EdgeNode(encode, *names)


class Host:
    """A host application without a broker; its clock is moved by hand."""

    def __init__(self, context: SourceContext, **keys: Any) -> None:
        self.now = 1000.0
        self.table = SignalTable()
        self.infos: dict[str, Any] = {}
        config = MqttConfig(url="mqtt://x", format="sparkplug", sparkplug=SparkplugConfig(**keys))
        self.dialect = HostDialect(config, context, self, clock=lambda: self.now)
        self.dialect.will()
        self.past: list[tuple[str, float]] = []

    def index(self, key: Any, guarantee: str = "end-to-end") -> int:
        self.infos.setdefault(key.short, guarantee)
        return self.table.index(key)

    def describe(self, info: Any, **_: Any) -> int:
        self.infos[info.key.short] = info
        return self.table.index(info.key)

    def connect(self, *, present: bool = True) -> list[str]:
        """Connect; the topics of what is said."""
        self.dialect.connected(present=present)
        return [m.topic for m in (*self.dialect.greetings(present=present), *self.dialect.drain())]

    def __call__(
        self, message: tuple[str, bytes], *, qos: int = 1, retained: bool = False, redelivered: bool = False
    ) -> Any:
        """Read one message: [(machine/signal, value, status)], or the reason why it is ignored."""
        rows = Rows()
        self.dialect.redelivered = redelivered
        try:
            self.dialect.read(message[0].encode(), message[1], time.time_ns(), rows, retained=retained, qos=qos)
        except Ignored as e:
            return e.reason
        self.past += [(name, value) for name, value, _ in self._readings(rows.past.build())]
        return self._readings(rows.build())

    def _readings(self, batch: Any) -> list[tuple[str, Any, int]]:
        texts = batch.texts()
        exact = dict(zip(batch.integer_row.tolist(), batch.integer.tolist(), strict=True))
        return [
            (
                self.table[int(batch.signal[i])].short,
                texts.get(i, exact.get(i, None if batch.value[i] != batch.value[i] else float(batch.value[i]))),
                int(batch.status[i]),
            )
            for i in range(len(batch))
        ]

    def say(self) -> list[str]:
        """The topics of what the host says now."""
        return [message.topic for message in self.dialect.drain()]

    def save(self) -> None:
        """Acknowledge: everything is on disk."""
        keep = self.dialect.checkpoint()
        if keep is not None:
            keep()

    def count(self, name: str) -> int:
        return self.dialect.counters[name]


@pytest.fixture
def host(context: SourceContext) -> Callable[..., Host]:
    """`host(**keys)` is a connected host; keys of `[source.sparkplug]`. A second one takes up what the first saved."""

    def make(*, present: bool = True, **keys: Any) -> Host:
        made = Host(context, **keys)
        made.connect(present=present)
        return made

    return make
