"""A host that is fed by hand."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.rows import Rows
from edge.sources.mqtt.sparkplug.config import SparkplugConfig
from edge.sources.mqtt.sparkplug.host import HostDialect
from fieldlab.model import SignalTable


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
