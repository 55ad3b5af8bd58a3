"""The `[[store]]` table of kind `influxdb`."""

import base64
import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from fieldlab.config import Duration
from fieldlab.errors import ConfigError
from fieldlab.secrets import read_secret, remember

TOKEN_VARIABLE = "INFLUXDB_V2_TOKEN"  # noqa: S105  # the name of a variable, as influxdb-client has it; not a token


class InfluxConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where InfluxDB is and how to write to it.

    Attributes:
        kind: `influxdb`.
        name: unique in the agent.
        url: such as `http://127.0.0.1:8086`.
        api: `v2` writes to /api/v2/write, `v1` to /write?db=. Queries are InfluxQL on /query in both.
        org: the organisation, for `v2`; InfluxDB 3 Core and VictoriaMetrics take none.
        bucket: the bucket; the database, with `v1`.
        token_file: the file with the token. Absent: the environment's INFLUXDB_V2_TOKEN, if it is set.
        user: for `v1` without a token.
        password_file: the file with the user's password.
        ca_file: certificates to trust, for https; absent: those of the system.
        timeout: the longest wait for an answer.
        when_full: what the journal does when it is full and this store is behind.
    """

    kind: Literal["influxdb"] = "influxdb"
    name: str = "influxdb"
    url: str
    api: Literal["v2", "v1"] = "v2"
    org: str = ""
    bucket: str = "telemetry"
    token_file: Path | None = None
    user: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    timeout: Duration = Duration(10)
    when_full: Literal["hold", "drop-oldest"] = "hold"


def check_config(config: InfluxConfig) -> None:
    """Look for what cannot work.

    Raises:
        ConfigError: naming the key.
    """
    url = urlsplit(config.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError("must be http://host:port or https://host:port", key="url")
    if url.username or url.password:
        raise ConfigError("may not hold a secret; use token_file, or user and password_file", key="url")
    if bool(config.user) != bool(config.password_file):
        raise ConfigError("user and password_file belong together", key="user")
    if config.user and config.api == "v2":
        raise ConfigError('needs api = "v1"; with "v2" use token_file', key="user")
    if config.ca_file and not config.ca_file.is_file():
        raise ConfigError("there is no such file", file=config.ca_file, key="ca_file")
    if config.timeout <= 0:
        raise ConfigError("must be longer than nothing", key="timeout")


def token(config: InfluxConfig) -> str:
    """The token; empty if none is configured.

    Raises:
        ConfigError: if the file is missing or open to others.
    """
    return read_secret(config.token_file) if config.token_file else remember(os.environ.get(TOKEN_VARIABLE, ""))


def authorization(config: InfluxConfig) -> dict[str, str]:
    """The header that says who we are; empty if no secret is configured.

    Raises:
        ConfigError: if a file is missing or open to others.
    """
    if config.password_file:
        pair = f"{config.user}:{read_secret(config.password_file)}"
        return {"Authorization": f"Basic {remember(base64.b64encode(pair.encode()).decode())}"}
    found = token(config)
    return {"Authorization": f"Token {found}"} if found else {}
