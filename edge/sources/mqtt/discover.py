"""`fieldlab discover mqtt://…`: listens to a broker for a while and proposes a configuration.

One connection with a random client id, clean start and QoS 0: it takes nothing from anybody and leaves nothing.
"""

import asyncio
import time
from typing import Any, Final

import msgspec

from edge.proposal import Proposal
from edge.sources.base import SourceContext
from edge.sources.mqtt.check import Probe
from edge.sources.mqtt.config import MqttConfig, parse_url
from edge.sources.mqtt.discovery.heard import LARGEST, Tally
from edge.sources.mqtt.discovery.proposing import propose
from edge.sources.mqtt.frames import RETAIN
from edge.sources.mqtt.large import Large
from edge.sources.mqtt.topics import check_filter
from fieldlab.config import Size
from fieldlab.errors import ConfigError, RefusedError

BAMBU_USER: Final = "bblp"  # every Bambu printer's own broker has this user (OpenBambuAPI, mqtt.md)
_BAMBU_REPORTS: Final = "device/+/report"


class _Listener(Probe):
    """Counts what comes."""

    def __init__(self, config: MqttConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        self.beside = ()  # what was asked for, and nothing else
        self.tally = Tally()

    def _receive(
        self, topic: bytes, payload: bytes, arrival: int, *, mid: int, qos: int, redelivered: bool, retained: bool
    ) -> None:
        del mid, qos, redelivered
        name = topic.decode(errors="replace")
        if not name.startswith("$"):
            self.tally.add(name, payload, arrival, retained=retained)

    def _large(self, large: Large) -> None:
        self.tally.add_large(large.topic.decode(errors="replace"), retained=large.head & RETAIN != 0)


def default_filters(username: str) -> tuple[str, ...]:
    """What to listen to where nothing is said: everything.

    Of a Bambu printer its reports alone: to subscribe to the requests makes some printers end the session.
    """
    return (_BAMBU_REPORTS,) if username == BAMBU_USER else ("#",)


async def discover(
    config: MqttConfig, context: SourceContext, keys: dict[str, Any], *, seconds: float = 5.0
) -> Proposal:
    """What is published on a broker.

    Args:
        config: url, user, TLS and the filters to listen to.
        context: as of an agent.
        keys: the `[[source]]` keys to print, as they were asked for.
        seconds: how long to listen.

    Raises:
        ConfigError: if the url or a filter makes no sense.
        RefusedError: if the broker cannot be reached or refuses.
    """
    parse_url(config.url)
    for each in config.topics:
        try:
            check_filter(each)
        except ValueError as e:
            raise ConfigError(str(e), key="topics") from None
    listener = _Listener(msgspec.structs.replace(config, max_payload=Size(LARGEST)), context)
    began = time.monotonic()
    await asyncio.to_thread(listener.run, seconds)
    if not listener.answered or listener.error:
        raise RefusedError(listener.error or f"{config.url} does not answer")
    if set(listener.refused) >= set(listener.asked):
        raise RefusedError(
            f"{config.url} refused every subscription: {listener.refused}; name what this user may read with --topics"
        )
    return propose(listener.tally, keys, context, seconds=min(seconds, time.monotonic() - began))
