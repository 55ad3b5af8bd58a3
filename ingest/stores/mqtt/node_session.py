"""An edge node's session at a broker: connected, awaited by its host, born; born again on request; dead in order."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec
import structlog

from fieldlab.sparkplug import payload as p
from ingest.stores.base import StoreError, StoreMisconfiguredError, StoreUnavailableError
from ingest.stores.mqtt.config import MqttConfig
from ingest.stores.mqtt.connection import Connection, Message
from ingest.stores.mqtt.edge_node import NAMESPACE, REBIRTH, EdgeNode, Out
from ingest.stores.mqtt.letters import ENVELOPE
from ingest.stores.mqtt.node_memory import NodeMemory
from ingest.stores.mqtt.suspect import Suspects

_HOST_PAUSE = 1.0  # s between two looks whether the host is there
_HOST_PATIENCE = 0.5  # s that its retained STATE may take to come
_log = structlog.get_logger()


class HostAwayError(StoreUnavailableError):
    """The primary host is not online; the connection is there, and waits with us."""


class NodeSession:
    """Sessions, one after another. Its methods are called under the store's lock, but for `ask` and `needs`.

    Args:
        config: the store's table.
        client_id: our MQTT client id.
        name: of the edge node, for what we say.
        node: makes the messages.
        memory: keeps bdSeq.
        wake: called from paho's thread when there is something to do.

    Attributes:
        born_at: when the births of this session were made, ns; what was committed before has waited for it.
        connection: the connection, if there is one.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        name: str,
        node: EdgeNode,
        memory: NodeMemory,
        wake: Callable[[], None],
    ) -> None:
        self.born_at = 0
        self.connection: Connection | None = None
        self._config, self._client_id, self._name = config, client_id, name
        self._node, self._memory, self._wake = node, memory, wake
        self._qos = config.sparkplug.qos
        self._host = config.sparkplug.host
        three = config.sparkplug.state == "3.0"
        self._state_topic = f"{NAMESPACE}/STATE/{self._host}" if three else f"STATE/{self._host}"
        self._three = three
        self._suspects = Suspects()
        self._online = threading.Event()
        self._state_time = 0
        self._bdseq = 0
        self._born = False
        self._rebirth = False

    @property
    def needs(self) -> bool:
        """Whether `ensure` has something to do, or must find out."""
        there = self.connection is not None and self.connection.up
        host = not self._host or self._online.is_set()
        return not there or self._rebirth or (host != self._born)

    def ensure(self) -> Connection:
        """Be connected and born.

        Raises:
            StoreError: if that cannot be now.
        """
        if self.connection is not None and not self.connection.up:
            self.drop()
        if self.connection is not None and self._born and self._host and not self._online.is_set():
            _log.warning("edge_node_waits_for_host", node=self._name, host=self._host)
            self.end()
        if self.connection is None:
            self._connect()
        assert self.connection is not None
        if self._host and not self._online.wait(_HOST_PATIENCE):
            words = f"{self._config.url}: Sparkplug host {self._host!r} is not online; readings wait for it"
            raise HostAwayError(words, retry_after=_HOST_PAUSE)
        if not self._born or self._rebirth:
            self._bear()
        return self.connection

    def send(self, outs: Sequence[Out], *, last: bool = True) -> dict[int, str]:
        """Publish; which were refused, with the broker's words. `last`: as in `Suspects`.

        Raises:
            StoreUnavailableError: if the connection is lost: everything comes again, behind new births.
            StoreMisconfiguredError: if a birth certificate is refused.
        """
        assert self.connection is not None
        most = self.connection.broker_packet
        for out in outs:
            if out.is_birth and len(out.payload) + len(out.topic.encode()) + ENVELOPE > most:
                self._refuse_birth(out, f"it allows {most} bytes; choose fewer `signals`, or allow more there")
        messages = [Message(out.topic, out.payload, self._qos) for out in outs]
        marks = [b"".join(part.data for part in out.parts) for out in outs]
        refused = self._suspects.publish(self.connection, messages, marks, last=last)
        for i, words in refused.items():
            if outs[i].is_birth:
                self._refuse_birth(outs[i], words)
        return refused

    def _refuse_birth(self, out: Out, words: str) -> NoReturn:
        raise StoreMisconfiguredError(
            f"{self._config.url} refuses the birth certificate on {out.topic}, {len(out.payload)} bytes: {words};"
            " without it nobody understands the data"
        )

    def end(self) -> None:
        """Say that we die, and disconnect."""
        connection = self.connection
        if connection is not None and connection.up and self._born:
            out = self._node.death(self._bdseq)
            try:
                connection.publish([Message(out.topic, out.payload, 1)])
            except StoreError as e:
                _log.warning("edge_node_death_not_told", node=self._name, error=str(e))
        self.drop()

    def drop(self) -> None:
        """Let go of the connection."""
        connection, self.connection = self.connection, None
        self._born = False
        if connection is not None:
            connection.close()

    def _connect(self) -> None:
        self._online.clear()
        self._state_time = 0
        self._bdseq = self._memory.next_bdseq()
        out = self._node.death(self._bdseq)
        connection = Connection(
            self._config,
            self._client_id,
            will=Message(out.topic, out.payload, 1),
            on_message=self._heard,
            on_lost=self._wake,
        )
        connection.open()
        self.connection = connection
        filters = [self._node.topic("NCMD"), *([self._state_topic] if self._host else [])]
        if refused := connection.subscribe(filters):
            words = "; ".join(f"{topic!r}: {why}" for topic, why in refused.items())
            raise StoreMisconfiguredError(f"{self._config.url} refuses the subscription to {words}")

    def _bear(self) -> None:
        assert self.connection is not None
        self._rebirth = False
        self._node.max_packet = self.connection.max_packet
        self._node.careful = self._suspects.careful
        born_at = time.time_ns()
        outs = self._node.births(self._bdseq, born_at // 1_000_000)
        self.send(outs, last=False)
        if not self._born:
            self.born_at = born_at
        self._born = True
        _log.info("edge_node_born", node=self._name, url=self._config.url, bdseq=self._bdseq, devices=len(outs) - 1)

    # ---- called by paho, in its thread ----

    def _heard(self, topic: str, payload: bytes) -> None:
        if topic == self._state_topic:
            self._take_state(payload)
        else:
            self._take_command(payload)
        if self.needs:
            self._wake()

    def _take_state(self, payload: bytes) -> None:
        if not self._three:
            (self._online.set if payload == b"ONLINE" else self._online.clear)()
            return
        try:
            said = msgspec.json.decode(payload, type=_State)
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            _log.warning("edge_node_state_unreadable", node=self._name, host=self._host, error=str(e))
            return
        if said.timestamp < self._state_time:
            return  # an older will than the birth that we know
        self._state_time = said.timestamp
        (self._online.set if said.online else self._online.clear)()

    def _take_command(self, payload: bytes) -> None:
        try:
            metrics = p.decode(payload).metrics
        except ValueError as e:
            _log.warning("edge_node_command_unreadable", node=self._name, error=str(e))
            return
        for each in metrics:
            if each.name == REBIRTH and each.value.raw:
                self._rebirth = True
            else:
                _log.warning(
                    "edge_node_command_refused", node=self._name, metric=each.name, reason="nothing is written"
                )


class _State(msgspec.Struct):
    online: bool
    timestamp: int
