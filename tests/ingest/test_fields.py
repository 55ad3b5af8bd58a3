"""What the guard believes of our fields is what line protocol and the embedded store write."""

from ingest.fields import FIELDS, type_of
from ingest.stores.embedded.schema import TABLES

SQL = {"VARCHAR": "string", "DOUBLE": "float", "BIGINT": "integer", "BOOLEAN": "boolean"}
TAGS = {"site", "area", "line", "machine", "signal"}
OTHER_TAGS = {
    "chart": {"chart"}, "finding": {"chart", "rule"}, "part_event": {"event"}, "ledger": {"agent"},
    "gap": {"agent", "cause"}, "action": {"action"},
}  # fmt: skip


def test_every_measurement_has_the_types_of_the_embedded_store() -> None:
    tables = {t.name: t for t in TABLES.values() if t.name != "agent"}
    assert set(tables) | {"telemetry"} == set(FIELDS)
    for name, table in tables.items():
        tags = TAGS | OTHER_TAGS.get(name, set())
        assert {c: SQL[kind] for c, kind in table.columns.items() if c not in tags} == FIELDS[name]


def test_figures_of_the_agent_are_floats() -> None:
    assert type_of("agent", "memory_bytes") == "float"
    assert type_of("telemetry", "value") == "float"
    assert type_of("somebody", "value") is None
