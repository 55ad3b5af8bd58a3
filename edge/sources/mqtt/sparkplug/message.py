"""A message as far as it can be read without a birth certificate."""

from typing import NamedTuple

from edge.sources.mqtt.sparkplug.naming import Topic, parse
from fieldlab.sparkplug.payload import Payload, decode


class One(NamedTuple):
    """A message and its parts; `mark` tells it from others in this process."""

    topic: bytes
    payload: bytes
    arrival: int
    qos: int
    name: Topic
    body: Payload
    mark: int

    @classmethod
    def of(cls, topic: bytes, payload: bytes, arrival: int, qos: int) -> "One":
        """Parse it.

        Raises:
            Ignored: if it is not for a host.
            ValueError: if it is not Sparkplug B.
        """
        name = parse(topic)
        return cls(topic, payload, arrival, qos, name, decode(payload), hash((topic, payload)))

    @property
    def bdseq(self) -> int | None:
        """Which session at the broker a birth or death of an edge node belongs to."""
        found = next((m.value.raw for m in self.body.metrics if m.name == "bdSeq"), None)
        return found if isinstance(found, int) else None
