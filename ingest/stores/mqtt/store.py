"""Publishes with QoS 1, and is done when the broker has acknowledged everything."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fieldlab.model import Batch, Finding, PartEvent, Record, RecordKind, SignalTable, Verdict, concat
from fieldlab.model.place import SignalKey
from ingest.stores.base import DeadLetter, StoreError
from ingest.stores.mqtt import letters, message, native
from ingest.stores.mqtt.chosen import Chosen
from ingest.stores.mqtt.config import MqttConfig
from ingest.stores.mqtt.connection import Connection, Message
from ingest.stores.mqtt.suspect import Suspects

_READINGS = frozenset({RecordKind.READINGS, RecordKind.BACKFILL})
_ROWS = frozenset({RecordKind.FINDING, RecordKind.PART})

T = TypeVar("T")


class MqttStore:
    """Tells a Unified Namespace. A listener may see a message twice, and those of one topic in order.

    Args:
        name: of the store.
        client_id: its MQTT client id.
        config: the table.
        signals: what the signal indices of a batch mean.
    """

    def __init__(self, name: str, client_id: str, config: MqttConfig, signals: SignalTable) -> None:
        self.name = name
        self.kinds = _ROWS | _READINGS if config.readings else _ROWS
        self._client_id = client_id
        self._config = config
        self._signals = signals
        self._chosen = Chosen(config.signals, signals)
        self._lock = threading.Lock()
        self._suspects = Suspects()
        self._connection: Connection | None = None

    def takes(self) -> NDArray[np.bool_]:
        """See `Choosy`."""
        return self._chosen.mask()

    def write(self, records: Sequence[Record]) -> Sequence[DeadLetter]:
        """See `Store`. Returns when the broker has answered every message."""
        rows = [row for r in records for row in r.rows if isinstance(row, Finding | Verdict | PartEvent)]
        batches = [r.batch for r in records if r.batch is not None and self._config.readings]
        with self._lock:
            return self._with_connection(lambda connection: self._publish(connection, concat(batches), rows))

    def resend(self, letter: DeadLetter) -> Sequence[DeadLetter]:
        """Send a dead letter again: what is refused once more comes back.

        Raises:
            StoreError: nothing counts as kept.
        """
        messages = letters.messages(letter.body)
        with self._lock:
            refused = self._with_connection(lambda connection: self._send(connection, messages))
        return [letters.again(letter, messages, refused)] if refused else []

    def connect(self) -> None:
        """Connect, as the first `write` would.

        Raises:
            StoreError: if the broker is away, or does not let us in.
        """
        with self._lock:
            self._with_connection(lambda _: None)

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            self._drop()

    def _publish(
        self, connection: Connection, batch: Batch, rows: Sequence[Finding | Verdict | PartEvent]
    ) -> Sequence[DeadLetter]:
        told = list(native.told(self._chosen.of(batch), self._signals, self._config.prefix, connection.max_packet))
        messages = [Message(each.topic, each.payload) for each in told]
        messages += [Message(message.topic(self._config.prefix, row), message.payload(row)) for row in rows]
        refused = self._send(connection, messages)
        found = letters.Letters(self.name)
        for i, words in sorted(refused.items()):
            if i < len(told):
                key, each = self._signals[told[i].signal], told[i]
                found.add(key, words, messages[i], each.first, each.last, {each.signal: each.readings})
            else:
                row = rows[i - len(told)]
                key = SignalKey(row.place, messages[i].topic.rpartition("/")[2])
                found.add(key, words, messages[i], row.time, row.time, {})
        return found.all()

    def _send(self, connection: Connection, messages: Sequence[Message]) -> dict[int, str]:
        """Publish what is not too large; what was refused, and why."""
        most = connection.max_packet
        sizes = [len(each.payload) + len(each.topic.encode()) + letters.ENVELOPE for each in messages]
        large = {i: f"Packet too large: {size} bytes, and the broker and max_packet allow {most}"
                 for i, size in enumerate(sizes) if size > most}  # fmt: skip
        sent = [i for i in range(len(messages)) if i not in large]
        refused = self._suspects.publish(connection, [messages[i] for i in sent])
        return large | {sent[i]: words for i, words in refused.items()}

    def _with_connection(self, work: Callable[[Connection], T]) -> T:
        """Do `work` with a connection; one that failed is dropped."""
        try:
            if self._connection is None or not self._connection.up:
                self._drop()
                self._connection = Connection(self._config, self._client_id)
                self._connection.open()
            return work(self._connection)
        except StoreError:
            self._drop()  # what is still queued must not go out behind our back: it comes again
            raise

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
