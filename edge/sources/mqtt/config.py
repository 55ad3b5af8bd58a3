"""The `[[source]] kind = "mqtt"` table, and what in it makes no sense."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from edge.sources.base import SourceContext
from edge.sources.mqtt.formats import known_formats, load_format
from edge.sources.mqtt.large import KEPT
from edge.sources.mqtt.sparkplug.config import SparkplugConfig
from edge.sources.mqtt.topics import TopicTemplate, check_filter
from fieldlab.config import Duration, Size
from fieldlab.errors import ConfigError

NATIVE = "fieldlab/{site}/{area}/{line}/{machine}/{signal}"
_LARGEST_PACKET = 2**28
_PORTS = {"mqtt": 1883, "mqtts": 8883}


class MqttConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One broker, and how its topics and payloads are read.

    Attributes:
        kind: `mqtt`.
        url: `mqtt://host:1883` or, with TLS, `mqtts://host:8883`.
        username: absent: anonymous.
        password_file: a file that only its owner can read.
        ca_file: who signed the broker's certificate; absent: the system's authorities.
        cert_file: the client's certificate.
        key_file: its private key.
        server_name: the name in the broker's certificate, where it is not the host of `url`.
        pinned_certificate: the only certificate that the broker may show: its SHA-256 fingerprint, or a file with it.
        format: the dialect of the payloads; see `formats`.
        topics: filters to subscribe to, `$share/GROUP/…` included; absent: made from `topic`.
        topic: where site, area, line, machine and signal stand in a topic; the rest is taken from `[place]`. Other
            formats than `json` have a default of their own.
        machine: the machine, where the topic does not name it.
        value: dotted path of the value; empty: the payload is the value.
        values: name → dotted path, for several signals in one payload; `*` is any key, and what it stood for replaces
            a `*` of the name. Instead of `value`.
        time: dotted path of the time; where the payload has none, it is the time of arrival.
        status: dotted path of the OPC UA StatusCode; where the payload has none, Good.
        session: `persistent`: the broker keeps messages while the agent is away.
        session_expiry: how long it keeps them (MQTT 5 only; with 3.1.1 the broker decides).
        protocol: MQTT version.
        client_id: absent: agent name and index of the source.
        in_flight: unacknowledged messages at most; beyond them the socket is not read.
        gather: how long packets may gather before they are read. A reading waits that long at most; twice as long, if
            the broker holds small packets back until the ones before are confirmed.
        max_payload: bytes of a payload; what is larger is set aside unread.
        keepalive: seconds between signs of life, whole.
        status_topic: where our own state is kept, retained: `online` or, by our will, `offline`; absent: nowhere.
        sparkplug: how we appear as a Sparkplug host application.
        guarantee: say `from-receipt` where publishers are known to use QoS 0; absent: found out from the messages.
    """

    kind: Literal["mqtt"] = "mqtt"
    url: str
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str = ""
    pinned_certificate: Path | None = None
    format: str = "json"
    topics: tuple[str, ...] = ()
    topic: str = NATIVE
    machine: str = ""
    value: str = "value"
    values: dict[str, str] = {}
    time: str = "ts"
    status: str = "status"
    session: Literal["persistent", "clean"] = "persistent"
    session_expiry: Duration = Duration(30 * 86400)
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: str = ""
    in_flight: int = 2000
    gather: Duration = Duration(0.004)
    max_payload: Size = Size(16_000_000)
    keepalive: Duration = Duration(30)
    status_topic: str = ""
    guarantee: Literal["end-to-end", "from-receipt"] = "end-to-end"
    sparkplug: SparkplugConfig = SparkplugConfig()


class Broker(msgspec.Struct, frozen=True):
    """Where a broker is."""

    host: str
    port: int
    tls: bool

    @property
    def url(self) -> str:
        """`mqtt://host:port`, without secrets."""
        return f"mqtt{'s' if self.tls else ''}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def parse_url(url: str) -> Broker:
    """Read `mqtt://host[:port]` or `mqtts://host[:port]`.

    Raises:
        ConfigError: if it is anything else, or holds a user or a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise ConfigError(f"{url!r} is not a URL: {e}", key="url") from None
    if parts.scheme not in _PORTS or not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError("must be written mqtt://host:1883, or mqtts://host:8883 for TLS", key="url")
    if "@" in parts.netloc:
        raise ConfigError("may not hold a user or password; use `username` and `password_file`", key="url")
    return Broker(host, _PORTS[parts.scheme] if port is None else port, parts.scheme == "mqtts")


def filters_of(config: MqttConfig) -> tuple[str, ...]:
    """The filters to subscribe to, without repetitions, in the configuration's order."""
    return tuple(dict.fromkeys(config.topics)) or load_format(config.format).filters(config)


def client_id_of(config: MqttConfig, context: SourceContext) -> str:
    """The client id: who the broker thinks that we are, so also the name of our session."""
    return config.client_id or f"{context.agent}-{context.index}"


def validate(config: MqttConfig, context: SourceContext) -> None:
    """Refuse what makes no sense as a whole.

    Raises:
        ConfigError: with the key within the table.
    """
    broker = parse_url(config.url)
    if config.format not in known_formats():
        built = ", ".join(known_formats())
        raise ConfigError(f"{config.format!r} is not built yet; this version reads: {built}", key="format")
    _validate_tls(config, broker)
    if config.password_file is not None and not config.username:
        raise ConfigError("needs `username` beside it", key="password_file")
    _validate_topics(config, context)
    if not 1 <= config.in_flight <= 65535:
        raise ConfigError("must be 1 to 65535", key="in_flight")
    if not 0 <= config.gather <= 0.1:
        raise ConfigError("must be 0s to 100ms", key="gather")
    if not 1 <= config.keepalive <= 65535:
        raise ConfigError("must be 1s to 18h", key="keepalive")
    if not KEPT <= config.max_payload <= _LARGEST_PACKET:
        raise ConfigError("must be 64kB to 256MiB, which no MQTT packet exceeds", key="max_payload")
    _validate_status_topic(config)
    if len(client_id_of(config, context).encode()) > 65535:
        raise ConfigError("is too long", key="client_id")


def _validate_status_topic(config: MqttConfig) -> None:
    topic = config.status_topic
    if not topic:
        return
    if any(each in topic for each in "+#\0") or topic.startswith("$") or len(topic.encode()) > 65535:
        raise ConfigError("must be a topic, without + and #, and not one of the broker's own ($)", key="status_topic")
    if not any(level.startswith("_") for level in topic.split("/")):
        raise ConfigError(
            "must have a level that starts with _, such as fieldlab/_agent/line-3: no agent reads it as a signal then",
            key="status_topic",
        )
    if config.format == "sparkplug" and config.sparkplug.primary:
        raise ConfigError("a primary host has its STATE as its will, and a connection has one", key="status_topic")


def _validate_tls(config: MqttConfig, broker: Broker) -> None:
    for key in ("ca_file", "cert_file", "key_file"):
        file: Path | None = getattr(config, key)
        if file is not None and not file.is_file():
            raise ConfigError(f"there is no file {file}", key=key)
        if file is not None and not broker.tls:
            raise ConfigError("needs TLS: write mqtts:// in `url`", key=key)
    for key in ("server_name", "pinned_certificate"):
        if getattr(config, key) and not broker.tls:
            raise ConfigError("needs TLS: write mqtts:// in `url`", key=key)
    if config.key_file is not None and config.cert_file is None:
        raise ConfigError("needs `cert_file` beside it", key="key_file")


def _validate_topics(config: MqttConfig, context: SourceContext) -> None:
    load_format(config.format).validate(config, context)
    for i, each in enumerate(config.topics):
        try:
            check_filter(each)
        except ValueError as e:
            raise ConfigError(str(e), key=f"topics[{i}]") from None


def validate_template(topic: str, config: MqttConfig, context: SourceContext) -> TopicTemplate:
    """Read a template of topics, and make sure that every level of a machine's path is known.

    Raises:
        ConfigError: at the key `topic`.
    """
    try:
        template = TopicTemplate(topic)
    except ValueError as e:
        raise ConfigError(str(e), key="topic") from None
    defaults = {"site": context.site, "area": context.area, "line": context.line, "machine": config.machine}
    for level, default in defaults.items():
        if level not in template.levels and not default:
            remedy = "write `machine`" if level == "machine" else f"write `{level}` in [place]"
            raise ConfigError(f"does not hold {{{level}}}; add it, or {remedy}", key="topic")
    return template
