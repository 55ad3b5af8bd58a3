"""The `[[store]]` table of kind `mqtt`."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from fieldlab.config import Duration
from fieldlab.errors import ConfigError


class MqttConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which broker is told.

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
        prefix: the first level of every topic.
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
    if not config.prefix or config.prefix.startswith("$") or {"+", "#", "/"} & set(config.prefix):
        raise ConfigError("must be one level of a topic, without + # and a $ at its start", key="prefix")
    if config.timeout <= 0:
        raise ConfigError("must be longer than nothing", key="timeout")
    for key in ("ca_file", "cert_file", "key_file"):
        file: Path | None = getattr(config, key)
        if file is not None and not file.is_file():
            raise ConfigError("there is no such file", file=file, key=key)
    secure = url.scheme == "mqtts"
    return url.hostname, port or (8883 if secure else 1883), secure
