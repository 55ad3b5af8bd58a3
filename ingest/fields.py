"""The type of every field that we write to InfluxDB: one field has one type for ever, whatever a machine sends.

That a signal's value may be a number now and a text later is no conflict: `value` and `text` are two fields.
"""

from typing import Literal

FieldType = Literal["float", "integer", "string", "boolean"]


def _typed(kind: FieldType, names: str) -> dict[str, FieldType]:
    return dict.fromkeys(names.split(), kind)


FIELDS: dict[str, dict[str, FieldType]] = {
    "telemetry": {**_typed("float", "value"), **_typed("string", "text"), **_typed("integer", "status integer")},
    "signal": {**_typed("string", "unit kind guarantee states"), **_typed("float", "lsl usl target")},
    "chart": {**_typed("float", "statistic center ucl lcl"), **_typed("integer", "limits_version")},
    "finding": {
        **_typed("string", "id state severity part detail"),
        **_typed("float", "statistic limit"),
        **_typed("integer", "revision limits_version"),
    },
    "part": {
        **_typed("string", "id verdict reasons features genealogy limits_versions"),
        **_typed("float", "score"),
        **_typed("integer", "revision start"),
    },
    "part_event": {**_typed("string", "id other text"), **_typed("float", "value")},
    "machine_state": _typed("string", "state"),
    "ledger": _typed("integer", "received committed stored bad overflow duplicate dead"),
    "gap": {**_typed("string", "id state source detail"), **_typed("integer", "revision end recovered lost")},
    "event": {
        **_typed("string", "source kind id condition message detail"),
        **_typed("integer", "severity"),
        **_typed("boolean", "active acknowledged retain"),
    },
    "action": _typed("string", "id trigger target value outcome detail"),
}
"""Measurement → field → type; the figures of `agent`, which are not listed, are floats."""


def type_of(measurement: str, field: str) -> FieldType | None:
    """The type that we write, or None if we do not write such a field."""
    return "float" if measurement == "agent" else FIELDS.get(measurement, {}).get(field)
