"""JSON payloads: a value, its time and its status, each found by a dotted path."""

import contextlib
from typing import Any

import msgspec

from edge.sources.mqtt.rows import Rows, Scalar
from edge.sources.mqtt.shape import Shape
from edge.sources.mqtt.times import TimeError, all_to_ns, to_ns
from fieldlab.model.status import BAD, UNCERTAIN

UNCERTAIN_LAST_USABLE = 0x40900000  # OPC 10000-6 A.2, UncertainLastUsableValue: what updated it has stopped doing so
_ABSENT: Any = object()
_NAMED_STATUS = {"good": 0, "uncertain": UNCERTAIN, "bad": BAD}
_SCALARS = frozenset((float, int, str, bool, type(None)))


class PayloadError(ValueError):
    """A payload that cannot be read; its text is the reason in the dead letter."""


class JsonPayload:
    """Reads payloads by three paths, split once.

    Args:
        value: dotted path of the value; empty: the payload is the value. A number is an index into an array.
        time: dotted path of the time; empty: payloads have none.
        status: dotted path of the StatusCode; empty: payloads have none.
    """

    def __init__(self, value: str = "value", time: str = "ts", status: str = "status") -> None:
        self._value = _compile(value)
        self._time = _compile(time)
        self._status = _compile(status)
        self._plain = not self._value  # the payload is the value: it has no room for a time
        self._flat = all(len(path) == 1 for path in (self._value, self._time, self._status))
        self._keys = tuple(path[0] if path else "" for path in (self._value, self._time, self._status))
        self.shape: Shape | None = None  # reads most payloads, many at a time
        with contextlib.suppress(ValueError):
            self.shape = Shape(self._value, self._time, self._status)

    def read(self, payload: bytes, signal: int, arrival: int, rows: Rows, *, retained: bool = False) -> int:
        """Add the readings in `payload` to `rows`; if it raises, none was added.

        Args:
            payload: as it came.
            signal: the index of the signal that the topic names.
            arrival: the time of arrival, ns.
            rows: where the readings go.
            retained: an old value, sent again at a subscription: without a time of its own it is marked Uncertain.

        Returns:
            How many readings were added.

        Raises:
            PayloadError: with the reason.
        """
        document = decode(payload)
        if self._flat and type(document) is dict:
            value_key, time_key, status_key = self._keys
            value = document.get(value_key, _ABSENT)
            time = document.get(time_key)
            status = document.get(status_key, 0)
        else:
            value = _find(document, self._value)
            time = None if self._plain or not self._time else _none_if_absent(_find(document, self._time))
            status = 0 if self._plain or not self._status else _find(document, self._status)
            status = 0 if status is _ABSENT else status
        if type(value) is list:
            return _read_array(signal, value, time, status, arrival, rows)
        code = 0 if status == 0 and type(status) is int else _status(status)
        if value is _ABSENT:
            _need_no_value(code, self._value)
            value = None
        elif type(value) not in _SCALARS:
            raise PayloadError("the value is an object; `value` must lead to a number, boolean, text or array")
        if time is None:
            rows.add(signal, arrival, value, code or (UNCERTAIN_LAST_USABLE if retained else 0))
            return 1
        try:
            ns = to_ns(time, arrival)
        except TimeError as e:
            raise PayloadError(str(e)) from None
        rows.add(signal, ns, value, code)
        return 1


def decode(payload: bytes) -> Any:
    """The document in `payload`.

    Raises:
        PayloadError: if it is not JSON that we read.
    """
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise PayloadError(f"not JSON: {e}") from None
    except RecursionError:
        raise PayloadError("not JSON that we read: nested too deeply") from None


def time_and_status(document: Any, time: str, status: str, arrival: int, *, retained: bool) -> tuple[int, int]:
    """The one time and the one StatusCode of a payload with several values.

    Args:
        document: the payload.
        time: dotted path; empty: payloads have none.
        status: dotted path; empty: payloads have none.
        arrival: the time of arrival, ns.
        retained: an old value: without a time of its own it is marked Uncertain.

    Raises:
        PayloadError: if one of them is there and cannot be.
    """
    at = _find(document, _compile(time)) if time else _ABSENT
    code = _find(document, _compile(status)) if status else _ABSENT
    number = 0 if code is _ABSENT else _status(code)
    if at is _ABSENT or at is None:
        return arrival, number or (UNCERTAIN_LAST_USABLE if retained else 0)
    try:
        return to_ns(at, arrival), number
    except TimeError as e:
        raise PayloadError(str(e)) from None


def _read_array(signal: int, value: list[Any], time: Any, status: Any, arrival: int, rows: Rows) -> int:
    """An array of values with its array of times is a batch."""
    if type(time) is not list or len(time) != len(value):
        found = f"{len(time)} times" if type(time) is list else "no array of times"
        raise PayloadError(f"an array of {len(value)} values came with {found}; each value needs its own time")
    if not _SCALARS.issuperset(map(type, value)):
        raise PayloadError("the array holds an object or an array; only numbers, booleans and text are values")
    codes: list[int] | int
    if type(status) is list:
        if len(status) != len(value):
            raise PayloadError(f"an array of {len(value)} values came with {len(status)} statuses")
        codes = [_status(each) for each in status]
    else:
        codes = _status(status)
    if None in time:
        raise PayloadError(f"an array of {len(value)} values came with a time that is null; each value needs its own")
    try:
        times = all_to_ns(time, arrival)
    except TimeError as e:
        raise PayloadError(str(e)) from None
    values: list[Scalar] = value
    rows.extend(signal, times, values, codes)
    return len(values)


def _status(raw: Any) -> int:
    """An OPC UA StatusCode: its number, or the name of its severity."""
    if type(raw) is int and 0 <= raw <= 0xFFFFFFFF:
        return raw
    if type(raw) is float and raw.is_integer() and 0 <= raw <= 0xFFFFFFFF:
        return int(raw)
    if type(raw) is str and raw.lower() in _NAMED_STATUS:
        return _NAMED_STATUS[raw.lower()]
    raise PayloadError(f"the status {str(raw)[:40]!r} is no StatusCode (0 to 4294967295, or good, uncertain, bad)")


def _need_no_value(code: int, path: tuple[str, ...]) -> None:
    """A Bad status needs no value; anything else does."""
    if not code & BAD:
        raise PayloadError(f"there is nothing at {'.'.join(path)!r}")


def _compile(path: str) -> tuple[str, ...]:
    return tuple(path.split(".")) if path else ()


def _find(document: Any, path: tuple[str, ...]) -> Any:
    """What stands at `path`, or `_ABSENT`."""
    for key in path:
        if type(document) is dict:
            document = document.get(key, _ABSENT)
        elif type(document) is list and key.isascii() and key.isdigit() and int(key) < len(document):
            document = document[int(key)]
        else:
            return _ABSENT
    return document


def _none_if_absent(found: Any) -> Any:
    return None if found is _ABSENT else found
