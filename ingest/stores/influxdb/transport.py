"""Sends one request and says what the server answered. No retry here: the journal is the retry.

Neither urllib3 nor influxdb-client takes a proxy from the environment, so loopback is reached directly.
"""

import email.utils
import ssl
import time
from typing import Protocol
from urllib.parse import urlencode

import msgspec
import urllib3
from influxdb_client.client.exceptions import InfluxDBError
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

from fieldlab.errors import ConfigError
from fieldlab.secrets import hide
from ingest.stores.base import StoreMisconfiguredError, StoreUnavailableError
from ingest.stores.influxdb.config import InfluxConfig, authorization, token

_LONGEST_WORDS = 500
_LONGEST_WAIT = 3600.0


class Answer(msgspec.Struct, frozen=True):
    """What a server said.

    Attributes:
        status: HTTP status.
        words: its own words, at most 500 characters.
        retry_after: seconds that it asks us to wait, if it does.
    """

    status: int
    words: str = ""
    retry_after: float | None = None


class Transport(Protocol):
    """Writes line protocol to one bucket."""

    def write(self, body: bytes) -> Answer:
        """Send `body`.

        Raises:
            StoreUnavailableError: if there is no answer, or not in time; the server may have taken it nevertheless.
            StoreMisconfiguredError: if the server's certificate is not trusted, or a secret cannot be read.
        """
        ...

    def close(self) -> None:
        """Drop the connections."""
        ...


def open_transport(config: InfluxConfig) -> Transport:
    """The transport for `config.api`. Connects to nothing yet.

    Raises:
        ConfigError: if a secret cannot be read.
    """
    return ClientTransport(config) if config.api == "v2" else LegacyTransport(config)


class ClientTransport:
    """/api/v2/write, through influxdb-client."""

    def __init__(self, config: InfluxConfig) -> None:
        self._config = config
        self._client: InfluxDBClient | None = None
        self._connect()

    def _connect(self) -> InfluxDBClient:
        if self._client is None:
            self._client = InfluxDBClient(
                url=self._config.url,
                token=token(self._config),
                org=self._config.org,
                timeout=round(self._config.timeout * 1000),
                ssl_ca_cert=str(self._config.ca_file) if self._config.ca_file else None,
                retries=False,
            )
            self._write = self._client.write_api(write_options=SYNCHRONOUS)
        return self._client

    def write(self, body: bytes) -> Answer:
        """See `Transport`."""
        url = self._config.url
        try:
            client = self._connect()
            self._write.write(bucket=self._config.bucket, org=self._config.org, record=body)  # in ns, its default
            answer = Answer(client.api_client.last_response.status)
        except ApiException as e:
            if not e.status:
                raise StoreMisconfiguredError(f"{url}: its certificate is not trusted: {e.reason}") from e
            answer = Answer(int(e.status), _words(e.body or e.reason), _retry_after(e.headers))
        except ConfigError as e:
            raise StoreMisconfiguredError(str(e)) from e
        except (InfluxDBError, urllib3.exceptions.HTTPError, OSError, ValueError) as e:
            raise _unreachable(url, e) from e
        if answer.status == 401:
            self.close()  # the next try reads the token file again
        return answer

    def close(self) -> None:
        """See `Transport`."""
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]  # the client's own lack
            self._client = None


class LegacyTransport:
    """/write?db= of InfluxDB 1.x."""

    def __init__(self, config: InfluxConfig) -> None:
        self._config = config
        self._http = Http(config)
        authorization(config)

    def write(self, body: bytes) -> Answer:
        """See `Transport`."""
        return self._http.request("POST", "/write", {"db": self._config.bucket, "precision": "ns"}, body)[0]

    def close(self) -> None:
        """See `Transport`."""
        self._http.close()


class Http:
    """Plain requests to the server, with who we are. Safe to use from several threads."""

    def __init__(self, config: InfluxConfig) -> None:
        self._config = config
        self._pool = urllib3.PoolManager(
            maxsize=4,
            retries=False,
            timeout=urllib3.Timeout(total=float(config.timeout)),
            ca_certs=str(config.ca_file) if config.ca_file else None,
        )

    def request(self, method: str, path: str, fields: dict[str, str], body: bytes | None) -> tuple[Answer, bytes]:
        """What the server answers, and the whole body of it.

        Raises:
            StoreError: as `Transport.write`.
        """
        url = self._config.url.rstrip("/") + path
        try:
            headers = authorization(self._config)
            if body is None:
                answer = self._pool.request(method, url, fields=fields, headers=headers)
            else:
                headers["Content-Type"] = "text/plain; charset=utf-8"
                query = urlencode(fields)
                answer = self._pool.request(method, f"{url}?{query}", body=body, headers=headers)
        except ConfigError as e:
            raise StoreMisconfiguredError(str(e)) from e
        except (ssl.SSLError, urllib3.exceptions.SSLError) as e:
            raise StoreMisconfiguredError(f"{self._config.url}: its certificate is not trusted: {e}") from e
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as e:
            raise _unreachable(self._config.url, e) from e
        words = _words(answer.data) if answer.status != 200 else ""
        return Answer(answer.status, words, _retry_after(answer.headers)), answer.data

    def close(self) -> None:
        """Drop the connections."""
        self._pool.clear()


class _Headers(Protocol):
    def get(self, name: str) -> str | None: ...


def _unreachable(url: str, error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(f"{url} does not answer: {type(error).__name__}: {error}")


def _words(body: bytes | str | None) -> str:
    """The message in an answer's body, which is JSON with `message` or `error`, or plain text."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body or ""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        found = None
    if isinstance(found, dict):
        text = str(found.get("message") or found.get("error") or text)
    return hide(" ".join(text.split()))[:_LONGEST_WORDS]


def _retry_after(headers: _Headers | None) -> float | None:
    """Retry-After in seconds: a number, or a date (RFC 9110, 10.2.3); at most an hour."""
    said = headers.get("Retry-After") if headers else None
    if not said:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), _LONGEST_WAIT) if seconds == seconds else None  # noqa: PLR0124  # NaN
