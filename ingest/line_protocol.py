"""Writes readings and rows as InfluxDB line protocol, in the schema of ingest/README.md, column by column.

Line protocol cannot say everything that a name may hold, so two things are written as look-alikes, which `plain` turns
back: a control character as its symbol (a line feed as U+240A), and, in a tag, a backslash that a server could take for
an escape as U+29F5. Everything else is escaped. A text that already holds such a symbol is not told apart from it.

Source: InfluxDB line protocol reference, "Special characters": in tag values `,`, `=` and space are escaped; in text
`"` and backslash; a line feed is allowed in neither, and a tag value may not end in a backslash.
"""

import math
import re
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldlab.model import (
    ActionRow,
    AgentRow,
    Batch,
    ChartPoint,
    Control,
    Finding,
    Gap,
    LedgerRow,
    MachineEvent,
    MachineState,
    PartEvent,
    Place,
    SignalInfo,
    SignalKey,
    SignalTable,
    Verdict,
)
from fieldlab.model.record import Row
from fieldlab.model.status import BAD, BAD_OUT_OF_RANGE

_SYMBOLS = {**{c: 0x2400 + c for c in range(32)}, 127: 0x2421}
_CONTROLS = {symbol: control for control, symbol in _SYMBOLS.items()}
_BACKSLASH = "\u29f5"
_TAG_ESCAPES: dict[int, str | int] = {**_SYMBOLS, ord(","): "\\,", ord("="): "\\=", ord(" "): "\\ "}
_TEXT_ESCAPES: dict[int, str | int] = {**_SYMBOLS, ord("\\"): "\\\\", ord('"'): '\\"'}
_UNSAFE_BACKSLASH = re.compile(r"\\(?=[,= \\]|$)")

REASONS = "; "
"""What joins the reasons of a verdict into one text."""


class Lines(msgspec.Struct, frozen=True, eq=False):
    """Line protocol, and what each of its n lines is about.

    Attributes:
        body: n lines, each ended by a line feed.
        signal: index into the signal table, (n,) i64; -1 for a row that is not a reading.
        time: ns, (n,) i64.
        about: line → machine path and signal name, for the rows that are not readings.
    """

    body: bytes
    signal: NDArray[np.int64]
    time: NDArray[np.int64]
    about: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self.signal)


def join(parts: Sequence[Lines]) -> Lines:
    """All lines, in order."""
    if len(parts) == 1:
        return parts[0]
    about: dict[int, tuple[str, str]] = {}
    start = 0
    for part in parts:
        about.update({start + line: subject for line, subject in part.about.items()})
        start += len(part)
    return Lines(
        b"".join(p.body for p in parts),
        np.concatenate([p.signal for p in parts]) if parts else np.empty(0, np.int64),
        np.concatenate([p.time for p in parts]) if parts else np.empty(0, np.int64),
        about,
    )


def plain_tag(name: str) -> str:
    """`name` as a tag holds it, before escaping: control characters and unsafe backslashes as symbols."""
    return _UNSAFE_BACKSLASH.sub(_BACKSLASH, name.translate(_SYMBOLS))


def plain(stored: str) -> str:
    """What `stored` was before line protocol's symbols were put in."""
    return stored.translate(_CONTROLS).replace(_BACKSLASH, "\\")


def said_as_text(text: str) -> str:
    """`text` as a text field holds it: control characters as symbols."""
    return text.translate(_SYMBOLS)


def plain_text(stored: str) -> str:
    """As `plain`, for a text field, in which backslashes are escaped."""
    return stored.translate(_CONTROLS)


class LineEncoder:
    """Encodes batches and rows. It keeps the prefix of every signal's line; use one from one thread.

    Args:
        signals: what the signal indices of a batch mean.
    """

    def __init__(self, signals: SignalTable) -> None:
        self._signals = signals
        self._prefixes: list[bytes] = []
        self._with_value: NDArray[np.object_] = np.empty(0, object)

    def batch(self, batch: Batch) -> Lines:
        """One line a reading. Numbers with status 0 come first, then the rest, each in order.

        Raises:
            IndexError: if a signal is not in the table.
        """
        self._learn()
        simple = np.isfinite(batch.value) & (batch.status == 0)
        simple[batch.integer_row] = False
        body = self._numbers(batch.signal[simple], batch.time[simple], batch.value[simple])
        others = np.flatnonzero(~simple)
        if len(others):
            body += b"".join(self._others(batch, others))
        order = np.concatenate([np.flatnonzero(simple), others])
        return Lines(body, batch.signal[order].astype(np.int64), batch.time[order])

    def rows(self, rows: Iterable[Row], time: int) -> Lines:
        """One line a row; a `SignalInfo` has no time of its own and gets `time`, ns; a `Control` is not stored."""
        newest: dict[object, Row] = {}
        for i, row in enumerate(rows):  # two descriptions of a signal in one record: the later one counts
            newest[row.key if isinstance(row, SignalInfo) else i] = row
        lines: list[bytes] = []
        times: list[int] = []
        about: dict[int, tuple[str, str]] = {}
        for row in newest.values():
            line = _row(row, time)
            if line:
                about[len(lines)] = _subject(row)
                lines.append(line.encode("utf-8", "replace"))
                times.append(time if isinstance(row, SignalInfo) else row.time)
        return Lines(b"".join(lines), np.full(len(lines), -1, np.int64), np.array(times, np.int64), about)

    def _learn(self) -> None:
        known = len(self._prefixes)
        if known < len(self._signals):
            self._prefixes += [
                f"telemetry{_tags(_signal_tags(key))} ".encode("utf-8", "replace") for key in self._signals.since(known)
            ]
            self._with_value = np.array([p + b"value=" for p in self._prefixes], object)

    def _numbers(self, signal: NDArray[np.uint32], time: NDArray[np.int64], value: NDArray[np.float64]) -> bytes:
        n = len(signal)
        if not n:
            return b""
        parts: list[bytes] = [b""] * (3 * n)
        parts[0::3] = self._with_value[signal].tolist()
        parts[1::3] = msgspec.json.encode(value.tolist())[1:-1].split(b",")
        times = msgspec.json.encode(time.tolist())[1:-1].replace(b",", b"\n\0 ")
        parts[2::3] = (b" " + times + b"\n").split(b"\0")
        return b"".join(parts)

    def _others(self, batch: Batch, rows: NDArray[np.intp]) -> Iterable[bytes]:
        """Lines of the readings that are text, not Good, or integers that a float cannot hold."""
        texts = batch.texts()
        integers = dict(zip(batch.integer_row.tolist(), batch.integer.tolist(), strict=True))
        for row in rows.tolist():
            fields: list[str] = []
            status = int(batch.status[row])
            if not status & BAD:
                value = float(batch.value[row])
                if row in texts:
                    fields.append(f"text={_text(texts[row])}")
                elif math.isfinite(value):
                    fields.append(f"value={value!r}")
                if row in integers:
                    fields.append(f"integer={integers[row]}i")
            if not fields and not status & BAD:
                status = BAD_OUT_OF_RANGE  # a number that is none
            if status:
                fields.append(f"status={status}i")
            yield b"%b%b %d\n" % (
                self._prefixes[int(batch.signal[row])],
                ",".join(fields).encode("utf-8", "replace"),
                int(batch.time[row]),
            )


def _signal_tags(key: SignalKey) -> list[tuple[str, str]]:
    return [*_place_tags(key.place), ("signal", key.name)]


def _place_tags(place: Place) -> list[tuple[str, str]]:
    return [("site", place.site), ("area", place.area), ("line", place.line), ("machine", place.machine)]


def _tags(tags: Iterable[tuple[str, str]]) -> str:
    """`,key=value` of each tag; a tag without a value is left out, as line protocol demands."""
    return "".join(f",{key}={_escape_tag(value)}" for key, value in tags if value)


def _escape_tag(value: str) -> str:
    return plain_tag(value).translate(_TAG_ESCAPES)


def _text(value: str) -> str:
    return f'"{value.translate(_TEXT_ESCAPES)}"'


def _integer(value: int) -> str:
    return f"{value}i"


def _number(value: float | None) -> str | None:
    """A float as a field; None for what has no value: absent, NaN or infinite."""
    return None if value is None or not math.isfinite(value) else repr(float(value))


def _json(value: object) -> str | None:
    return _text(msgspec.json.encode(value).decode()) if value else None


def _line(measurement: str, tags: list[tuple[str, str]], fields: dict[str, str | None], time: int) -> str:
    said = ",".join(f"{key}={value}" for key, value in fields.items() if value is not None)
    return f"{measurement}{_tags(tags)} {said} {time}\n" if said else ""


def _row(row: Row, time: int) -> str:  # noqa: PLR0911  # one branch a kind of row
    match row:
        case Finding():
            return _finding(row)
        case Verdict():
            return _verdict(row)
        case PartEvent():
            fields = {"id": _text(row.id), "other": _text(row.other), "value": _number(row.value)}
            fields["text"] = _text(row.text)
            return _line("part_event", [*_place_tags(row.place), ("event", row.event)], fields, row.time)
        case ChartPoint():
            fields = {k: _number(getattr(row, k)) for k in ("statistic", "center", "ucl", "lcl")}
            fields["limits_version"] = _integer(row.limits_version)
            tags = [*_place_tags(row.place), ("signal", row.signal), ("chart", row.chart)]
            return _line("chart", tags, fields, row.time)
        case SignalInfo():
            fields = {"unit": _text(row.unit), "kind": _text(row.kind)}
            fields |= {k: _number(getattr(row, k)) for k in ("lsl", "usl", "target")}
            fields |= {"guarantee": _text(row.guarantee), "states": _json(row.states)}
            return _line("signal", _signal_tags(row.key), fields, time)
        case MachineState():
            return _line("machine_state", _place_tags(row.place), {"state": _text(row.state)}, row.time)
        case LedgerRow():
            names = ("received", "committed", "stored", "bad", "overflow", "duplicate", "dead")
            fields = {k: _integer(getattr(row, k)) for k in names}
            return _line("ledger", [*_signal_tags(row.key), ("agent", row.agent)], fields, row.time)
        case AgentRow():
            fields = {figure_name(k): _number(v) for k, v in row.figures.items()}
            return _line("agent", [("agent", row.agent)], fields, row.time)
        case Gap() | MachineEvent() | ActionRow():
            return _happening(row)
        case Control():
            return ""


def figure_name(name: str) -> str:
    """The field key of an agent's figure: never empty, nor the name of the tag or of the time."""
    return _escape_tag(name) if name and name not in ("agent", "time") else f"{name}_"


def _finding(row: Finding) -> str:
    tags = [*_place_tags(row.place), ("signal", row.signal), ("chart", row.chart), ("rule", row.rule)]
    fields = {
        "id": _text(row.id),
        "revision": _integer(row.revision),
        "state": _text(row.state),
        "severity": _text(row.severity),
        "statistic": _number(row.statistic),
        "limit": _number(row.limit),
        "limits_version": _integer(row.limits_version),
        "part": _text(row.part),
        "detail": _text(row.detail),
    }
    return _line("finding", tags, fields, row.time)


def _verdict(row: Verdict) -> str:
    fields = {
        "id": _text(row.id),
        "revision": _integer(row.revision),
        "verdict": _text(row.verdict),
        "score": _number(row.score),
        "reasons": _text(REASONS.join(row.reasons)),
        "start": _integer(row.start),
        "features": _json(row.features),
        "genealogy": _json(row.genealogy),
        "limits_versions": _json(row.limits_versions),
    }
    return _line("part", _place_tags(row.place), fields, row.time)


def _happening(row: Gap | MachineEvent | ActionRow) -> str:
    fields: dict[str, str | None]
    match row:
        case Gap():
            tags = [*_signal_tags(row.key), ("agent", row.agent), ("cause", row.cause)]
            fields = {k: _text(getattr(row, k)) for k in ("id", "state", "source", "detail")}
            fields |= {k: _integer(getattr(row, k)) for k in ("revision", "end", "recovered", "lost")}
            return _line("gap", tags, fields, row.time)
        case MachineEvent():
            fields = {k: _text(getattr(row, k)) for k in ("source", "kind", "id", "condition", "message")}
            fields |= {k: _flag(getattr(row, k)) for k in ("active", "acknowledged", "retain")}
            fields |= {"severity": _integer(row.severity), "detail": _json(row.detail)}
            return _line("event", _place_tags(row.place), fields, row.time)
        case ActionRow():
            fields = {k: _text(getattr(row, k)) for k in ("id", "trigger", "target", "value", "outcome", "detail")}
            return _line("action", [*_place_tags(row.place), ("action", row.action)], fields, row.time)


def _flag(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def _subject(row: Row) -> tuple[str, str]:
    """Machine path and signal name that a row is about, as far as it has them."""
    key: SignalKey | None = getattr(row, "key", None)
    place: Place | None = key.place if key else getattr(row, "place", None)
    return (place.path if place else getattr(row, "agent", "")), (key.name if key else getattr(row, "signal", ""))
