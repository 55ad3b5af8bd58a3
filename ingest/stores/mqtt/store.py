"""Publishes with QoS 1, and is done when the broker has acknowledged everything."""

import threading
import time
from collections.abc import Callable, Sequence

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fieldlab.errors import ConfigError
from fieldlab.model import Finding, PartEvent, Record, RecordKind, Verdict
from fieldlab.secrets import read_secret
from ingest.stores.base import DeadLetter, StoreMisconfiguredError, StoreUnavailableError
from ingest.stores.mqtt.config import MqttConfig, broker
from ingest.stores.mqtt.message import payload, topic

_IN_FLIGHT = 200
_NOT_OURS_TO_MEND = frozenset({"Bad user name or password", "Not authorized", "Bad authentication method", "Banned"})
_log = structlog.get_logger()


class MqttStore:
    """One connection, in paho's own thread, which connects again by itself. A listener may see a row twice.

    Args:
        name: of the store.
        client_id: its MQTT client id.
        config: the table.
    """

    kinds = frozenset({RecordKind.FINDING, RecordKind.PART})

    def __init__(self, name: str, client_id: str, config: MqttConfig) -> None:
        self.name = name
        self._client_id = client_id
        self._config = config
        self._host, self._port, self._secure = broker(config)
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._acknowledged: set[int] = set()
        self._refusal = ""  # why the broker does not let us in, or publish
        self._up = False
        self._client: paho.Client | None = None

    def write(self, records: Sequence[Record]) -> Sequence[DeadLetter]:
        """See `Store`. Returns when the broker has acknowledged every row."""
        rows = [row for r in records for row in r.rows if isinstance(row, Finding | Verdict | PartEvent)]
        if not rows:
            return []
        with self._lock:
            try:
                client = self._connect()
                for start in range(0, len(rows), _IN_FLIGHT):
                    self._publish(client, rows[start : start + _IN_FLIGHT])
            except (StoreUnavailableError, StoreMisconfiguredError):
                self._drop()  # what is still queued must not go out behind our back: it comes again
                raise
        return []

    def connect(self) -> None:
        """Connect, as the first `write` would.

        Raises:
            StoreError: if the broker is away, or does not let us in.
        """
        with self._lock:
            self._connect()

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            self._drop()

    def _publish(self, client: paho.Client, rows: Sequence[Finding | Verdict | PartEvent]) -> None:
        with self._changed:
            self._acknowledged.clear()
        published = set()
        for row in rows:  # never under our lock: paho calls us back while it holds its own
            info = client.publish(topic(self._config.prefix, row), payload(row), qos=1)
            if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
                raise StoreUnavailableError(f"{self._config.url}: {paho.error_string(info.rc)}")
            published.add(info.mid)
        self._wait(lambda: published <= self._acknowledged, f"has not acknowledged {len(rows)} messages")

    def _connect(self) -> paho.Client:
        if self._client is None:
            self._refusal = ""
            self._up = False
            client = self._make()
            self._client = client
            try:
                client.connect(self._host, self._port, keepalive=30)
            except (OSError, ValueError) as e:
                raise StoreUnavailableError(f"{self._config.url} does not answer: {e}") from e
            client.loop_start()
        self._wait(lambda: self._up, "does not answer")
        return self._client

    def _make(self) -> paho.Client:
        five = self._config.protocol == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            clean_session=None if five else True,
        )
        client.reconnect_delay_set(min_delay=1, max_delay=10)
        client.connect_timeout = float(self._config.timeout)
        client.max_inflight_messages_set(_IN_FLIGHT)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        try:
            if self._config.username:
                file = self._config.password_file
                client.username_pw_set(self._config.username, read_secret(file) if file else None)
            if self._secure:
                ca, cert, key = (self._config.ca_file, self._config.cert_file, self._config.key_file)
                client.tls_set(str(ca) if ca else None, str(cert) if cert else None, str(key) if key else None)
        except (ConfigError, OSError, ValueError) as e:
            raise StoreMisconfiguredError(str(e)) from e
        return client

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._config.timeout
        with self._changed:
            while not done():
                if self._refusal:
                    raise StoreMisconfiguredError(f"{self._config.url} refuses {self._client_id!r}: {self._refusal}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise StoreUnavailableError(f"{self._config.url} {what} within {self._config.timeout:g} s")
                self._changed.wait(left)

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _on_connect(
        self, client: paho.Client, _user: object, _flags: object, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        with self._changed:
            if client is not self._client:
                return
            self._up = not reason.is_failure
            if reason.is_failure:
                _log.warning("mqtt_store_refused", store=self.name, url=self._config.url, reason=str(reason))
                if str(reason) in _NOT_OURS_TO_MEND:
                    self._refusal = f"{reason}; see username and password_file"
            self._changed.notify_all()

    def _on_disconnect(
        self, client: paho.Client, _user: object, _flags: object, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        with self._changed:
            if client is self._client:
                self._up = False
                _log.warning("mqtt_store_disconnected", store=self.name, url=self._config.url, reason=str(reason))

    def _on_publish(
        self, client: paho.Client, _user: object, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        with self._changed:
            if client is not self._client:
                return
            if reason.is_failure:
                self._refusal = f"{reason}; may it publish below {self._config.prefix}/ ?"
            else:
                self._acknowledged.add(mid)
            self._changed.notify_all()
