"""What the broker's queues dropped, by its own counter: of mosquitto, which counts the messages of all its clients.

While we hold the broker, or are away, its queue is where readings wait, and where they are lost when it is full. The
broker tells nobody whose they were: so a rise is a gap of every signal of the source that nobody can verify.
"""

import time
from collections.abc import Sequence

import structlog
from paho.mqtt.reasoncodes import ReasonCode

from edge.sources.base import Sink
from edge.sources.mqtt.client import MqttClient
from edge.sources.mqtt.frames import Frames
from edge.sources.mqtt.session import SessionFile

_log = structlog.get_logger()

TOPIC = "$SYS/broker/publish/messages/dropped"
_OCTETS = TOPIC.encode()
_LAG = 60 * 10**9  # ns: the broker tells its counter every `sys_interval`, 10 s by default, if it has changed


class BrokerDrops:
    """Watches the counter of one source's broker. Used by its thread.

    Args:
        source: its name.
        sink: where gaps are noted.
        session: keeps the counter, so that a rise between two runs is seen.
    """

    def __init__(self, source: str, sink: Sink, session: SessionFile) -> None:
        self._source = source
        self._sink = sink
        self._session = session
        self._asked = 0  # the request that the broker has not answered yet
        self._subscribed = self._off = False
        self._told = 0  # when the broker last told it, ns
        self._since: int | None = None  # from when on the broker may have had to keep messages back
        self._calm = 0  # since when it has not
        self.seen: int | None = None  # in this run

    def started(self) -> None:
        """The agent was not here since the newest reading that the journal knows."""
        last = self._sink.last_times(self._sink.signals_of(self._source))
        self._since = min(max(last.values()), time.time_ns()) if last else None
        self._calm = time.time_ns()

    def subscribe(self, client: MqttClient) -> None:
        """Ask for the counter, once a connection and at QoS 0: nothing of it waits for us while we are away."""
        if not self._subscribed and not self._off:
            self._subscribed = True
            self._asked = client.subscribe_to([TOPIC], qos=0, always_retained=True)

    def answered(self, request: int, reasons: Sequence[ReasonCode]) -> None:
        """The broker has answered a request to subscribe."""
        if request and request == self._asked:
            self._asked = 0
            if any(reason.is_failure for reason in reasons):
                _log.info("mqtt_dropped_counter_refused", source=self._source, reason=str(reasons[0]))

    def lost(self) -> None:
        """The connection is lost. A broker that ended it rather than answer our question is not asked again."""
        self._off = self._off or bool(self._asked)
        if self._asked:
            _log.warning("mqtt_dropped_counter_not_asked_again", source=self._source, topic=TOPIC)
        self._asked, self._subscribed = 0, False
        self.look(reading=False)

    def look(self, *, reading: bool) -> None:
        """Say whether we read now; if not, the broker has to keep what comes."""
        now = time.time_ns()
        if not reading:
            self._since = now if self._since is None else self._since
            self._calm = now
        elif self._since is not None and now - self._calm > _LAG:
            self._since = None

    def take(self, frames: Frames) -> None:
        """Take the counter's messages out of `frames`."""
        while _OCTETS in frames.topics:
            at = frames.topics.index(_OCTETS)
            payload = frames.payloads[at]
            for column in (frames.topics, frames.payloads, frames.heads, frames.ids):
                del column[at]
            if payload.isdigit() and len(payload) < 19:
                self._counted(int(payload))

    def _counted(self, total: int) -> None:
        now = time.time_ns()
        before = self._session.now.dropped
        more = total - before if total >= before else total  # less: another broker, or it began anew
        if before >= 0 and more > 0:
            self._note(more, total, now)
        self._told, self.seen = now, total
        self._session.dropped(total)

    def _note(self, more: int, total: int, now: int) -> None:
        start = min(max(self._told, (now if self._since is None else self._since) - _LAG), now)
        words = (
            f"the broker's queues dropped {more} messages, of whichever client, {total} since it started "
            "(mosquitto: max_queued_messages is their length)"
        )
        _log.warning("mqtt_broker_dropped", source=self._source, messages=more)
        signals = self._sink.signals_of(self._source)
        spans = dict.fromkeys(signals, (start, now))
        self._sink.note_gap(self._source, "queue_overflow", spans, state="unverifiable", detail=words)
