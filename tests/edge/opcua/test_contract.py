"""The contract of every source, on a server that we did not write."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from edge.sources.contract import SourceContract
from edge.sources.opcua import KIND

VARIABLES = {"a": {"type": "Double", "value": 0}, "b": {"type": "Double", "value": 0}}


class Device:
    """Two variables of a node-opcua server, behind a network that may break."""

    def __init__(self, server: Any, between: Any) -> None:
        self._server = server
        self._between = between
        self._numbers = itertools.count(1)

    def table(self) -> str:
        signals = "\n".join(
            f'[[source.signal]]\nname = "{name}"\nnode = "nsu={self._server.uri};s={self._server.prefix}{name}"'
            for name in VARIABLES
        )
        return f"""[[source]]
kind = "opcua"
machine = "cnc-07"
url = "{self._server.url}"
security = "none"
interval = "20ms"
sampling = "0ms"
queue = 1000
keep_alive = "500ms"
{signals}
"""

    def produce(self, count: int) -> dict[str, list[float]]:
        sent: dict[str, list[float]] = {}
        for name in VARIABLES:
            values = [float(next(self._numbers)) for _ in range(count)]
            for value in values:
                self._server.ask("set", name=name, type="Double", value=value)
            sent[f"cnc-07/{name}"] = values
        return sent

    def cut(self) -> None:
        self._between.open = False
        self._between.cut()

    def restore(self) -> None:
        self._between.open = True

    def spoil(self) -> bool:
        return False


class TestOpcua(SourceContract):
    kind = KIND

    @pytest.fixture
    def device(self, shared: Callable[..., Any], proxy: Callable[[Any], Any]) -> Device:
        server = shared(VARIABLES)
        return Device(server, proxy(server))
