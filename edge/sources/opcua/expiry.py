"""Certificates that end soon: how many days are left, and a finding 30 days ahead that becomes an alarm at 7.

Looked at in the files, so that it is told also while a server refuses us for it. A finding's id follows from the
certificate's end; what was told is kept beside the session, so that a restart tells nothing twice.
"""

import datetime as dt
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import msgspec
import structlog
from cryptography import x509

from edge.sources.base import Sink, SourceContext
from edge.sources.opcua import certificates
from edge.sources.opcua.config import OpcuaConfig, declared
from edge.sources.opcua.security import read_user
from fieldlab.errors import FieldlabError
from fieldlab.model import Place
from fieldlab.model.finding import Finding, FindingState, Severity, finding_id

log = structlog.get_logger()

CHART: Final = "health"
RULE: Final = "certificate_expiry"
ALARM_DAYS: Final = 7
_EVERY: Final = 3600.0  # s; sooner when a file has changed
_DAY: Final = 24 * 3600 * 10**9


class CertificateRenewedError(FieldlabError):
    """There is a new certificate to be shown to the server."""


class Ending(msgspec.Struct, frozen=True):
    """A certificate.

    Attributes:
        what: own, user or server.
        ends: when it ends, ns.
        text: whose it is, and what to do, in words.
    """

    what: str
    ends: int
    text: str


class Told(msgspec.Struct, frozen=True):
    """A finding that is not cleared yet: the certificate's end, ns; the newest revision and its severity."""

    ends: int
    revision: int
    severity: Severity


class Expiry:
    """Watches the certificates of one source.

    Attributes:
        days: counters of days left: `certificate_days`, `user_certificate_days`, `server_certificate_days`.
    """

    def __init__(self, config: OpcuaConfig, context: SourceContext, sink: Sink) -> None:
        self._config = config
        self._context = context
        self._sink = sink
        self._folder = context.data / "certificates"
        self._file = context.data / "opcua" / f"{context.name}.expiry.json"
        self._places = sorted({known.key.place for known in declared(config, context)})
        if not self._places and config.machine:  # wildcards alone
            levels = (config.site or context.site, config.area or context.area, config.line or context.line)
            self._places = [Place(*levels, config.machine)]
        self._told: dict[str, Told] | None = None
        self._waiting: Future[None] | None = None
        self._next = 0.0
        self._seen: tuple[int, ...] = ()
        self._used = ""
        self._own: certificates.Identity | None = None
        self._shown = 0
        self.days: dict[str, int] = {}

    def look(self, used: certificates.Identity | None = None) -> None:
        """See whether something ends soon, or was renewed; at most every hour unless a file has changed.

        Args:
            used: our certificate on the connection that is up; None if there is none.
        """
        if self._waiting is not None and self._waiting.done():
            self._save()
        seen = self._changed()
        fingerprint = used.fingerprint if used is not None else ""
        now = time.monotonic()
        if self._config.security == "none" or (
            now < self._next and seen == self._seen and fingerprint in ("", self._used)
        ):
            return
        self._next, self._seen, self._used = now + _EVERY, seen, fingerprint or self._used
        try:
            endings = self._endings(used)
        except (FieldlabError, OSError, ValueError) as e:
            log.warning("opcua_expiry_not_known", source=self._context.name, error=str(e))
            return
        wall = time.time_ns()
        names = {"own": "certificate_days", "user": "user_certificate_days", "server": "server_certificate_days"}
        self.days = {names[one.what]: (one.ends - wall) // _DAY for one in endings}
        self._tell(endings, wall)

    def see_to(self, used: certificates.Identity | None) -> None:
        """`look`, and have a renewed certificate shown.

        Raises:
            CertificateRenewedError: if there is one that this server has not seen: connect with it.
        """
        self.look(used)
        if self.renewed(used):
            raise CertificateRenewedError(f"{self._config.url}: connecting with the renewed certificate")

    def renewed(self, used: certificates.Identity | None) -> bool:
        """Whether there is a renewed certificate that the server was not shown yet; true once for each."""
        shown = _mtime(self._folder / "own" / "next.der")
        if used is None or used.renewed or shown in (0, self._shown):
            return False
        self._shown = shown
        now = certificates.load_identity(self._folder, self._context.agent, self._config.url)
        return now.fingerprint != used.fingerprint

    def _changed(self) -> tuple[int, ...]:
        """What changes when a file does."""
        files = (
            self._folder / "own" / "client.der",
            self._folder / "own" / "next.der",
            certificates.pin_path(self._folder, self._config.url),
            self._config.user_cert_file,
        )
        return tuple(_mtime(file) for file in files if file is not None)

    def _endings(self, used: certificates.Identity | None) -> list[Ending]:
        """The certificates that this source uses.

        Raises:
            FieldlabError, OSError, ValueError: if one cannot be read.
        """
        url, found = self._config.url, []
        self._own = own = used or self._own  # the one that servers take, until another one is in use
        if own is None and (self._folder / "own" / "client.der").exists():
            own = certificates.load_identity(self._folder, self._context.agent, url)
        if own is not None:
            text = f"this agent's certificate {own.file}: run fieldlab certs renew, and trust the new one at {url}"
            found.append(Ending("own", _ends(own.certificate), text))
        user = read_user(self._config)
        if user is not None:
            text = (
                f"the user's certificate {self._config.user_cert_file} at {url}: have it renewed, and replace the file"
            )
            found.append(Ending("user", _ends(user[0]), text))
        pin = certificates.read_pin(certificates.pin_path(self._folder, url))
        if pin is not None and pin.expires:
            ends = int(dt.datetime.fromisoformat(pin.expires).timestamp()) * 10**9
            text = f"the certificate of the server {url}: have it renewed there; the agent will refuse the new one, and"
            found.append(Ending("server", ends, f"{text} say which fieldlab certs trust makes it trusted"))
        return found

    def _tell(self, endings: list[Ending], now: int) -> None:
        """Raise, worsen or clear findings."""
        told = self._load()
        rows: list[Finding] = []
        after: dict[str, Told] = {}
        for what in ("own", "user", "server"):
            ending = next((one for one in endings if one.what == what), None)
            before = told.get(what)
            severity = _severity(ending, now)
            if before is not None and (ending is None or ending.ends != before.ends or severity is None):
                text = "renewed" if ending is not None else "not used any more"
                cleared = Told(before.ends, before.revision + 1, before.severity)
                rows += self._rows(what, cleared, "cleared", text, now)
                before = None
            if ending is None or severity is None:
                continue
            if before is not None and before.severity == severity:
                after[what] = before
                continue
            after[what] = Told(ending.ends, 1 if before is None else before.revision + 1, severity)
            rows += self._rows(what, after[what], "raised", ending.text, now + 1)  # behind a clearing
            log.error(
                "opcua_certificate_expires",
                source=self._context.name,
                days=(ending.ends - now) // _DAY,
                what=ending.text,
            )
        self._told = after
        if rows:
            self._waiting = self._sink.write(rows)

    def _rows(self, what: str, told: Told, state: FindingState, text: str, now: int) -> list[Finding]:
        """One row for each machine of the source."""
        ends = dt.datetime.fromtimestamp(told.ends // 10**9, dt.UTC).date().isoformat()
        verb = "expired" if told.ends <= now else "expires"
        detail = text if state == "cleared" else f"{verb} on {ends}: {text}"
        return [self._row(place, f"_certificate.{what}", told, state, detail, now) for place in self._places]

    def _row(self, place: Place, signal: str, told: Told, state: FindingState, detail: str, now: int) -> Finding:
        return Finding(
            time=now,
            place=place,
            signal=signal,
            chart=CHART,
            rule=RULE,
            id=finding_id(place, signal, CHART, RULE, told.ends, 0),
            revision=told.revision,
            state=state,
            severity=told.severity,
            statistic=round((told.ends - now) / _DAY, 1),
            limit=float(ALARM_DAYS if told.severity == "alarm" else certificates.EXPIRY_WARN_DAYS),
            detail=detail,
        )

    def _load(self) -> dict[str, Told]:
        if self._told is None:
            try:
                self._told = msgspec.json.decode(self._file.read_bytes(), type=dict[str, Told])
            except FileNotFoundError:
                self._told = {}
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
                log.warning("opcua_expiry_forgotten", file=str(self._file), error=str(e))
                self._told = {}
        return self._told

    def _save(self) -> None:
        """Remember what is on disk in the journal now."""
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.cancelled() or waiting.exception() is not None:
            self._told, self._next = None, 0.0  # it was not kept: say it again
            return
        try:
            certificates.write_private(self._file, msgspec.json.encode(self._told))
        except OSError as e:
            log.warning("opcua_expiry_not_saved", file=str(self._file), error=str(e))


def _severity(ending: Ending | None, now: int) -> Severity | None:
    if ending is None or ending.ends - now >= certificates.EXPIRY_WARN_DAYS * _DAY:
        return None
    return "alarm" if ending.ends - now < ALARM_DAYS * _DAY else "warning"


def _ends(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp()) * 10**9


def _mtime(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
