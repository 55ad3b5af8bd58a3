"""The plug-in's own tests: Fieldlab's contract, on a real socket."""

import itertools
import socket
import threading
from collections.abc import Iterator

import pytest
from lines_source import KIND  # type: ignore[import-not-found]  # a package of its own, on the path when its tests run

from edge.sources.contract import SourceContract


class Scale:
    """A machine: sends its lines to whoever is connected, and keeps none for those who are not."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._clients: list[socket.socket] = []
        self._numbers = itertools.count(1)
        self._listen()

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._clients.append(client)
            client.sendall(b"lines 1.0\n")  # from here on it hears everything

    def table(self) -> str:
        return f'[[source]]\nkind = "lines"\nhost = "127.0.0.1"\nport = {self._port}\nmachine = "scale-1"\n'

    def produce(self, count: int) -> dict[str, list[float]]:
        sent: dict[str, list[float]] = {"scale-1/gross": [], "scale-1/net": []}
        for _ in range(count):
            for short, values in sent.items():
                values.append(float(next(self._numbers)))
                self._send(f"{short.split('/')[1]} {values[-1]}\n".encode())
        return sent

    def _send(self, line: bytes) -> None:
        for client in self._clients:
            try:
                client.sendall(line)
            except OSError:
                continue

    def spoil(self) -> bool:
        self._send(b"E07 \xff\xff\n")
        return True

    def cut(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._clients:
            client.close()
        self._clients.clear()

    def restore(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._listen()


class TestLines(SourceContract):
    kind = KIND
    guarantee = "from-receipt"
    patience = 10.0

    @pytest.fixture
    def device(self) -> Iterator[Scale]:
        scale = Scale()
        yield scale
        scale.cut()
