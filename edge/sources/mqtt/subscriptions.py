"""Subscribes after each connect, and keeps what the broker answered."""

from collections.abc import Callable, Sequence
from typing import Any

import structlog
from paho.mqtt.client import Client
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.sources.mqtt.client import MqttClient
from edge.sources.mqtt.session import SessionFile

_log = structlog.get_logger()


class Subscriptions:
    """The filters of one source at its broker.

    Attributes:
        answered: whether the broker has answered on this connection; the source clears it at a loss.
        refused: filter → why the broker refuses it, and what to do.
        other_answered: gets the answers to requests that are not ours.

    Args:
        name: the source's name.
        filters: what to subscribe to.
        session: what is remembered of the session.
        client_id: our name at the broker.
    """

    def __init__(self, name: str, filters: tuple[str, ...], session: SessionFile, client_id: str) -> None:
        self.answered = False
        self.refused: dict[str, str] = {}
        self._name = name
        self._filters = filters
        self._session = session
        self._client_id = client_id
        self._granted = False  # whether all filters were granted in this process
        self._stale: tuple[str, ...] = ()
        self._request = 0
        self.other_answered: Callable[[int, Sequence[ReasonCode]], None] = lambda _request, _reasons: None

    def attach(self, client: MqttClient) -> None:
        """Take the broker's answers on `client`."""
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe

    def connected(self, client: MqttClient, *, present: bool) -> None:
        """The broker has accepted us: subscribe, and drop what an older configuration left in the session.

        Args:
            client: the connection.
            present: whether the broker kept our session.
        """
        self._stale = self._session.connected(present=present, filters=self._filters)
        if self._stale:
            client.unsubscribe(list(self._stale))
        if present and self._granted:
            self.answered = True  # to subscribe again would bring retained messages again, with MQTT 3.1.1
        else:
            self._request = client.subscribe_to(self._filters, qos=1)

    def _on_subscribe(
        self, _client: Client, _userdata: Any, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if mid != self._request:
            self.other_answered(mid, reasons)
            return
        self.answered = True
        self.refused = {
            each: f"{reason} (the broker's access rules must allow client {self._client_id!r} to subscribe to it)"
            for each, reason in zip(self._filters, reasons, strict=False)
            if reason.is_failure
        }
        self._granted = not self.refused
        for each, why in self.refused.items():
            _log.error("mqtt_subscription_refused", source=self._name, filter=each, reason=why)
        for each, reason in zip(self._filters, reasons, strict=False):
            if reason.value == 0:
                _log.warning("mqtt_subscription_qos_0", source=self._name, filter=each, guarantee="from-receipt")

    def _on_unsubscribe(
        self, _client: Client, _userdata: Any, _mid: int, _reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        _log.info("mqtt_unsubscribed", source=self._name, filters=list(self._stale))
        self._session.unsubscribed(self._stale)
        self._stale = ()
