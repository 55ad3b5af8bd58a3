"""The `[[store]]` table of kind `mqtt`."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from fieldlab.config import Duration, Size
from fieldlab.errors import ConfigError

_SMALLEST_PACKET = 4_096  # bytes: room for the longest topic
_LARGEST_PACKET = 2**28
_ANY = "+"


class SparkplugConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How we appear as a Sparkplug B edge node.

    Attributes:
        group: of the edge node.
        node: its name; absent: the agent's.
        device: what a machine is called: text with `{site}`, `{area}`, `{line}`, `{machine}`.
        host: the primary host to wait for; absent: nobody is waited for.
        state: the form of its STATE: that of Sparkplug 3.0, or that of 2.2.
        qos: 1: the broker acknowledges, and says what it refuses; 0: as Sparkplug prescribes.
    """

    group: str = "fieldlab"
    node: str = ""
    device: str = "{machine}"
    host: str = ""
    state: Literal["3.0", "2.2"] = "3.0"
    qos: Literal[0, 1] = 1


class MqttConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which broker is told, and what.

    Attributes:
        kind: `mqtt`.
        name: unique in the agent.
        url: `mqtt://host:port`, or `mqtts://` for TLS.
        username: who we are.
        password_file: the file with the password.
        ca_file: certificates to trust, for TLS; absent: those of the system.
        cert_file: our own certificate, for TLS.
        key_file: its key.
        protocol: `5`, or `3.1.1` for brokers that know no better.
        client_id: absent: the names of the agent and of the store.
        prefix: the root of every topic, one level or several.
        readings: whether readings are published, too.
        signals: globs over machine/signal: whose readings.
        in_flight: messages that the broker has not acknowledged yet, at most.
        max_packet: bytes of a message, at most; the broker may allow less. A reading that needs more is refused.
        format: `native`: readings on topics of their own; `sparkplug`: as a Sparkplug B edge node, which has readings
            without `readings = true`.
        sparkplug: how the edge node appears.
        timeout: the longest wait for a connection or an acknowledgement.
        when_full: what the journal does when it is full and this store is behind.
    """

    kind: Literal["mqtt"] = "mqtt"
    name: str = "mqtt"
    url: str
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: str = ""
    prefix: str = "fieldlab"
    readings: bool = False
    signals: tuple[str, ...] = ("*",)
    in_flight: int = 200
    max_packet: Size = Size(256_000)
    format: Literal["native", "sparkplug"] = "native"
    sparkplug: SparkplugConfig = SparkplugConfig()
    timeout: Duration = Duration(10)
    when_full: Literal["hold", "drop-oldest"] = "hold"


def broker(config: MqttConfig) -> tuple[str, int, bool]:
    """Host, port, and whether TLS is used.

    Raises:
        ConfigError: if the table makes no sense as a whole.
    """
    url = urlsplit(config.url)
    try:
        port = url.port
    except ValueError:
        raise ConfigError("the port must be a number below 65536", key="url") from None
    if url.scheme not in ("mqtt", "mqtts") or not url.hostname:
        raise ConfigError("must be mqtt://host:port or mqtts://host:port", key="url")
    if url.username or url.password:
        raise ConfigError("may not hold a secret; use username and password_file", key="url")
    if config.password_file and not config.username:
        raise ConfigError("password_file needs username", key="username")
    if bool(config.cert_file) != bool(config.key_file):
        raise ConfigError("cert_file and key_file belong together", key="cert_file")
    _validate_what(config)
    for key in ("ca_file", "cert_file", "key_file"):
        file: Path | None = getattr(config, key)
        if file is not None and not file.is_file():
            raise ConfigError("there is no such file", file=file, key=key)
    secure = url.scheme == "mqtts"
    return url.hostname, port or (8883 if secure else 1883), secure


def _validate_sparkplug(config: SparkplugConfig) -> None:
    for key in ("group", "node", "host"):
        name: str = getattr(config, key)
        if set(name) & set("/+#") or not (name.isprintable() if name else key != "group"):
            raise ConfigError("must be one level of a topic, without + and #", key=f"sparkplug.{key}")
    try:
        found = config.device.format(site="", area="", line="", machine="")
    except (KeyError, ValueError, IndexError, AttributeError):
        found = "/"
    if set(found) & set("/+#") or not config.device.isprintable() or "{machine}" not in config.device:
        words = "must be text with {machine}, and {site}, {area} or {line} if you like, without / + #"
        raise ConfigError(words, key="sparkplug.device")


def _validate_what(config: MqttConfig) -> None:
    levels = config.prefix.split("/")
    if not all(levels) or not config.prefix.isprintable() or config.prefix[0] == "$" or {"+", "#"} & set(config.prefix):
        raise ConfigError("must be levels of a topic, such as acme/uns, without + # and a $ at its start", key="prefix")
    if not all(config.signals):
        raise ConfigError('an empty glob matches nothing; write machine/signal, such as "cnc-*/*"', key="signals")
    if not 1 <= config.in_flight <= 65535:
        raise ConfigError("must be 1 to 65535", key="in_flight")
    if not _SMALLEST_PACKET <= config.max_packet <= _LARGEST_PACKET:
        raise ConfigError("must be 4096B to 256MiB", key="max_packet")
    _validate_sparkplug(config.sparkplug)
    if config.timeout <= 0:
        raise ConfigError("must be longer than nothing", key="timeout")


def published(config: MqttConfig, agent: str) -> tuple[str, ...]:
    """The topics of the readings, as MQTT filters; none if they are not published."""
    if config.format == "sparkplug":
        node = f"spBv1.0/{config.sparkplug.group}/{_ANY}/{config.sparkplug.node or agent}"
        return (node, f"{node}/{_ANY}")
    if not config.readings:
        return ()
    found = []
    for glob in config.signals:
        machine, _, signal = glob.partition("/")
        levels = [_ANY if not name or set(name) & set("*?[") else name for name in (machine, signal)]
        found.append("/".join([config.prefix, _ANY, _ANY, _ANY, *levels]))
    return tuple(dict.fromkeys(found))
