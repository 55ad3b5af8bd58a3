"""Keeps a line away from the server if a field of it has another type there: one such line spoils a whole request.

Our own fields never change their type (`ingest.fields`). A conflict means that somebody else wrote the same measurement
to this bucket before. It is found with `SHOW FIELD KEYS`, which InfluxDB 1.x, 2.x and 3 Core serve; where the server
does not answer it (a token that may only write), the lines at fault are found by bisection, as before.
"""

import re
import time

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from ingest.fields import type_of
from ingest.line_protocol import Lines
from ingest.stores.base import StoreError
from ingest.stores.influxdb.config import InfluxConfig
from ingest.stores.influxdb.transport import Http

_FIELD = re.compile(rb'([^=, ]+)=(?:"(?:[^"\\]|\\.)*"|[^, ]*)')
_HEAD = re.compile(rb"([^, ]+)((?:[^ \\]|\\.)*) ")
_TRIES = 3  # of a server that does not answer: writing must not wait for this
_AGAIN = 600.0  # seconds, while there are conflicts: somebody may have mended them
_log = structlog.get_logger()

Conflicts = dict[tuple[bytes, bytes], str]


class SchemaGuard:
    """Knows the conflicts of one bucket. Used under the store's lock.

    Attributes:
        conflicts: (measurement, field) → what is wrong, in words.
    """

    def __init__(self, config: InfluxConfig) -> None:
        self._config = config
        self._tries = 0
        self._asked_at = -np.inf
        self._asked = False
        self.conflicts: Conflicts = {}

    def refresh(self, *, now: bool = False) -> None:
        """Ask the server, if it is time to, or `now`."""
        due = time.monotonic() - self._asked_at > _AGAIN
        if not now and (self._asked or self._tries >= _TRIES) and not (self.conflicts and due):
            return
        self._tries += 1
        try:
            found = ask(self._config)
        except StoreError as e:
            if self._tries == _TRIES:
                _log.info("schema_not_known", url=self._config.url, bucket=self._config.bucket, reason=str(e))
            return
        self._asked, self._asked_at = True, time.monotonic()
        if found != self.conflicts:
            for words in found.values():
                _log.error("schema_conflict", url=self._config.url, bucket=self._config.bucket, reason=words)
        self.conflicts = found

    def against(self, lines: Lines, starts: NDArray[np.intp]) -> dict[int, str]:
        """The lines that the server would refuse, each with the reason."""
        if not self.conflicts:
            return {}
        measurements = {measurement for measurement, _ in self.conflicts}
        found: dict[int, str] = {}
        for i in range(len(lines)):
            line = lines.body[starts[i] : starts[i + 1] - 1]
            head = _HEAD.match(line)
            if head is None or head[1] not in measurements:
                continue
            for field in _FIELD.finditer(line, head.end()):
                words = self.conflicts.get((head[1], field[1]))
                if words is not None:
                    found[i] = words
                    break
        return found


def ask(config: InfluxConfig) -> Conflicts:
    """What the bucket's fields are, where they are not what we write.

    Raises:
        StoreError: if the server does not say.
    """
    http = Http(config)
    try:
        fields = {"db": config.bucket, "q": "SHOW FIELD KEYS"}
        answer, body = http.request("GET", "/query", fields, None)
    finally:
        http.close()
    if answer.status != 200:
        raise StoreError(f"{config.url}/query answered {answer.status} {answer.words}")
    types: dict[tuple[str, str], set[str]] = {}  # in 1.x each shard may have another
    try:
        (result,) = msgspec.json.decode(body)["results"]
        if "error" in result:
            raise StoreError(f"{config.url}: {result['error']}")
        for series in result.get("series", ()):
            for field, kind in series["values"]:
                types.setdefault((series["name"], field), set()).add(kind)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as e:
        raise StoreError(f"{config.url}/query does not speak InfluxQL") from e
    found: Conflicts = {}
    for (measurement, field), kinds in types.items():
        ours = type_of(measurement, field)
        if ours is not None and ours not in kinds:
            theirs = " and ".join(sorted(kinds))
            found[measurement.encode(), field.encode()] = (
                f"field type conflict: `{field}` of `{measurement}` in {config.bucket!r} is {theirs} already, and "
                f"Fieldlab writes {ours}: somebody else writes there. "
                "Give Fieldlab a bucket of its own, or drop that measurement"
            )
    return found
