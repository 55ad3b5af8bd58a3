"""The dialect `sparkplug`: a host application at the broker."""

import time
from collections import Counter
from collections.abc import Callable

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.formats import Signals
from edge.sources.mqtt.keeper import Hole, Keeper, Rejected
from edge.sources.mqtt.rows import Rows
from edge.sources.mqtt.sparkplug.flow import Flow
from edge.sources.mqtt.sparkplug.known import Known
from edge.sources.mqtt.sparkplug.memory import Memory
from edge.sources.mqtt.sparkplug.message import One
from edge.sources.mqtt.sparkplug.naming import DEFAULT_TOPIC, NAMESPACE, Places
from edge.sources.mqtt.sparkplug.nodes import Node
from edge.sources.mqtt.sparkplug.reading import Reader
from edge.sources.mqtt.sparkplug.rebirths import Rebirths
from edge.sources.mqtt.sparkplug.state import HostState
from edge.sources.mqtt.sparkplug.waiting import Waiting
from edge.sources.mqtt.speaker import Message, Speaker
from fieldlab.model import Guarantee, SignalKey

_SEEN = 4096  # messages remembered, at least, to know them when they come again
_COUNTERS = (
    "births deaths late_deaths held reordered gaps missed holes repeated rejected superseded skipped mismatched "
    "retyped unborn absurd_times historical transient rebirths_asked"
)


class HostDialect(Speaker, Keeper):
    """The dialect `sparkplug`; see `Dialect`, `Speaker` and `Keeper`.

    Args:
        config: the source's table.
        context: the agent.
        signals: gives signals their numbers.
        clock: seconds, for what waits.
    """

    def __init__(
        self,
        config: MqttConfig,
        context: SourceContext,
        signals: Signals,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config.sparkplug
        self._persistent = config.session == "persistent"
        self._guarantee: Guarantee = config.guarantee if self._persistent else "from-receipt"
        self._totals: Counter[str] = Counter(dict.fromkeys(_COUNTERS.split(), 0))
        self._state = HostState(config.sparkplug.host_id or context.agent, config.sparkplug.state, clock)
        self._rebirths = Rebirths(clock)
        self._waiting = Waiting(clock, config.sparkplug.reorder, config.sparkplug.patience)
        self._memory = Memory(context.data / f"{context.name}.sparkplug")
        defaults = {"site": context.site, "area": context.area, "line": context.line, "machine": config.machine}
        places, reader = Places(topic_of(config), defaults), Reader(signals, self._totals)
        self._known = Known(places, self._memory, self._waiting, reader, self._sure)
        self._flow = Flow(
            self._known,
            self._waiting,
            reader,
            self._totals,
            self._sure,
            self._want,
            lambda node: self._rebirths.born(node.key),
            max(_SEEN, 2 * config.in_flight),
        )
        self._loaded = False
        self._fresh = True  # whether this process has not greeted yet

    @property
    def counters(self) -> dict[str, int]:
        """Named totals, beside those of every source."""
        online = sum(node.online for node in list(self._known.nodes.values()))
        waiting = {"waiting": len(self._waiting), "nodes_online": online}
        return {**self._totals, **waiting, "rebirths_asked": self._rebirths.asked}

    def read(self, topic: bytes, payload: bytes, arrival: int, rows: Rows, *, retained: bool, qos: int) -> int:
        """As in `Dialect`."""
        if topic == self._state.topic.encode():
            self._state.heard(payload)
            raise Ignored("ignored")
        if retained:  # Sparkplug retains nothing but STATE: what an edge node said long ago is not its state now
            raise Ignored("ignored")
        found = self._flow.read(One.of(topic, payload, arrival, qos), redelivered=self.redelivered)
        for each in found:
            (rows.past if each.past else rows).add(each.signal, each.time, each.value, each.status)
        return len(found)

    def place_of(self, topic: bytes) -> SignalKey | None:
        """As in `Dialect`; a topic names a machine and no signal."""
        del topic
        return None

    def _sure(self, qos: int) -> Guarantee:
        return self._guarantee if qos else "from-receipt"

    def _want(self, node: Node) -> None:
        if self._config.rebirth:
            self._rebirths.ask(node.key)

    # ---- Speaker ----

    def will(self) -> Message | None:
        """As in `Speaker`."""
        if not self._loaded:
            self._loaded = True
            self._known.load()
        return self._state.will() if self._config.primary else None

    def connected(self, *, present: bool) -> None:
        """As in `Speaker`: what may have been missed while we were away?"""
        for node in self._known.nodes.values():
            kept = present and self._persistent and node.birth_qos > 0
            node.trusted = node.trusted and kept
            node.watched = node.watched and kept

    def greetings(self, *, present: bool) -> list[Message]:
        """As in `Speaker`."""
        del present
        for node in self._known.nodes.values():
            if node.online and (self._fresh or not node.trusted):
                self._want(node)
        self._fresh = False
        return [self._state.birth()] if self._config.primary else []

    def drain(self) -> list[Message]:
        """As in `Speaker`."""
        for node in self._waiting.overdue():
            self._flow.incomplete(node)
            node.trusted = False
            self._known.changed(node)
            self._waiting.give_up_order(node)
            self._want(node)
        for held in self._waiting.expired():
            reason = f"no birth certificate came within {self._config.patience:.0f} s that explains it"
            self._flow.reject(held.topic, held.payload, held.arrival, reason)
        again = self._config.primary and self._state.owed()
        return [*([self._state.birth()] if again else []), *self._rebirths.due()]

    def farewell(self) -> list[Message]:
        """As in `Speaker`."""
        return [self._state.death()] if self._config.primary else []

    # ---- Keeper ----

    def rejected(self) -> list[Rejected]:
        """As in `Keeper`."""
        found, self._flow.rejected = self._flow.rejected, []
        return found

    def holes(self) -> list[Hole]:
        """As in `Keeper`: gaps of the sequence, and of bdSeq."""
        found, self._flow.holes = self._flow.holes, []
        return found

    def checkpoint(self) -> Callable[[], None] | None:
        """As in `Keeper`."""
        return self._known.checkpoint()


def topic_of(config: MqttConfig) -> str:
    """The template of places: `topic`, or the default of this format."""
    return config.topic if config.topic.startswith(f"{NAMESPACE}/") else DEFAULT_TOPIC
