"""The contract of every source, on a real broker."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from edge.sources.contract import SourceContract
from edge.sources.mqtt import KIND


class Device:
    """Two signals behind a broker that may go away."""

    def __init__(self, broker: Any, connect: Callable[[Any], Any]) -> None:
        self._broker = broker
        self._connect = connect
        self._publisher: Any = None
        self._numbers = itertools.count(1)

    def table(self) -> str:
        return f"""[[source]]
kind = "mqtt"
url = "{self._broker.url}"
username = "{self._broker.user}"
password_file = "{self._broker.password_file}"
"""

    def produce(self, count: int) -> dict[str, list[float]]:
        if self._publisher is None:
            self._publisher = self._connect(self._broker)
        sent: dict[str, list[float]] = {"cnc-07/load": [], "robot-1/torque": []}
        for short, values in sent.items():
            values += [float(next(self._numbers)) for _ in range(count)]
            payloads = [f'{{"value": {v}, "ts": {time.time_ns() // 1000 + i}}}' for i, v in enumerate(values)]
            self._publisher.send(f"fieldlab/s/a/l/{short}", *payloads)
        return sent

    def cut(self) -> None:
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
        self._broker.stop()

    def restore(self) -> None:
        self._broker.start()

    def spoil(self) -> bool:
        self._publisher.send("fieldlab/s/a/l/cnc-07/load", b'{"value": ')
        return True


class TestMqtt(SourceContract):
    kind = KIND

    @pytest.fixture
    def device(
        self, mosquitto: Callable[..., Any], publisher: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
    ) -> Device:
        monkeypatch.setattr("edge.sources.mqtt.source._BACK_OFF", (0.05, 0.2))
        return Device(mosquitto(), publisher)
