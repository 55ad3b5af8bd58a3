"""The journal as a Sparkplug B edge node: readings that waited go out as history, behind new births."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from fieldlab.model import (
    Finding,
    PartEvent,
    Record,
    RecordKind,
    SignalInfo,
    SignalTable,
    Verdict,
    concat,
)
from fieldlab.model.place import SignalKey
from fieldlab.sparkplug import payload as p
from ingest.stores.base import DeadLetter, StoreError
from ingest.stores.mqtt import letters, message
from ingest.stores.mqtt.chosen import Chosen
from ingest.stores.mqtt.config import MqttConfig
from ingest.stores.mqtt.connection import Message
from ingest.stores.mqtt.edge_node import EdgeNode, Out
from ingest.stores.mqtt.node_memory import NodeMemory
from ingest.stores.mqtt.node_session import HostAwayError, NodeSession

_SAVE_EVERY = 60.0  # s
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_REBIRTH_PAUSE = 1.0  # s between two births: requests meanwhile are one
_log = structlog.get_logger()


class NodeStore:
    """One edge node at one broker; findings and verdicts go out natively beside it.

    A thread of its own keeps the session while there is nothing to write.

    Args:
        name: of the store.
        client_id: its MQTT client id.
        node: the edge node's name.
        config: the table.
        signals: what the signal indices of a batch mean.
        data: the agent's data folder.
    """

    kinds = frozenset(
        {
            RecordKind.READINGS,
            RecordKind.BACKFILL,
            RecordKind.FINDING,
            RecordKind.PART,
            RecordKind.SIGNAL,
            RecordKind.AGENT,  # every few seconds: what shows that nothing waits any more
        }
    )

    def __init__(
        self, name: str, client_id: str, node: str, config: MqttConfig, signals: SignalTable, data: Path
    ) -> None:
        self.name = name
        self._config = config
        self._signals = signals
        self._chosen = Chosen(config.signals, signals)
        self._node = EdgeNode(config.sparkplug.group, node, config.sparkplug.device, signals)
        self._memory = NodeMemory(data / f"{name}.edge-node", config.sparkplug.group, node)
        mask = self._chosen.mask()
        self._node.restore({s: each for s, each in self._memory.metrics.items() if s < len(mask) and mask[s]})
        self._metrics_saved = len(self._node.known)
        self._saved = time.monotonic()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._session = NodeSession(config, client_id, node, self._node, self._memory, self._wake.set)

    def takes(self) -> NDArray[np.bool_]:
        """See `Choosy`."""
        return self._chosen.mask()

    def write(self, records: Sequence[Record]) -> Sequence[DeadLetter]:
        """See `Store`. Returns when the broker has answered every message (QoS 0: has read them)."""
        with self._lock:
            for record in records:
                for row in record.rows:
                    if isinstance(row, SignalInfo):
                        self._node.describe(row)
            self._look()
            found = letters.Letters(self.name)
            with self._all_or_nothing():
                self._session.ensure()
                for waited, group in groupby(records, self._waited):
                    self._publish(list(group), found, historical=waited)
            self._save()
            return found.all()

    def resend(self, letter: DeadLetter) -> Sequence[DeadLetter]:
        """Send a dead letter again, readings as history: what is refused once more comes back.

        Raises:
            StoreError: nothing counts as kept.
        """
        with self._lock:
            with self._all_or_nothing():
                connection = self._session.ensure()
                if not letter.counts:
                    messages = letters.messages(letter.body)
                    refused = connection.publish(messages)
                    return [letters.again(letter, messages, refused)] if refused else []
                again = letters.Letters(self.name)
                self._send(self._node.again(p.decode(letter.body).metrics, _now()), again)
            return again.all()

    def close(self) -> None:
        """Say that the edge node dies, and disconnect."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._session.end()
            self._memory.save(self._node.known)

    def _waited(self, record: Record) -> bool:
        return record.kind == RecordKind.BACKFILL or record.time < self._session.born_at

    def _publish(self, records: Sequence[Record], found: letters.Letters, *, historical: bool) -> None:
        now = _now()
        outs = self._node.pending(now)
        if not historical:
            outs += self._node.refresh(now)
        batch = self._chosen.of(concat([r.batch for r in records if r.batch is not None]))
        self._send(outs + self._node.data(batch, now, historical=historical), found)
        rows = [row for r in records for row in r.rows if isinstance(row, Finding | Verdict | PartEvent)]
        messages = [Message(message.topic(self._config.prefix, row), message.payload(row)) for row in rows]
        connection = self._session.connection
        if messages and connection is not None:
            for i, words in sorted(connection.publish(messages).items()):
                key = SignalKey(rows[i].place, messages[i].topic.rpartition("/")[2])
                found.add(key, words, messages[i], rows[i].time, rows[i].time, {})

    def _save(self) -> None:
        """Keep the metrics on disk when there are new ones, and now and then."""
        if len(self._node.known) != self._metrics_saved or time.monotonic() - self._saved > _SAVE_EVERY:
            self._metrics_saved, self._saved = len(self._node.known), time.monotonic()
            self._memory.save(self._node.known)

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """What is told inside is told, or comes again on another connection."""
        try:
            yield
        except HostAwayError:
            raise
        except StoreError:
            self._node.untold()
            self._session.drop()
            raise
        self._node.told()

    def _send(self, outs: Sequence[Out], found: letters.Letters) -> None:
        """Publish what can be; what cannot, or is refused, becomes a letter."""
        sent = [out for out in outs if not out.words]
        refused = self._session.send(sent)
        for out in [out for out in outs if out.words] + [sent[i]._replace(words=w) for i, w in refused.items()]:
            if not out.parts:
                _log.warning("edge_node_message_refused", topic=out.topic, reason=out.words)
            for part in out.parts:
                found.add_part(self._signals[part.signal], out.words, part.data, part.time, part.signal)
                self._node.refused(part.signal)

    def _look(self) -> None:
        """Have a thread look after the session from the first write on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look_after, name=f"edge-node-{self.name}", daemon=True)
            self._thread.start()

    def _look_after(self) -> None:
        """Reconnect, and be born again, also while there is nothing to write."""
        pause = _FIRST_PAUSE
        while not self._closing.is_set():
            self._wake.wait(None if not self._session.needs else pause)
            self._wake.clear()
            if self._closing.is_set() or not self._session.needs:
                pause = _FIRST_PAUSE
                continue
            with self._lock:
                try:
                    self._session.ensure()
                    pause = _FIRST_PAUSE
                except HostAwayError:
                    pause = _FIRST_PAUSE
                except StoreError as e:
                    _log.debug("edge_node_not_there", store=self.name, error=str(e))  # the store's lane says it aloud
                    self._session.drop()
                    pause = min(2 * pause, _LONGEST_PAUSE)
            self._closing.wait(_REBIRTH_PAUSE)


def _now() -> int:
    return time.time_ns() // 1_000_000
