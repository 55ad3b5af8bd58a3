"""What documents of devices hold: numbers, also written as text, tables, and times."""

from typing import Any

from edge.sources.mqtt.payload import UNCERTAIN_LAST_USABLE, PayloadError, decode
from edge.sources.mqtt.times import TimeError, to_ns


def number(raw: Any) -> float | int | None:
    """A finite number, or one that is written as text; booleans are 0 and 1. None if it is none."""
    if isinstance(raw, bool):
        return float(raw)
    if isinstance(raw, int):
        return raw if -(2**63) <= raw < 2**63 else None
    if isinstance(raw, float):
        return raw if abs(raw) < 1e300 else None
    if isinstance(raw, str) and len(raw) <= 40:
        try:
            value = float(raw)
        except ValueError:
            return None
        return value if abs(value) < 1e300 else None  # NaN compares false, too
    return None


def scaled(raw: Any, factor: float) -> float | None:
    """A number times `factor`, to nine digits; None if it is none."""
    value = number(raw)
    return None if value is None or abs(value) > 1e290 else float(f"{float(value) * factor:.9g}")


def table(raw: Any) -> dict[str, Any]:
    """`raw`, if it is an object, else nothing."""
    return raw if isinstance(raw, dict) else {}


def document_of(payload: bytes) -> dict[str, Any]:
    """The JSON object in a payload.

    Raises:
        PayloadError: if it is none.
    """
    document = decode(payload)
    if not isinstance(document, dict):
        raise PayloadError("the payload is no JSON object")
    return document


def time_of(raw: Any, arrival: int, *, retained: bool) -> tuple[int, int]:
    """The time and the status of a message's readings: an old one without a time of its own is Uncertain.

    Raises:
        PayloadError: if there is a time that cannot be.
    """
    if raw is None:
        return arrival, UNCERTAIN_LAST_USABLE if retained else 0
    try:
        return to_ns(raw, arrival), 0
    except TimeError as e:
        raise PayloadError(str(e)) from None
